"""What each torch operation without weights does to the dimensions of a value, by the rules of the ONNX operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from layoutx.frozen import frozen
from layoutx.model.axes import Axis, Dim, Shape, size_of
from layoutx.model.onnx_axes import Flow, Value
from layoutx.model.onnx_blocks import unfolded
from layoutx.model.onnx_rules import carried, moved_axis, rule_of, spatial
from layoutx.model.onnx_sizes import wanted_of
from layoutx.model.torch_picked import expanded, indexed, listed, repeated, select
from layoutx.model.torch_program import Op, Ref

Dims = tuple[Dim, ...] | None
Rule = Callable[[Flow, Op, Sequence[Value], Shape], Dims]

ALIKE = [
    "relu relu6 gelu silu sigmoid tanh elu selu celu leakyrelu rrelu softplus softsign hardtanh hardswish hardsigmoid",
    "mish prelu softmax logsoftmax tanhshrink softshrink hardshrink threshold dropout dropout1d dropout2d dropout3d",
    "featuredropout alphadropout nativedropout clone contiguous detach alias to tocopy typeas float double half clamp",
    "clip exp log sqrt rsqrt reciprocal abs neg square sign erf sin cos floor ceil round identity normalize",
    "logsigmoid liftfreshcopy",
    "batchnorm batchnorm1d batchnorm2d batchnorm3d syncbatchnorm cudnnbatchnorm nativebatchnormlegitnotraining",
    "nativebatchnorm layernorm nativelayernorm rmsnorm groupnorm nativegroupnorm instancenorm instancenorm1d",
    "instancenorm2d instancenorm3d localresponsenorm crossmaplrn2d",
]
SAME = frozenset(name for names in ALIKE for name in names.split())
SUMS = frozenset(
    [
        "add",
        "sub",
        "mul",
        "div",
        "truediv",
        "pow",
        "maximum",
        "minimum",
        "where",
        "iadd",
        "isub",
        "imul",
        "rsub",
        "maskedfill",
    ]
)
POOL = [f"{kind}pool{n}d{tail}" for kind in ("max", "avg", "lp") for n in (1, 2, 3) for tail in ("", "withindices")]
POOLS = frozenset(POOL)
ADAPTIVE = frozenset(f"adaptive{kind}pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)) | {"adaptiveavgpool"}
ENLARGED = [
    "interpolate",
    "upsamplenearest2d",
    "upsamplebilinear2d",
    "upsamplenearest1d",
    "upsamplenearest3d",
    "upsample",
]
LOCAL = frozenset(
    [
        *ENLARGED,
        *[
            "pad",
            "constantpadnd",
            "reflectionpad2d",
            "replicationpad2d",
            "zeropad2d",
            "slice",
            "narrow",
        ],
    ]
)
REDUCE = frozenset(["mean", "sum", "amax", "amin", "prod", "var", "std", "norm", "logsumexp"])
NORMED = frozenset([*(f"instancenorm{n}" for n in ("", "1d", "2d", "3d")), "groupnorm", "nativegroupnorm"])
MAPS = POOLS | ADAPTIVE | NORMED | frozenset(ENLARGED)  # what reads (batch, channel, positions...)
PARTS = frozenset(["chunk", "split", "splitwithsizes", "unbind", "tensorsplit"])


@frozen
class Node:
    """An operation as the rules of the ONNX operators read one."""

    op_type: str
    name: str
    input: tuple[str, ...]
    output: tuple[str, ...] = ()


def ruled(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    """The dims of an operation's output; None where they cannot be told."""
    if op.name in SAME:
        return ins[0].dims if ins else None
    if op.name in RULES:
        return RULES[op.name](flow, op, ins, out)
    if op.name in POOLS | ADAPTIVE:
        return _pooled(flow, op, ins, out)
    if op.name in SUMS:
        return _onnx("Add", flow, op, ins, out)
    if op.name in LOCAL:
        dims = ins[0].dims if ins else None
        known = out is None and dims is not None and len(dims) > 2 and (op.name in ENLARGED or "pad" in op.name)
        widened = (size_of(dims[0]), size_of(dims[1]), *(None for _ in dims[2:])) if known and dims else out
        return _onnx("Pad", flow, op, ins[:1], widened)
    if op.name in REDUCE:
        keep = bool(op.arg(2, "keepdim", default=False))
        axes = op.arg(1, "dim", default=[])
        axes = [axes] if isinstance(axes, int) else axes or []
        return _onnx("ReduceMean", flow, op, ins[:1], out, axes=axes, keepdims=int(keep))
    return None


