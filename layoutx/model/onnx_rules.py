"""What each ONNX operator without weights does to the dimensions of a value: kept, moved, joined, taken apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from layoutx.model.axes import Axis, Cat, Dim, Shape, axes_in, heir_of, identifier, size_of
from layoutx.model.onnx_axes import LETTERS, Flow, Value
from layoutx.model.onnx_blocks import dealt, gathered
from layoutx.model.onnx_reshape import reshaped
from layoutx.model.onnx_sizes import Ints, wanted_of

Dims = tuple[Dim, ...] | None
Rule = Callable[[Flow, Any, Sequence[Value], Shape, Mapping[str, Any], Ints], Dims]

ALIKE = [
    ("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus", "Softsign"),
    ("ThresholdedRelu", "Gelu", "Mish", "Swish", "Softmax", "LogSoftmax", "Hardmax", "PRelu", "Clip", "Shrink"),
    ("Exp", "Log", "Sqrt", "Reciprocal", "Abs", "Neg", "Sign", "Floor", "Ceil", "Round", "Erf", "Sin", "Cos", "Not"),
    ("Cast", "CastLike", "Identity", "Dropout", "IsNaN", "CumSum", "LRN", "LpNormalization"),
    ("BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization"),
    ("MeanVarianceNormalization",),
]
SAME = frozenset(op for ops in ALIKE for op in ops)
SUMS = frozenset(["Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Where", "And", "Or", "Mod"])
POOLS = frozenset(["MaxPool", "AveragePool", "LpPool"])
LOCAL = POOLS | {"MaxUnpool", "Resize", "Upsample", "Pad", "Slice", "Split", "Expand", "Tile"}
GLOBAL = frozenset(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
# what reads (batch, channel, positions...), and so says where the channels are
MAPS = POOLS | GLOBAL | {"Conv", "ConvTranspose", "InstanceNormalization", "GroupNormalization", "LRN"}
REDUCE = frozenset(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"])


def rule_of(op: str) -> Rule | None:
    """The rule of an operator; None for one of which nothing is known."""
    if op in SAME:
        return _same
    if op in SUMS:
        return _sum
    if op in LOCAL:
        return _local
    if op in REDUCE:
        return _reduce
    return RULES.get(op)


def _same(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    return ins[0].dims if ins else None


def _sum(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    """The fullest of the inputs, where all others have its dimensions or spread over them."""
    if not ins or any(v.dims is None for v in ins):
        return None
    best = max((v.dims for v in ins if v.dims is not None), key=lambda dims: (len(dims), _many(dims)))
    for value in ins:
        dims = value.dims or ()
        for one, other in zip(reversed(dims), reversed(best), strict=False):
            alike = [a.size for a in axes_in(one) if a.size != 1] == [a.size for a in axes_in(other) if a.size != 1]
            if size_of(one) != 1 and not alike:
                return None
    if out is not None and len(out) != len(best):
        return None
    return best


def _many(dims: Sequence[Dim]) -> int:
    return sum(1 for d in dims for a in axes_in(d) if a.size != 1)


def spatial(flow: Flow, origin: str, read: Dims, out: Shape, channel: Dim | None) -> Dims:
    """The map that a convolution or pooling makes: the batch kept, the channels kept or new, new positions."""
    if out is None and read is None:
        return None
    rank = len(out if out is not None else read or ())
    sizes = list(out) if out is not None else [None] * rank
    letters = LETTERS.get(rank - 2) or "".join(chr(97 + i) for i in range(rank - 2))
    batch = read[0] if read else (flow.axis("b", origin, sizes[0]),)
    front: Dim = channel or (flow.axis("c", origin, sizes[1]),)
    kept = read[2:] if channel and read and len(read) == rank else ((),) * (rank - 2)
    positions: list[Dim] = [
        (heir_of(flow.axis(x, origin, n), old),) for x, n, old in zip(letters, sizes[2:], kept, strict=False)
    ]
    made = (batch, front, *positions)
    flow.note_map(made)
    return made


def _local(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    """A window, a cut or an enlargement: dimensions of another size are new, the others stay."""
    dims = ins[0].dims if ins else None
    if node.op_type in POOLS:
        return spatial(flow, node.name or node.op_type, dims, out, dims[1] if dims and len(dims) > 1 else None)
    if dims is None or out is None or len(out) != len(dims):
        return None
    made: list[Dim] = []
    for dim, size in zip(dims, out, strict=True):
        if size is not None and size == size_of(dim):
            made.append(dim)
        elif len(dim) == 1 and isinstance(dim[0], Axis):
            made.append(moved_axis(flow, dim, size))
        else:
            return None
    carried(flow, dims, made)
    return tuple(made)


def moved_axis(flow: Flow, dim: Dim, size: int | None) -> Dim:
    """The axis that takes the place of this one: with more, fewer or other positions."""
    (axis,) = axes_in(dim)
    return (heir_of(flow.axis(axis.letter, axis.origin, size), dim),)


def carried(flow: Flow, dims: Sequence[Dim], made: Sequence[Dim]) -> None:
    """What was a map is one still, after some of its axes changed their size."""
    axes = [d[0] for d in dims if len(d) == 1 and isinstance(d[0], Axis)]
    new = {a.id: d[0] for a, d in zip(axes, made, strict=False) if len(d) == 1 and isinstance(d[0], Axis)}
    for ids, found in list(flow.maps.items()):
        if len(axes) == len(dims) == len(made) and ids and ids <= set(new) and any(new[i].id != i for i in ids):
            order = tuple(new.get(a.id, a) for a in found)
            flow.maps[frozenset(a.id for a in order if a.size != 1)] = order
            flow.channels |= {order[0].id} if found[0].id in flow.channels else set()
    flow.inputs |= {new[i].id for i in flow.inputs & set(new)}
    flow.given |= {new[i].id: flow.given[i] for i in flow.given.keys() & set(new)}


def _reduce(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    dims = ins[0].dims if ins else None
    axes = axes_of(node, said, ints)
    if dims is None or axes is None:
        return flow.fresh(out, node.name) if out is not None and len(out) < 3 else None
    gone = {a % len(dims) for a in axes} or set(range(len(dims)))
    keep = bool(said.get("keepdims", 1))
    one = [(flow.axis("k", node.name, 1),) for _ in dims]
    return tuple(one[i] if i in gone else d for i, d in enumerate(dims) if keep or i not in gone)


def axes_of(node: Any, said: Mapping[str, Any], ints: Ints) -> list[int] | None:
    """The attribute `axes`, which is an input in later opsets; [] where it is left out."""
    if "axes" in said:
        return list(said["axes"])
    return ints(node.input[1]) if len(node.input) > 1 and node.input[1] else []


def _squeeze(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    dims, axes = ins[0].dims if ins else None, axes_of(node, said, ints)
    if dims is None or axes is None:
        return None
    gone = {a % len(dims) for a in axes} or {i for i, d in enumerate(dims) if size_of(d) == 1}
    return tuple(d for i, d in enumerate(dims) if i not in gone)


def _unsqueeze(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    dims, axes = ins[0].dims if ins else None, axes_of(node, said, ints)
    if dims is None or not axes:
        return None
    made, rank = list(dims), len(dims) + len(axes)
    for a in sorted(a % rank for a in axes):
        made.insert(a, (flow.axis("u", node.name, 1),))
    return tuple(made)


def _transpose(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    dims = ins[0].dims if ins else None
    if dims is None:
        return None
    perm = said.get("perm") or list(range(len(dims)))[::-1]
    return tuple(dims[i] for i in perm) if sorted(perm) == list(range(len(dims))) else None


def _flatten(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    dims, at = ins[0].dims if ins else None, said.get("axis", 1)
    if dims is None:
        return None
    at = at % len(dims) if at != len(dims) else at
    one: Dim = (flow.axis("u", node.name, 1),)
    parts = (tuple(x for d in half for x in d) for half in (dims[:at], dims[at:]))
    front, rest = parts
    return front or one, rest or one


def _reshape(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    dims = ins[0].dims if ins else None
    wanted = said.get("shape") or (ints(node.input[1]) if len(node.input) > 1 else None)
    if wanted is None and len(node.input) > 1:
        wanted = wanted_of(flow.sizes.get(node.input[1], ()), dims)
    return reshaped(flow, node.name or "reshape", dims, out, wanted, bool(said.get("allowzero")))


def _concat(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    every = [v.dims for v in ins]
    known = [dims for dims in every if dims is not None]
    if not known or len(known) < len(every) or len({len(d) for d in known}) > 1 or len(node.input) != len(ins):
        return None
    rank = len(known[0])
    at = int(said.get("axis", 1)) % rank
    pieces = [dims[at] for dims in known]
    sizes = [size_of(d) for d in pieces]
    merged: Dim
    if rank == 2 or any(_many([d]) > 1 for d in pieces):
        parts: list[tuple[str, Dim, Dim]] = []
        for value, dim in zip(ins, pieces, strict=True):
            inner = dim[0].parts if len(dim) == 1 and isinstance(dim[0], Cat) else ((_label(value, dim), dim, dim),)
            parts.extend(inner)
        merged = (Cat(flow.axis("c", node.name, None).id, tuple(parts)),)
    else:
        total = None if None in sizes else sum(s for s in sizes if s is not None)
        letter = next((a.letter for a in axes_in(pieces[0])), "n")
        merged = (heir_of(flow.axis(letter, node.name, total), pieces[0]),)
    made = [merged if i == at else d for i, d in enumerate(known[0])]
    carried(flow, known[0], made)
    return tuple(made)


def _label(value: Value, dim: Dim) -> str:
    maker = next((way.maker for way in value.makers if way.maker), "")
    return identifier(maker or next((a.origin for a in axes_in(dim)), "part") or "part")


def _global(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    dims = ins[0].dims if ins else None
    if dims is None:
        return spatial(flow, node.name, None, out, None)
    ones: list[Dim] = [(flow.axis("k", node.name, 1),) for _ in dims[2:]]
    return (*dims[:2], *ones)


def _product(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    """The product of two values: rows of the first, columns of the second."""
    if len(ins) < 2 or ins[0].dims is None or ins[1].dims is None or len(ins[1].dims) < 2:
        return None
    return (*ins[0].dims[:-1], ins[1].dims[-1])


def _gather(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    """One or several entries along an axis: with one stored index the axis goes, else it is new."""
    dims = ins[0].dims if ins else None
    if dims is None or out is None or len(ins) > 1:
        return None
    at = int(said.get("axis", 0)) % len(dims)
    if len(out) == len(dims) - 1:
        return tuple(d for i, d in enumerate(dims) if i != at)
    new: Dim = (flow.axis("g", node.name, out[at] if at < len(out) else None),)
    return tuple(new if i == at else d for i, d in enumerate(dims)) if len(out) == len(dims) else None


def _attention(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Ints) -> Dims:
    return (*ins[0].dims[:-1], *ins[2].dims[-1:]) if len(ins) > 2 and ins[0].dims and ins[2].dims else None


RULES: dict[str, Rule] = {
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "MatMul": _product,
    "Gather": _gather,
    "Attention": _attention,
    "DepthToSpace": dealt,
    "SpaceToDepth": gathered,
    **dict.fromkeys(GLOBAL, _global),
}
