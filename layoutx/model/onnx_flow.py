"""Follows values through an ONNX graph: which record feeds which, and what the axes of their weights are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layoutx.frozen import frozen
from layoutx.model.axes import Dim, Shape, axes_in, size_of
from layoutx.model.onnx_axes import Flow, Value, finished
from layoutx.model.onnx_bodies import entered, left
from layoutx.model.onnx_forms import RECURRENT, attributes
from layoutx.model.onnx_parts import Parts
from layoutx.model.onnx_rules import MAPS, SAME, rule_of, spatial
from layoutx.model.onnx_sizes import sizes_of
from layoutx.model.readers import ELSE
from layoutx.model.record import LayerRecord, Way
from layoutx.model.ways import kind_of, passed

SMALL = 64  # a shape, axes or an index: more numbers are no such thing


@frozen
class Walk:
    """One graph with its parts, while it is walked."""

    flow: Flow
    parts: Parts

    def ints(self, name: str) -> list[int] | None:
        """The whole numbers of a small stored tensor; None where the value is none."""
        const = self.parts.consts.get(name)
        tensor = const.tensor if const is not None else None
        if tensor is None or tensor.size > SMALL or tensor.dtype.kind not in "iu":
            return None
        return [int(n) for n in tensor.read().reshape(-1)]


def wired(graph: Any, parts: Parts, shapes: Mapping[str, Shape]) -> tuple[list[LayerRecord], str]:
    """The records with `inputs`, `refine` and notes of what could not be followed.

    Returns:
        The records; whether the inputs' channels are "first" or "last", "" where no node says so or two disagree.
    """
    flow = Flow(shapes=shapes)
    _inputs(flow, graph)
    _walk(Walk(flow, parts), graph)
    _given(flow, graph)
    return finished(flow, parts.records.values()), next(iter(flow.habits)) if len(flow.habits) == 1 else ""


def _walk(walk: Walk, graph: Any) -> None:
    flow, parts = walk.flow, walk.parts
    spans = [(name, span) for name, own in parts.spans.items() for span in own]
    ends = {span[-1]: (name, span) for name, span in spans}
    begin = {span[0]: span for name, span in spans if parts.records[name].class_name in MAPS}
    for i, node in enumerate(graph.node):
        if node.output and node.output[0] in parts.consts:
            continue
        if i in parts.fused and node.op_type not in ("Reshape", "Squeeze"):
            flow.values[node.output[0]] = flow.values.get(parts.fused[i], Value())
            continue
        if i in begin:
            _spelled(walk, graph, begin[i])
        if i not in parts.inner:
            _node(walk, node, parts.owner.get(i, ""))
        if i in ends:
            flow.values[node.output[0]] = _through(walk, graph, *ends[i])
        for body, inside in parts.inner.get(i, ()):
            flow.values |= entered(flow, node, body, parts.consts)
            _walk(Walk(flow, inside), body)
            _given(flow, body)
            flow.values |= left(flow, node, body)


def _given(flow: Flow, graph: Any) -> None:
    """What a graph gives is read by whoever has run it."""
    flow.readers.note(ELSE, [flow.values.get(info.name, Value()).of for info in graph.output])


def _through(walk: Walk, graph: Any, record: str, span: Sequence[int]) -> Value:
    """What a layer of many nodes gives: the dimensions that it is given; an attention gives a new last one."""
    flow, first, last = walk.flow, graph.node[span[0]], graph.node[span[-1]]
    given = next((flow.values.get(n, Value()) for n in first.input if n and n not in walk.parts.consts), Value())
    if walk.parts.records[record].class_name != "MultiheadAttention":
        return Value(given.dims, (Way(record),), given.lost, record)
    width = (flow.shapes.get(last.output[0]) or (None,))[-1]
    dims = None if given.dims is None else (*given.dims[:-1], (flow.axis("n", record, width),))
    return Value(dims, (Way(record),), given.lost)


def _inputs(flow: Flow, graph: Any) -> None:
    own = {proto.name for proto in graph.initializer}
    for given in graph.input:
        if given.name in own:
            continue
        dims = flow.fresh(flow.shapes.get(given.name), given.name)
        lost = "" if dims is not None else "the model's input of unknown rank"
        flow.values[given.name] = Value(dims, (Way(""),), lost)
        if dims is not None and len(dims) >= 3:
            flow.given |= {a.id: at for at, d in enumerate(dims) if at for a in d}
        if dims is not None and len(dims) >= 4:
            flow.inputs |= {a.id for d in dims[1:] for a in d}


def _node(walk: Walk, node: Any, record: str) -> None:
    """What one node gives, the sizes that it computes, and what it tells of the record that it belongs to."""
    flow, found = walk.flow, walk.parts.records.get(record)
    every = [None if n in walk.parts.consts else flow.values.get(n, Value()) for n in node.input if n]
    ins = [value for value in every if value is not None]
    same = flow.readers.given(record, [value.of for value in ins], found is None and node.op_type == "Identity")
    if node.op_type in MAPS and record not in walk.parts.spans and ins and ins[0].dims is not None:
        read_map(flow, ins[0].dims)
    if found is not None:
        flow.fed.setdefault(record, []).extend(m for v in _data(node, found, ins) for m in v.makers)
    made = _made(walk, node, found, ins)
    if sizes := sizes_of(node, flow.sizes, ins[0].dims if ins else None, walk.ints):
        flow.sizes[node.output[0]] = sizes
    makers = (Way(record),) if found is not None else _ways(node, every)
    for k, name in enumerate(node.output):
        dims = made[k] if k < len(made) else None
        flow.values[name] = Value(dims, makers, "" if dims is not None else _end(node, ins), same)


def _data(node: Any, record: LayerRecord, ins: Sequence[Value]) -> Sequence[Value]:
    """Those of a layer's inputs that another layer may have made: the states are zeros of a shape that is asked for."""
    return ins[:1] if record.form and node.op_type in RECURRENT else ins


