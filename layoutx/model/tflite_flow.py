"""Follows values through a TensorFlow Lite graph: which layer feeds which, and what their input axes are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from layoutx.files.tflite_ops import Operator
from layoutx.frozen import frozen
from layoutx.model.axes import Axis, Dim, size_of
from layoutx.model.onnx_axes import LETTERS, Flow, Value, finished
from layoutx.model.onnx_rules import rule_of
from layoutx.model.record import LayerRecord, Way
from layoutx.model.tflite_layers import MAIN, WIRING, Graph, called
from layoutx.model.ways import kind_of, passed

Dims = tuple[Dim, ...] | None
SMALL = 64  # a permutation, axes or a shape: more numbers are no such thing
FIRST = "its map is flattened channels first and stays so: a target that keeps channels last must transpose before it"


@frozen
class Walk:
    """A graph while it is walked: what is known of its values, and its records."""

    flow: Flow
    graph: Graph
    records: Mapping[str, LayerRecord]

    def value(self, name: str) -> Value:
        """A value; one that nothing made is an input."""
        if name not in self.flow.values:
            dims = None if name in self.graph.maker else self.flow.fresh(self.graph.shapes.get(name), name)
            made = () if name in self.graph.maker else (Way(""),)
            self.flow.values[name] = Value(dims, made, "" if dims is not None else "the graph")
            if dims is not None and len(dims) >= 4:
                self.flow.inputs |= {a.id for d in dims[1:] for a in d if isinstance(a, Axis)}
        return self.flow.values[name]

    def ints(self, name: str) -> list[int] | None:
        """The whole numbers of a small constant; None where the value is none."""
        tensor = self.graph.consts.get(name)
        if tensor is None or tensor.size > SMALL or tensor.dtype.kind not in "iu":
            return None
        return [int(n) for n in tensor.read().reshape(-1)]


def wired(
    graph: Graph, records: Mapping[str, LayerRecord], owner: Mapping[int, str], fused: Mapping[int, str]
) -> list[LayerRecord]:
    """The records with `inputs`, `refine` and notes of what could not be followed.

    Args:
        owner: position of an operator -> its record.
        fused: position of an ADD that is a layer's bias -> the value that it adds to.
    """
    flow = Flow(shapes=dict(graph.shapes))
    walk = Walk(flow, graph, records)
    for at, op in enumerate(graph.operators):
        if not op.outputs or op.outputs[0] in graph.consts:
            continue
        if at in fused:
            flow.values[op.outputs[0]] = walk.value(fused[at])
            continue
        _operator(walk, op, owner.get(at, ""))
    return [_settled(record) for record in finished(flow, records.values())]


def _settled(record: LayerRecord) -> LayerRecord:
    """An axis that the graph flattens channels first keeps that order everywhere: the framework's own is the other."""
    refine = {k: r if r.own == "last" else replace(r, last=r.first) for k, r in record.refine.items()}
    if all(r.own == "last" for r in record.refine.values()):
        return record
    return replace(record, refine=refine, note="; ".join(filter(None, [record.note, FIRST])))


def _operator(walk: Walk, op: Operator, owner: str) -> None:
    flow = walk.flow
    names = [name for name in op.inputs.values() if name not in walk.graph.consts]
    layer = walk.records.get(owner)
    known = layer is not None and bool(layer.form)
    data = [op.inputs["x"]] if known and "x" in op.inputs else names
    ins = [walk.value(name) for name in data]
    if layer is not None:
        flow.fed.setdefault(owner, []).extend(maker for value in ins for maker in value.makers)
    out = flow.shapes.get(op.outputs[0])
    if known and layer is not None:
        dims = _layer(walk, op, layer, ins[0] if ins else Value(), out)
    else:
        dims = _wiring(walk, op, ins, data, out)
    came = [() if name in walk.graph.consts else walk.value(name).makers for name in op.inputs.values()]
    makers = (Way(owner),) if layer is not None else passed(kind_of(called(op)), came)
    kind = layer.class_name if layer is not None else called(op)
    lost = next((v.lost for v in ins[:1] if v.dims is None and v.lost), "") or kind
    for k, name in enumerate(op.outputs):
        flow.values[name] = Value(dims if k == 0 else None, makers, "" if dims is not None and k == 0 else lost)


def _layer(walk: Walk, op: Operator, record: LayerRecord, value: Value, out: Any) -> Dims:
    """What a layer's weights meet, and the dims of its output."""
    flow = walk.flow
    if op.name == "FULLY_CONNECTED":
        return _dense(flow, record, value, out)
    if op.name.startswith("UNIDIRECTIONAL"):
        width = record.tensors[MAIN[op.name][0]].shape[-1]
        flow.use(record.name, "input", value, value.dims[-1:] if value.dims else (), width)
        made: Dim = (flow.axis("n", record.name, out[-1] if out else None),)
        return None if value.dims is None or len(value.dims) != 3 else (*value.dims[:2], made)
    if op.name in ("GATHER", "EMBEDDING_LOOKUP"):
        made = (flow.axis("n", record.name, out[-1] if out else None),)
        return None if value.dims is None else (*value.dims, made)
    if op.name == "PRELU":
        return value.dims
    _read_map(flow, value.dims)
    return place(flow, record.name, value.dims, out, None)