def _onnx(kind: str, flow: Flow, op: Op, ins: Sequence[Value], out: Shape, **said: Any) -> Dims:
    rule = rule_of(kind)
    assert rule is not None
    node = Node(kind, op.outputs[0], tuple("x" * len(ins)))
    return rule(flow, node, ins, out, said, lambda name: None)


def _pooled(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    """A map of a pooling; one of positions of its own number where an adaptive pooling says it."""
    dims = ins[0].dims if ins else None
    goal = op.arg(1, "output_size") if op.name in ADAPTIVE else None
    if out is None and dims is not None:
        goals = goal if isinstance(goal, list) else [goal] * (len(dims) - 2)
        sizes = [n if isinstance(n, int) else None for n in goals]
        out = (size_of(dims[0]), size_of(dims[1]), *sizes) if len(sizes) == len(dims) - 2 > 0 else None
    return spatial(flow, op.outputs[0], dims, out, dims[1] if dims and len(dims) > 1 else None)


def _flatten(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    dims = ins[0].dims if ins else None
    first, last = op.arg(1, "start_dim", default=0), op.arg(2, "end_dim", default=-1)
    if dims is None or not isinstance(first, int) or not isinstance(last, int):
        return None
    first, last = first % len(dims), last % len(dims)
    return (*dims[:first], tuple(x for d in dims[first : last + 1] for x in d), *dims[last + 1 :])


def _view(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    return _shaped(flow, op, ins, out, listed(op, 1, "size", "shape"))


def _shaped(flow: Flow, op: Op, ins: Sequence[Value], out: Shape, wanted: Sequence[Any]) -> Dims:
    """A reshape; where all behind the first dimensions that stay becomes one, no size need be known."""
    dims = ins[0].dims if ins else None
    if dims is None:
        return None
    sizes = [
        flow.sizes[n.name][0] if isinstance(n, Ref) and len(flow.sizes.get(n.name, ())) == 1 else n for n in wanted
    ]
    ints = [n if n == -1 else k for n, k in zip(sizes, _wanted(sizes, dims), strict=True)]
    stay = len(ints) - 1
    if ints and ints[-1] in (-1, None) and stay < len(dims) and all(n == 0 for n in ints[:-1]):  # c * f is the rest
        return (*dims[:stay], tuple(x for d in dims[stay:] for x in d))
    if any(n is None for n in ints):
        return _onnx("Reshape", flow, op, ins[:1], out, shape=None)
    return _onnx("Reshape", flow, op, ins[:1], out, shape=ints)


def _wanted(sizes: Sequence[Any], dims: Sequence[Dim]) -> list[int | None]:
    """Each size as ONNX would store it: 0 for a dimension that stays at its place; None where it cannot."""
    found: list[int | None] = []
    for i, size in enumerate(sizes):
        one = wanted_of([*([1] * i), size], dims) if isinstance(size, (int, tuple)) else None
        found.append(one[-1] if one else None)
    return found


def _unflatten(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    dims, at = ins[0].dims if ins else None, op.arg(1, "dim")
    sizes = op.arg(2, "sizes", "unflattened_size")
    if dims is None or not isinstance(at, int) or not isinstance(sizes, (list, tuple)):
        return None
    at %= len(dims)
    wanted: list[Any] = [0] * at + list(sizes) + [size_of(d) for d in dims[at + 1 :]]
    return None if None in wanted else _onnx("Reshape", flow, op, ins[:1], out, shape=wanted)


def _permute(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    dims, perm = ins[0].dims if ins else None, listed(op, 1, "dims")
    if dims is None or not all(isinstance(i, int) for i in perm):
        return None
    return _onnx("Transpose", flow, op, ins[:1], out, perm=[i % len(dims) for i in perm])


def _transpose(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    dims = ins[0].dims if ins else None
    pair = [op.arg(1, "dim0", default=-2), op.arg(2, "dim1", default=-1)]
    if dims is None or len(dims) < 2 or not all(isinstance(i, int) for i in pair):
        return dims
    a, b = (i % len(dims) for i in pair)
    order = [b if i == a else a if i == b else i for i in range(len(dims))]
    return tuple(dims[i] for i in order)


def _movedim(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    dims = ins[0].dims if ins else None
    pair = [op.arg(1, "source"), op.arg(2, "destination")]
    if dims is None or not all(isinstance(i, int) for i in pair):
        return None
    there, here = (i % len(dims) for i in pair)
    rest = [*dims[:there], *dims[there + 1 :]]
    return (*rest[:here], dims[there], *rest[here:])


def _cat(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    return _onnx("Concat", flow, op, ins, out, axis=op.arg(1, "dim", "axis", default=0))


def _squeeze(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    axes = op.arg(1, "dim", default=[])
    return _onnx("Squeeze", flow, op, ins[:1], out, axes=[axes] if isinstance(axes, int) else axes)


def _unsqueeze(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    return _onnx("Unsqueeze", flow, op, ins[:1], out, axes=[op.arg(1, "dim", default=0)])


def _shifted(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    """What stands along some axes stands at other positions of them, or is added up (flip, roll, cumsum)."""
    dims = ins[0].dims if ins else None
    said = op.arg(2 if op.name == "roll" else 1, "dims", "dim", default=None)
    axes = [said] if isinstance(said, int) else said
    if dims is None or not isinstance(axes, (list, tuple)) or not axes or not all(isinstance(a, int) for a in axes):
        return None
    at = {a % len(dims) for a in axes}
    if any(len(dims[i]) > 1 or not isinstance(dims[i][0], Axis) for i in at):
        return None  # of a flattened map
    made = [moved_axis(flow, d, size_of(d)) if i in at else d for i, d in enumerate(dims)]
    carried(flow, dims, made)
    return tuple(made)


def _product(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    return _onnx("MatMul", flow, op, ins, out)


def _attention(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    return _onnx("Attention", flow, op, ins, out)


def _unfold(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    size = op.arg(1, "kernel_size")
    both = [size, size] if isinstance(size, int) else list(size) if isinstance(size, (list, tuple)) else []
    if len(op.args) == 4 or "dimension" in op.kwargs:  # a tensor's own method of that name is another operation
        return None
    known = bool(ins) and len(both) == 2 and all(isinstance(n, int) for n in both)
    return unfolded(flow, op.outputs[0], ins[0].dims, both) if known else None


def _shuffle(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    """A block's channels are the slowest (torch 2.13 nn.functional.pixel_shuffle)."""
    return _onnx("DepthToSpace", flow, op, ins[:1], out, blocksize=op.arg(1, "upscale_factor"), mode="CRD")


def _unshuffle(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    return _onnx("SpaceToDepth", flow, op, ins[:1], out, blocksize=op.arg(1, "downscale_factor"), mode="CRD")


def _piece(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    return _onnx("Split", flow, op, ins[:1], out)


RULES: dict[str, Rule] = {
    "flatten": _flatten,
    **dict.fromkeys(("view", "reshape", "unsafeview"), _view),
    "unflatten": _unflatten,
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims", "t"), _transpose),
    **dict.fromkeys(("movedim", "moveaxis"), _movedim),
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    **dict.fromkeys(("flip", "roll", "cumsum", "cumprod"), _shifted),
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "select": select,
    "getitem": indexed,
    **dict.fromkeys(("repeat", "tile"), repeated),
    **dict.fromkeys(("expand", "broadcastto"), expanded),
    **dict.fromkeys(("matmul", "bmm", "mm"), _product),
    "scaleddotproductattention": _attention,
    **dict.fromkeys(("unfold", "im2col"), _unfold),
    "pixelshuffle": _shuffle,
    "pixelunshuffle": _unshuffle,
    **dict.fromkeys(PARTS, _piece),
}
