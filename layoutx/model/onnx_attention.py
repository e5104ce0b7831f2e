"""torch's MultiheadAttention in an ONNX graph: the products around one Softmax, all of one scope."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.model.axes import Shape
from layoutx.model.onnx_consts import Const
from layoutx.model.onnx_forms import attributes
from layoutx.model.onnx_heads import Branch, Graph, head, of_shapes, place
from layoutx.model.onnx_names import own_layer, scope
from layoutx.model.record import LayerRecord

FORM = "onnx.MultiheadAttention"
# what only moves numbers, or multiplies all of them by one
PASSES = frozenset(
    ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Slice", "Split", "Cast", "Identity", "Mul", "Div")
)
MASKS = frozenset(("Add", "Where", "Cast", "Identity", "Mul", "Div"))  # between the scores and the Softmax
ROLES = ("query", "key", "value")
TURN = [1, 0, 2]  # (batch, time, width) to (time, batch, width) and back
UNREAD = "looks like the attention of torch.nn.MultiheadAttention, whose parts could not be told"


@frozen
class Found:
    """One attention: its record, the records that it takes the place of, and all of its nodes in order."""

    record: LayerRecord
    parts: tuple[str, ...]
    span: tuple[int, ...]


def attentions(
    nodes: Sequence[Any], readers: Mapping[str, Sequence[int]], records: Mapping[str, LayerRecord],
    owner: Mapping[int, str], fused: Mapping[int, str], consts: Mapping[str, Const], shapes: Mapping[str, Shape],
) -> list[Found]:  # fmt: skip
    """Every attention whose projections and output lie in one scope, as torch's exporter writes its own module.

    A module of the user's own has a scope for each Linear; those stay layers of their own.
    """
    makers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    graph = Graph(nodes, makers, readers, records, owner, fused, consts, of_shapes(nodes, consts), shapes)
    return [found for i, node in enumerate(nodes) if node.op_type == "Softmax" and (found := _around(graph, i))]


def _around(graph: Graph, softmax: int) -> Found | None:
    """The attention around a Softmax; None where it is something else, or not torch's own module."""
    scores = _scores(graph, graph.nodes[softmax].input[0])
    mixed = _reader(graph, graph.nodes[softmax].output[0], "MatMul")
    if scores is None or mixed is None or len(graph.nodes[mixed].input) != 2:
        return None
    ends = (*graph.nodes[scores].input, graph.nodes[mixed].input[1])
    branches = [_back(graph, name) for name in ends]
    out = _onward(graph, graph.nodes[mixed].output[0])
    if out is None or any(b is None for b in branches):
        return None
    three = [b for b in branches if b is not None]
    products = [*dict.fromkeys(b.product for b in three), out]
    scopes = {scope(graph.nodes[i]) for i in products}
    if len(scopes) != 1 or "" in scopes or any(graph.owner[i] not in graph.records for i in products):
        return None
    (around,) = scopes
    if any(own_layer([t.name for t in graph.records[graph.owner[b.product]].tensors.values()], around) for b in three):
        return None  # a module of the user's own that calls its Linears' weights itself (Swin): they are layers
    return _found(graph, three, out, around)


def _scores(graph: Graph, value: str) -> int | None:
    """The product of queries and keys before a Softmax, through scales and masks."""
    waiting = [value]
    while waiting:
        at = graph.makers.get(waiting.pop(0), -1)
        node = graph.nodes[at] if at >= 0 else None
        if node is not None and node.op_type == "MatMul" and at not in graph.owner:
            return at
        if node is not None and node.op_type in MASKS | {"Reshape"} and at not in graph.fused:
            waiting += graph.data(node)
    return None


def _reader(graph: Graph, value: str, op: str) -> int | None:
    """The node of this operator that reads a value, through casts."""
    for i in graph.readers.get(value, ()):
        if i >= 0 and graph.nodes[i].op_type == op and graph.nodes[i].input[0] == value:
            return i
        if i >= 0 and graph.nodes[i].op_type in ("Cast", "Identity", "Dropout"):
            return _reader(graph, graph.nodes[i].output[0], op)
    return None


def _back(graph: Graph, value: str) -> Branch | None:
    """From a part of the heads to the product that it comes from."""
    path: list[tuple[int, str]] = []
    while (at := graph.makers.get(value, -1)) >= 0:
        if at in graph.owner:
            return Branch(at, tuple(path))
        node, given = graph.nodes[at], graph.data(graph.nodes[at])
        if (node.op_type not in PASSES and at not in graph.fused) or len(given) != 1:
            return None
        if at not in graph.fused:
            path.append((at, value))
        value = given[0]
    return None


def _onward(graph: Graph, value: str) -> int | None:
    """The product that the heads' results go into."""
    while len(at := graph.reads(value)) == 1 and at[0] >= 0:
        if at[0] in graph.owner:
            return at[0]
        if graph.nodes[at[0]].op_type not in PASSES:
            return None
        value = graph.nodes[at[0]].output[0]
    return None