def _made(walk: Walk, node: Any, record: LayerRecord | None, ins: Sequence[Value]) -> Sequence[tuple[Dim, ...] | None]:
    """The dims of a node's outputs, in their order; the later ones may be left out."""
    if record is not None and record.form:
        return _layer(walk.flow, node, record, ins)
    return [_plain(walk, node, ins, name) for name in node.output]


def _ways(node: Any, every: Sequence[Value | None]) -> tuple[Way, ...]:
    """The records that a node without weights passes on, by each input (None: a stored one)."""
    asks = node.op_type in ("Shape", "Size")
    return passed(kind_of(node.op_type), [() if value is None or asks else value.makers for value in every])


def _end(node: Any, ins: Sequence[Value]) -> str:
    """Where dims that are lost behind a node ended: in it, if its first input still had them."""
    before = ins[0].lost if ins and ins[0].dims is None else ""
    return before or f"{node.op_type} {node.name}".strip()


def _spelled(walk: Walk, graph: Any, span: Sequence[int]) -> None:
    """A group norm of many nodes reads a map: torch's is made of an instance norm, TensorFlow's has channels last."""
    given = graph.node[span[0]].input
    dims = next((v.dims for n in given if (v := walk.flow.values.get(n)) is not None), None)
    if dims is not None:
        first = any(graph.node[i].op_type == "InstanceNormalization" for i in span)
        read_map(walk.flow, dims if first else (dims[0], dims[-1], *dims[1:-1]))


def read_map(flow: Flow, dims: Sequence[Dim]) -> None:
    """A spatial node says which axis of what it reads are the channels; for the model's input it is news."""
    axes = [a.id for d in dims[1:] for a in d]
    real = [a.id for a in axes_in(tuple(x for d in dims[1:] for x in d)) if a.size != 1 or a.id in flow.given]
    places = [flow.given[a] for a in real if a in flow.given]
    if len(places) == len(real) > 1:
        flow.habits.add("last" if places[0] == max(places) else "first")
    flow.inputs -= set(axes)
    flow.note_map(dims)