def _dense(flow: Flow, record: LayerRecord, value: Value, out: Any) -> Dims:
    """The product with the last axis; where that is shorter than the rows, all axes after the batch are joined."""
    width, rows = record.tensors["filter"].shape
    dims = value.dims
    if dims is not None and len(dims) > 2 and out is not None and len(out) == 2:
        joined: Dim = tuple(x for d in dims[1:] for x in d)
        dims = (dims[0], joined) if size_of(dims[-1]) != rows else dims
    flow.use(record.name, "input", replace(value, dims=dims), dims[-1:] if dims else (), rows)
    made: Dim = (flow.axis("n", record.name, width),)
    if dims is None:
        return flow.fresh(out, record.name) if out is not None and len(out) == 2 else None
    if out is not None and len(out) == 2 and len(dims) > 2:
        return ((flow.axis("b", record.name, out[0]),), made)
    return (*dims[:-1], made)


def _read_map(flow: Flow, dims: Dims) -> None:
    """A spatial operator says that the last axis of what it reads are the channels; of an input that is news."""
    if dims is None:
        return
    flow.inputs -= {a.id for d in dims[1:] for a in d if isinstance(a, Axis)}
    flow.note_map((dims[0], dims[-1], *dims[1:-1]))


def place(flow: Flow, origin: str, read: Dims, out: Any, channel: Dim | None) -> Dims:
    """The map that a spatial operator makes: the batch kept, new positions, the channels last."""
    if out is None or len(out) < 3:
        return None
    letters = LETTERS.get(len(out) - 2) or "".join(chr(97 + i) for i in range(len(out) - 2))
    batch: Dim = read[0] if read else (flow.axis("b", origin, out[0]),)
    made: list[Dim] = [(flow.axis(x, origin, n),) for x, n in zip(letters, out[1:-1], strict=False)]
    front: Dim = channel or (flow.axis("c", origin, out[-1]),)
    flow.note_map((batch, front, *made))
    return (batch, *made, front)


def _wiring(walk: Walk, op: Operator, ins: Sequence[Value], names: Sequence[str], out: Any) -> Dims:
    """The dims of the output of an operator without weights, by the rule of the ONNX operator that does the same."""
    flow, kind = walk.flow, WIRING.get(op.name, "")
    dims = ins[0].dims if ins else None
    if kind == "Pool":
        _read_map(flow, dims)
        return place(flow, "pool", dims, out, dims[-1] if dims else None)
    if kind == "Blocks":
        return _blocks(flow, dims, out)
    if kind == "StridedSlice":
        kept = dims is not None and out is not None and len(out) < len(dims)
        if kept and dims is not None and len(out) == 2 == len(dims) - 1:
            return (dims[0], dims[-1])  # one step of a sequence
        kind = "Slice"
    said: dict[str, Any] = {}
    if kind == "Transpose":
        said["perm"] = walk.ints(op.inputs.get("1", ""))
        if said["perm"] is None:
            return None
    if kind == "Reduce":
        axes = walk.ints(op.inputs.get("1", ""))
        said = {"axes": axes or [], "keepdims": int(out is not None and dims is not None and len(out) == len(dims))}
        kind = "ReduceMean" if axes is not None else ""
    if kind == "Concat":
        said["axis"] = _joined(walk, names, out)
    rule = rule_of(kind) if kind else None
    if rule is not None:
        node = SimpleNamespace(op_type=kind, name=kind.lower(), input=[*names])
        made = rule(flow, node, ins, out, said, walk.ints)
        if made is not None:
            return made
    plain = all(v.dims is not None and len(v.dims) <= 2 and all(len(d) == 1 for d in v.dims) for v in ins)
    return flow.fresh(out, kind.lower() or op.name) if out is not None and len(out) <= 2 and plain else None


def _blocks(flow: Flow, dims: Dims, out: Any) -> Dims:
    """Blocks moved between positions and the batch: the channels stay what they are."""
    if dims is None or out is None or len(out) != len(dims):
        return None
    made = place(flow, "blocks", None, out, dims[-1])
    return made if len(out) > 2 else None


def _joined(walk: Walk, names: Sequence[str], out: Any) -> int:
    """The axis along which a CONCATENATION joins: the one whose size is new."""
    first = walk.graph.shapes.get(names[0], ()) if names else ()
    changed = [i for i, (a, b) in enumerate(zip(first, out or (), strict=False)) if a != b]
    return changed[0] if changed else -1
