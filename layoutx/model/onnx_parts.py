"""The layers of an ONNX graph: each node with weights and the Add of its bias, tied and repeated ones told apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from layoutx.files.onnx_file import bodies, label
from layoutx.files.store import Store, Tensor
from layoutx.model.onnx_consts import Const, constants
from layoutx.model.onnx_names import name_of
from layoutx.model.onnx_nodes import RECURRENT, Reading, read_node
from layoutx.model.record import LayerRecord

Shape = tuple[int | None, ...] | None
ADDED = {"MatMul": "bias", "Gemm": "C"}


@dataclass(slots=True)
class Parts:
    """The records of a graph in node order, and where their nodes are.

    Attributes:
        records: name -> record, without refined axes.
        owner: position of a node -> the record that it belongs to.
        fused: position of a bias' Add -> the input that is data.
        consts: value name -> what it is made of.
    """

    records: dict[str, LayerRecord] = field(default_factory=dict)
    owner: dict[int, str] = field(default_factory=dict)
    fused: dict[int, str] = field(default_factory=dict)
    consts: dict[str, Const] = field(default_factory=dict)


def parts_of(graph: Any, store: Store, shapes: Mapping[str, Shape], opset: int) -> Parts:
    """Every node with weights as a record; nodes of the same weights and config are one record."""
    parts = Parts(consts=constants(graph, store))
    readers = _readers(graph)
    same: dict[tuple[object, ...], str] = {}
    for i, node in enumerate(graph.node):
        if i in parts.fused or (node.output and node.output[0] in parts.consts):
            continue
        reading = read_node(node, parts.consts, opset, _rank(node, shapes)) or _in_bodies(node, i, store, parts.consts)
        if reading is None:
            continue
        if reading.form:
            reading = _with_bias(graph, node, reading, parts, readers)
        key = (reading.form, repr(sorted(reading.config.items())), *(t.name for t in reading.tensors.values()))
        if key not in same:
            same[key] = _add(parts, node, i, reading)
        parts.owner[i] = same[key]
    return _numbered(parts)


def _add(parts: Parts, node: Any, i: int, reading: Reading) -> str:
    name = name_of(node, reading.tensors, i, parts.records)
    class_name = reading.form.removeprefix("onnx.") or node.op_type
    config = dict(reading.config)
    parts.records[name] = LayerRecord(name, class_name, reading.form, config, reading.tensors, note=reading.note)
    return name


def _rank(node: Any, shapes: Mapping[str, Shape]) -> int | None:
    shape = shapes.get(node.input[0]) if node.input else None
    return None if shape is None else len(shape)


def _readers(graph: Any) -> dict[str, list[int]]:
    """Value -> positions of the nodes that read it; -1 for the graph's outputs and for bodies."""
    found: dict[str, list[int]] = {}
    for i, node in enumerate(graph.node):
        for name in node.input:
            found.setdefault(name, []).append(i)
        for attribute in node.attribute:
            for body in bodies(attribute):
                for name in _names_read(body):
                    found.setdefault(name, []).append(-1)
    for output in graph.output:
        found.setdefault(output.name, []).append(-1)
    return found


def _names_read(graph: Any) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for body in bodies(attribute):
                yield from _names_read(body)
    yield from (output.name for output in graph.output)


def _with_bias(graph: Any, node: Any, reading: Reading, parts: Parts, readers: Mapping[str, list[int]]) -> Reading:
    """The layer with the Add that alone reads its product, where that adds one stored number an output."""
    slot = ADDED.get(reading.form.removeprefix("onnx."), "")
    at = readers.get(node.output[0], []) if slot and slot not in reading.tensors else []
    if len(at) != 1 or at[0] < 0 or graph.node[at[0]].op_type != "Add":
        return reading
    other = [name for name in graph.node[at[0]].input if name != node.output[0]]
    bias = parts.consts[other[0]].tensor if len(other) == 1 and other[0] in parts.consts else None
    kernel = reading.tensors["B"]
    turned = reading.config.get("transB", 0)
    if bias is None or bias.shape != (kernel.shape[0 if turned else 1],) or bias.dtype != kernel.dtype:
        return reading
    parts.fused[at[0]] = node.output[0]
    return replace(reading, tensors={**reading.tensors, slot: bias})


def _in_bodies(node: Any, i: int, store: Store, consts: Mapping[str, Const]) -> Reading | None:
    """Weights inside the bodies of an If, Loop or Scan, the outer graph's that they use too."""
    held: dict[str, Tensor] = {}
    for attribute in node.attribute:
        for body in bodies(attribute):
            prefix = f"{label(node, i)}/{attribute.name}/"
            own = constants(body, store, prefix, dict(consts))
            read = [own[name] for name in _names_read(body) if name in own]
            held |= {t.name: t for const in read if const.floats for t in const.tensors}
            held |= {n: t for n, t in store.tensors.items() if n.startswith(prefix) and Const((t,)).floats}
    if not held:
        return None
    return Reading("", {}, held, f"its weights are used in the body of {node.op_type}, which is not followed")


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
    parts.records = {
        new.get(name, name): replace(r, name=new[name], instance={"layer": int(new[name].rpartition("_")[2])})
        if name in new
        else r
        for name, r in parts.records.items()
    }
    parts.owner = {i: new.get(name, name) for i, name in parts.owner.items()}
    return parts