def _plain(walk: Walk, node: Any, ins: Sequence[Value], name: str) -> tuple[Dim, ...] | None:
    """The dims of one output of a node without a form; a vector from vectors without maps is a plain vector."""
    flow, out = walk.flow, walk.flow.shapes.get(name)
    rule = rule_of(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is not None:
        dims = rule(flow, node, ins, out, attributes(node), walk.ints)
        if dims is not None:
            return dims
    vectors = all(v.dims is not None and len(v.dims) <= 2 and all(len(d) == 1 for d in v.dims) for v in ins)
    if out is not None and len(out) <= 2 and vectors:
        return flow.fresh(out, node.name or node.op_type)
    return None


def _layer(flow: Flow, node: Any, record: LayerRecord, ins: Sequence[Value]) -> list[tuple[Dim, ...] | None]:
    """What a layer's weights meet, and the dims of its outputs."""
    op = record.class_name
    value = ins[0] if ins else Value()
    dims = value.dims
    out = flow.shapes.get(node.output[0])
    if op in ("Gemm", "MatMul"):
        return [_dense(flow, record, value)]
    if op in RECURRENT:
        return _recurrent(flow, node, record, value)
    if op in ("Conv", "ConvTranspose"):
        if dims is not None and len(dims) > 1 and len(dims[1]) > 1:  # a map's, and positions
            flow.use(record.name, "in", value, dims[1:2], size_of(dims[1]))
        return [spatial(flow, record.name, dims, out, None)]
    if op == "Gather":
        new: Dim = (flow.axis("n", record.name, next(iter(record.tensors.values())).shape[1]),)
        if not ins and out is not None:  # the same rows whatever the data: positions of a sequence of fixed length
            return [(*((flow.axis(f"d{i}", record.name, n),) for i, n in enumerate(out[:-1])), new)]
        return [None if dims is None else (*dims, new)]
    if op == "Concat":
        return [_longer(flow, record, ins)]
    if op in SAME or op in ("Normalization", "Add", "Mul"):
        _norm(flow, node, record, value)
        return [dims]
    return [None]


def _longer(flow: Flow, record: LayerRecord, ins: Sequence[Value]) -> tuple[Dim, ...] | None:
    """A sequence with stored rows before or behind it; what spreads these over the batch has no dims."""
    dims = next((value.dims for value in ins if value.dims is not None and len(value.dims) == 3), None)
    if dims is None:
        return None
    size, rows = size_of(dims[1]), next(iter(record.tensors.values())).shape[-2]
    return (dims[0], (flow.axis("t", record.name, None if size is None else size + rows),), dims[2])


def _dense(flow: Flow, record: LayerRecord, value: Value) -> tuple[Dim, ...] | None:
    kernel = record.tensors["B"].shape
    rows, columns = kernel[::-1] if record.config.get("transB") else kernel
    flow.use(record.name, "input", value, value.dims[-1:] if value.dims else (), rows)
    new: Dim = (flow.axis("n", record.name, columns),)
    flow.use(record.name, "output", Value((new,)), (new,), columns)
    return None if value.dims is None else (*value.dims[:-1], new)


def _recurrent(flow: Flow, node: Any, record: LayerRecord, value: Value) -> list[tuple[Dim, ...] | None]:
    """Y is (time, direction, batch, hidden), the final states (direction, batch, hidden); batch first with layout 1."""
    kernel = record.tensors["W"].shape
    flow.use(record.name, "input", value, value.dims[-1:] if value.dims else (), kernel[-1] if kernel else None)
    if value.dims is None or len(value.dims) != 3 or len(kernel) != 3:
        return [None]
    ways: Dim = (flow.axis("r", record.name, kernel[0]),)
    hidden: Dim = (flow.axis("n", record.name, record.tensors["R"].shape[-1] if "R" in record.tensors else None),)
    first, second = value.dims[:2]
    if record.config.get("layout"):
        return [(first, second, ways, hidden), (first, ways, hidden), (first, ways, hidden)]
    return [(first, ways, second, hidden), (ways, second, hidden), (ways, second, hidden)]


NORMED = {"BatchNormalization": "channel", "PRelu": "channel", "LayerNormalization": "features"}


def _norm(flow: Flow, node: Any, record: LayerRecord, value: Value) -> None:
    """Norms over a flattened map have their numbers in its order too."""
    axis = NORMED.get(record.class_name, "features" if record.class_name == "RMSNormalization" else "")
    dims = value.dims or ()
    if not axis or not record.tensors:
        return
    if axis == "features":
        at = int(record.config.get("axis", -1))
        used = dims[at:] if -len(dims) <= at < len(dims) else ()
    else:
        used = dims[1:2]
    size = next(iter(record.tensors.values())).size
    if axis == "channel" and value.dims is None and len(flow.shapes.get(node.input[0]) or ()) > 2:
        return  # the channels of a map, whatever came before
    flow.use(record.name, axis, value, used, size if len(used) == 1 else None)