def _found(graph: Graph, branches: Sequence[Branch], out: int, scope: str) -> Found:
    owners = tuple(graph.owner[b.product] for b in branches)
    last = graph.owner[out]
    parts = tuple(dict.fromkeys((*owners, last)))
    starts, end, turned = _ends(graph, branches, out)
    config, why = _config(graph, branches, owners, last)
    slots = {1: ["in_proj"] * 3, 2: ["q_proj", "kv_proj", "kv_proj"]}.get(
        len(set(owners)), ["q_proj", "k_proj", "v_proj"]
    )
    tensors: dict[str, Tensor] = {}
    for slot, name in (*dict(zip(slots, owners, strict=True)).items(), ("out_proj", last)):
        held = graph.records[name].tensors
        named = {"B": "B", "bias": "bias", "C": "bias"}
        tensors |= {f"{slot}.{named[key]}": tensor for key, tensor in held.items() if key in named}
    config["batch_first"] = turned
    notes = [graph.records[name].note for name in parts]
    if why:
        tensors = {tensor.name: tensor for tensor in tensors.values()}
        notes = [f"{UNREAD}: {why}"]
    note = "; ".join(filter(None, dict.fromkeys(notes)))
    record = LayerRecord(scope, "MultiheadAttention", "" if why else FORM, {} if why else config, tensors, note=note)
    return Found(record, parts, tuple(sorted(_span(graph, starts, end))))


def _ends(graph: Graph, branches: Sequence[Branch], out: int) -> tuple[set[str], str, bool]:
    """What goes in, what comes out, and whether the batch comes first, with the turns before and after it within."""
    starts = {name for b in branches for name in graph.data(graph.nodes[b.product])}
    end = graph.nodes[out].output[0]
    for op in ("Add", "Reshape"):
        at = graph.reads(end)
        fits = len(at) == 1 and at[0] >= 0 and graph.nodes[at[0]].op_type == op
        if fits and (op == "Reshape" or at[0] in graph.fused):
            end = graph.nodes[at[0]].output[0]
    at = graph.reads(end)
    if len(at) == 1 and at[0] >= 0 and _turns(graph.nodes[at[0]]):
        before = [graph.makers.get(name, -1) for name in starts]
        if all(i >= 0 and _turns(graph.nodes[i]) for i in before):
            return {graph.nodes[i].input[0] for i in before}, graph.nodes[at[0]].output[0], True
    return starts, end, False


def _turns(node: Any) -> bool:
    return node.op_type == "Transpose" and attributes(node).get("perm") == TURN


def _span(graph: Graph, starts: set[str], end: str) -> Iterator[int]:
    waiting, seen = [end], set(starts)
    while waiting:
        value = waiting.pop()
        at = graph.makers.get(value, -1)
        if value in seen or value in graph.consts or at < 0:
            continue
        seen.update(graph.nodes[at].output)
        waiting += graph.nodes[at].input
        yield at


def _config(graph: Graph, branches: Sequence[Branch], owners: tuple[str, ...], last: str) -> tuple[dict[str, Any], str]:
    """The options of the form, and why they cannot be told."""
    out = graph.records[last]
    for name in {*owners, last}:
        record = graph.records[name]
        if record.form not in ("onnx.MatMul", "onnx.Gemm"):
            return {}, f"{name} is no product with a stored weight"
        if any(record.config.get(key, 1.0) != 1.0 for key in ("alpha", "beta")):
            return {}, f"{name} is multiplied by a number"
    turned = {int(bool(graph.records[name].config.get("transB"))) for name in owners}
    if len(turned) > 1:
        return {}, "some of its projections are stored transposed, and some are not"
    (way,) = turned  # without constant folding the exporter keeps torch's own (out, in), and a Transpose
    kernel = out.tensors["B"].shape
    width = kernel[1] if out.config.get("transB") else kernel[0]
    many = {name: owners.count(name) for name in owners}
    if any(graph.records[name].tensors["B"].shape[1 - way] != n * width for name, n in many.items()):
        return {}, f"the heads' results are {width} wide, the projections are not"
    if many[owners[0]] == 2:
        return {}, "the queries share a weight with the keys or the values alone"
    for name, branch, role in zip(owners, branches, ROLES, strict=True):
        first = owners.index(name)
        if many[name] > 1 and place(graph, branch, width, many[name]) != ROLES.index(role) - first:
            return {}, f"its packed weight does not hold the {role} where torch has it"
    sizes = {head(graph, branch) for branch in branches}
    size = next(iter(sizes))
    if len(sizes) != 1 or not size or width % size:
        return {}, "the size of its heads"
    packed = {1: "qkv", 2: "kv"}.get(len(many), "none")
    transposed = int(bool(out.config.get("transB")))
    return {"num_heads": width // size, "packed": packed, "in_transB": way, "out_transB": transposed}, ""
