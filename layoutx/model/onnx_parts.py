"""The layers of an ONNX graph: each node with weights and the Add of its bias, tied and repeated ones told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from layoutx.files.onnx_file import bodies, label
from layoutx.files.store import Store
from layoutx.frozen import frozen
from layoutx.model.axes import Shape
from layoutx.model.bare import called_scale, called_table
from layoutx.model.onnx_again import Again
from layoutx.model.onnx_attention import attentions
from layoutx.model.onnx_bare import FORMS as BARE
from layoutx.model.onnx_bare import TOKENS, bare, tokens
from layoutx.model.onnx_bias import with_bias
from layoutx.model.onnx_consts import Const, constants, names_read
from layoutx.model.onnx_fold import Folding
from layoutx.model.onnx_forms import RECURRENT, Reading
from layoutx.model.onnx_names import MADE, name_of, told, unique
from layoutx.model.onnx_nodes import read_node
from layoutx.model.onnx_standard import standard
from layoutx.model.onnx_thin import thinned
from layoutx.model.onnx_written import norms
from layoutx.model.record import LayerRecord

ALSO_READ = "is also read by"


@dataclass(slots=True)
class Parts:
    """The records of a graph in node order, and where their nodes are.

    Attributes:
        records: name -> record, without refined axes; the same mapping for a graph and all its bodies.
        owner: position of a node -> the record that it belongs to.
        fused: position of a node between a product and the Add of its bias, that one too -> the input that is data.
        consts: value name -> what it is made of.
        inner: position of a node -> its bodies with their own parts.
        spans: record of several nodes -> the positions of all of them, for each time it is called.
        copies: stored tensor -> the one that holds the same numbers, of a layer that is called twice.
    """

    records: dict[str, LayerRecord] = field(default_factory=dict)
    owner: dict[int, str] = field(default_factory=dict)
    fused: dict[int, str] = field(default_factory=dict)
    consts: dict[str, Const] = field(default_factory=dict)
    inner: dict[int, list[tuple[Any, Parts]]] = field(default_factory=dict)
    spans: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    copies: Mapping[str, str] = field(default_factory=dict)


@frozen
class _Model:
    """What is the same for a graph and its bodies; `same` finds the record of nodes with the same weights."""

    store: Store
    shapes: Mapping[str, Shape]
    opset: int
    records: dict[str, LayerRecord] = field(default_factory=dict)
    same: dict[tuple[object, ...], str] = field(default_factory=dict)
    again: Again = field(default_factory=Again)


def parts_of(graph: Any, store: Store, shapes: Mapping[str, Shape], opset: int) -> Parts:
    """Every node with weights as a record, in bodies too; nodes of the same weights and config are one record."""
    model = _Model(store, shapes, opset)
    found = _numbered(_parts(model, graph, "", {}, Folding(opset, where=str(store.path))))
    return replace(found, copies=model.again.copies)


def _parts(model: _Model, graph: Any, prefix: str, outer: Mapping[str, Const], folding: Folding) -> Parts:
    parts = Parts(model.records, consts=constants(graph, model.store, prefix, outer, folding))
    readers = readers_of(graph)
    written = {norm.span[0]: norm for norm in norms(graph.node, parts.consts, readers, model.shapes)}
    makers = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    rest = {i for norm in written.values() for i in norm.span[1:]}
    for i, node in enumerate(graph.node):
        if i in parts.fused or i in rest or (node.output and node.output[0] in parts.consts):
            continue
        for attribute in node.attribute:
            for body in bodies(attribute):
                inside = f"{prefix}{label(node, i)}/{attribute.name}/"
                found = _parts(model, body, inside, parts.consts, folding.inner())
                parts.inner.setdefault(i, []).append((body, found))
        reading = None
        if i in written:
            reading = written[i].reading
            nodes = [graph.node[at] for at in written[i].span]
            parts.owner[i] = name = _called(parts, model, nodes, i, reading, prefix)
            parts.spans.setdefault(name, []).append(written[i].span)
            continue
        both = standard(graph, node, parts.consts, readers, model.shapes)
        both = both or tokens(graph.node, node, parts.consts, makers, model.shapes)
        if both is not None:
            reading, passed = both
            parts.fused |= passed
        elif i not in parts.inner:
            reading = bare(node, parts.consts, model.shapes)
            reading = reading or read_node(node, parts.consts, model.opset, _rank(node, model.shapes))
        if reading is None:
            continue
        if reading.form:
            reading = thinned(graph.node, node, reading, makers, readers)
            reading, passed = with_bias(graph, node, reading, parts.consts, readers, model.shapes)
            parts.fused |= passed
        parts.owner[i] = _called(parts, model, [node], i, reading, prefix)
    _attended(graph, parts, readers, model.shapes)
    _others(graph, parts, prefix)
    return parts


def _called(parts: Parts, model: _Model, nodes: Sequence[Any], i: int, reading: Reading, prefix: str) -> str:
    """The record of a layer, which is an older one where the same weights are used again.

    Torch's new exporter keeps one of several equal tensors (the norms of an untrained model), and names the modules.
    """
    own = (t.name for t in reading.tensors.values())
    key = (reading.form, repr(sorted(reading.config.items())), told(nodes[0]) or "", *own)
    if key not in model.same and reading.form:
        model.same[key] = model.again.earlier(nodes[0], reading, model.store.tensors)
    if not model.same.get(key):
        model.same[key] = name = _add(parts, nodes, i, reading, prefix)
        model.again.add(name, nodes[0], reading)
    return model.same[key]


def _attended(graph: Any, parts: Parts, readers: Mapping[str, list[int]], shapes: Mapping[str, Shape]) -> None:
    """The products of an attention become one record, under the name of their scope, at the first one's place."""
    for found in attentions(graph.node, readers, parts.records, parts.owner, parts.fused, parts.consts, shapes):
        if set(found.parts) & parts.spans.keys():  # called once more
            parts.spans[found.parts[0]].append(found.span)
            continue
        left = {name: record for name, record in parts.records.items() if name not in found.parts}
        name = unique(found.record.name, left)
        order = [name if old == found.parts[0] else old for old in parts.records]
        held = {**left, name: replace(found.record, name=name)}
        parts.records.clear()
        parts.records.update({key: held[key] for key in order if key in held})
        for i, old in parts.owner.items():
            parts.owner[i] = name if old in found.parts else old
        parts.spans[name] = [found.span]


def _add(parts: Parts, nodes: Sequence[Any], i: int, reading: Reading, prefix: str) -> str:
    name = name_of(nodes, reading.tensors, i, parts.records, prefix)
    if reading.form in BARE:
        floats = [t for n in nodes[0].input if n in parts.consts for t in parts.consts[n].tensors]
        floats = [t for t in floats if t.dtype.kind not in "iub"] or list(reading.tensors.values())
        (stored,) = {tensor.name for tensor in floats}
        rows = reading.form == TOKENS and not MADE.match(stored)
        if rows or called_table(stored) or ("/" not in stored and called_scale(stored)):
            name = unique(stored, parts.records)  # torch's own name of the parameter
    class_name = reading.form.removeprefix("onnx.") or nodes[0].op_type
    config = dict(reading.config)
    parts.records[name] = LayerRecord(name, class_name, reading.form, config, reading.tensors, note=reading.note)
    return name


def _others(graph: Any, parts: Parts, prefix: str) -> None:
    """Notes on layers whose weights a node that is no layer reads too: new weights would change what that computes."""
    owners: dict[str, list[str]] = {}
    for name, record in parts.records.items():
        for tensor in record.tensors.values() if record.form else ():
            owners.setdefault(tensor.name, []).append(name)
    inside = {i for own in parts.spans.values() for span in own for i in span}
    for i, node in enumerate(graph.node):
        formed = i in parts.owner and parts.records[parts.owner[i]].form
        if formed or i in parts.fused or i in inside or (node.output and node.output[0] in parts.consts):
            continue
        for value in node.input:
            const = parts.consts.get(value)
            if const is None:
                continue
            stored = const.known.name if const.known is not None else prefix + value
            for name in owners.get(stored, ()):
                record = parts.records[name]
                said = f"{stored} {ALSO_READ} {node.op_type} {label(node, i)}"
                parts.records[name] = replace(record, note="; ".join(filter(None, [record.note, said])))


def _rank(node: Any, shapes: Mapping[str, Shape]) -> int | None:
    shape = shapes.get(node.input[0]) if node.input else None
    return None if shape is None else len(shape)


def readers_of(graph: Any) -> dict[str, list[int]]:
    """Value -> positions of the nodes that read it; -1 for the graph's outputs and for bodies."""
    found: dict[str, list[int]] = {}
    for i, node in enumerate(graph.node):
        for name in node.input:
            found.setdefault(name, []).append(i)
        for attribute in node.attribute:
            for body in bodies(attribute):
                for name in names_read(body):
                    found.setdefault(name, []).append(-1)
    for output in graph.output:
        found.setdefault(output.name, []).append(-1)
    return found


def _numbered(parts: Parts) -> Parts:
    """Recurrent nodes of one scope (`lstm`, `lstm_1`) that feed one another are the layers of one stacked module."""
    stacks: dict[str, list[str]] = {}
    for name, record in parts.records.items():
        stem = name.rpartition("_")[0] if name.rpartition("_")[2].isdigit() else name
        if record.class_name in RECURRENT and (name == stem or stem in stacks):
            stacks.setdefault(stem, []).append(name)
    new: dict[str, str] = {}
    for stem, names in stacks.items():
        kinds = {parts.records[name].form for name in names}
        if len(names) > 1 and len(kinds) == 1:
            new |= {name: f"{stem}/layer_{n}" for n, name in enumerate(names)}
    renamed = {
        new.get(name, name): replace(r, name=new[name], instance={"layer": int(new[name].rpartition("_")[2])})
        if name in new
        else r
        for name, r in parts.records.items()
    }
    parts.records.clear()
    parts.records.update(renamed)
    waiting = [parts]
    for one in waiting:
        one.owner = {i: new.get(name, name) for i, name in one.owner.items()}
        waiting += [inside for found in one.inner.values() for _, inside in found]
    return parts
