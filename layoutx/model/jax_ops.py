"""What each operation of jax does to the dimensions of a value, by the rules of the ONNX operators where they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from layoutx.model.axes import Axis, Dim, Shape, axes_in, size_of
from layoutx.model.onnx_axes import Flow, Value
from layoutx.model.onnx_reshape import reshaped
from layoutx.model.onnx_rules import carried, rule_of, spatial

Dims = tuple[Dim, ...] | None

ELEMENTWISE = [
    "neg exp exp2 log log1p expm1 tanh logistic erf erfc erf_inv sqrt rsqrt cbrt square abs sign floor ceil round sin",
    "cos tan asin acos atan sinh cosh asinh acosh atanh is_finite not integer_pow convert_element_type copy copy_p",
    "stop_gradient reduce_precision optimization_barrier name sharding_constraint cumsum cumprod cummax cummin",
    "cumlogsumexp add sub mul div max min pow rem atan2 and or xor eq ne lt le gt ge select_n clamp nextafter add_any",
    "real imag lgamma digamma population_count mul_add",
]
SAME = frozenset(name for names in ELEMENTWISE for name in names.split())
REDUCE = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "argmax", "argmin")
LOCAL = frozenset(["pad", "slice", "dynamic_slice", "cumulative_pool"])  # and every reduce_window
IN_PLACE = ("dynamic_update_slice", "scatter", "scatter-add", "scatter_add", "scatter-update")


def ruled(flow: Flow, eqn: Any, name: str, ins: Sequence[Dims]) -> Sequence[Dims]:
    """The dims of each output; None where they cannot be told.

    Args:
        ins: dims of each operand; None for numbers, for weights, and for what was lost.
    """
    outs = [tuple(v.aval.shape) for v in eqn.outvars]
    first = next((dims for dims in ins if dims is not None), None)
    if first is None:
        return []
    if name in SAME:
        return [_together(flow, [d for d in ins if d is not None], out) for out in outs]
    if name in IN_PLACE:
        return [ins[0]]
    if name in REDUCE:
        gone = {int(a) for a in eqn.params["axes"]}
        return [tuple(d for i, d in enumerate(first) if i not in gone)]
    if name in LOCAL or name.startswith("reduce_window"):
        return [local(flow, first, outs[0])]
    if name == "split":
        return [_cut(flow, first, out, int(eqn.params["axis"])) for out in outs]
    if name == "reshape":
        return [reshaped(flow, "reshape", first, outs[0], outs[0], False)]
    if name == "transpose":
        return [tuple(first[i] for i in eqn.params["permutation"])]
    if name == "squeeze":
        gone = {int(a) % len(first) for a in eqn.params["dimensions"]}
        return [tuple(d for i, d in enumerate(first) if i not in gone)]
    if name == "broadcast_in_dim":
        return [_spread(flow, eqn, first, outs[0])]
    if name == "concatenate":
        return [_joined(flow, eqn, ins, outs[0])]
    if name == "rev":
        gone = {int(a) for a in eqn.params["dimensions"]}
        return [tuple((flow.axis("r", "rev", size_of(d)),) if i in gone else d for i, d in enumerate(first))]
    return []


def _together(flow: Flow, dims: Sequence[tuple[Dim, ...]], out: tuple[int, ...]) -> Dims:
    """Operands of one rank: of each dimension the axes of a map count before those of a vector that is spread."""
    if any(len(one) != len(out) for one in dims):
        return None
    mapped = set[int]().union(*flow.maps) if len(dims) > 1 else set[int]()
    made: list[Dim] = []
    for at, size in enumerate(out):
        full = [one[at] for one in dims if size_of(one[at]) == size] or [(flow.axis("n", "", size),)]
        best = max(full, key=lambda d: (any(a.id in mapped for a in axes_in(d)), _many(d)))
        own = [a.size for a in axes_in(best) if a.size != 1]
        if any([a.size for a in axes_in(d) if a.size != 1] not in (own, [size]) for d in full if size != 1):
            return None
        made.append(best)
    return tuple(made)


def _many(dim: Dim) -> int:
    return sum(1 for a in axes_in(dim) if a.size != 1)


def local(flow: Flow, dims: tuple[Dim, ...], out: Shape) -> Dims:
    """A window, a cut or a border: dimensions of another size are new, the others stay."""
    rule = rule_of("Pad")
    assert rule is not None
    return rule(flow, SimpleNamespace(op_type="Pad", name="pad"), [Value(dims)], out, {}, lambda name: None)


def _cut(flow: Flow, dims: tuple[Dim, ...], out: tuple[int, ...], at: int) -> Dims:
    """A piece along one axis, which may be all of it."""
    if size_of(dims[at]) == out[at]:
        return dims
    new: Dim = (flow.axis("s", "split", out[at]),)
    return local(flow, dims, out) or tuple(new if i == at else d for i, d in enumerate(dims))


def _spread(flow: Flow, eqn: Any, dims: tuple[Dim, ...], out: tuple[int, ...]) -> Dims:
    """Each dimension at its new place; where it was of length one and is longer, and where none goes, it is new."""
    made: list[Dim] = [(flow.axis("u", "", size),) for size in out]
    for dim, at in zip(dims, eqn.params["broadcast_dimensions"], strict=True):
        if size_of(dim) == out[int(at)]:
            made[int(at)] = dim
    return tuple(made)


def _joined(flow: Flow, eqn: Any, ins: Sequence[Dims], out: tuple[int, ...]) -> Dims:
    rule = rule_of("Concat")
    assert rule is not None
    at = int(eqn.params["dimension"])
    node = SimpleNamespace(op_type="Concat", name="concatenate", input=["x"] * len(ins))
    return rule(flow, node, [Value(d) for d in ins], out, {"axis": at}, lambda name: None)


def window(flow: Flow, eqn: Any, origin: str, read: Dims) -> Dims:
    """A convolution: its dimension numbers say which axis of what it reads and makes are the channels."""
    numbers = eqn.params["dimension_numbers"]
    out = tuple(eqn.outvars[0].aval.shape)
    before = None if read is None else tuple(read[i] for i in numbers.lhs_spec)
    if before is not None:
        flow.inputs -= {a.id for d in before[1:] for a in axes_in(d)}
        flow.note_map(before)
    made = spatial(flow, origin, before, tuple(out[i] for i in numbers.out_spec), None)
    if made is None:
        return None
    places = {int(at): dim for at, dim in zip(numbers.out_spec, made, strict=True)}
    return tuple(places[i] for i in range(len(out)))


def product(flow: Flow, eqn: Any, ins: Sequence[Dims], new: Mapping[int, Sequence[Dim]] | None = None) -> Dims:
    """A sum of products: shared axes, then those that only the first has, then those that only the second has.

    Args:
        ins: dims of both operands; None for a weight or for numbers, and for what was lost.
        new: operand -> its own axes that stay, where it is a weight.
    """
    (summed, batch) = eqn.params["dimension_numbers"]
    shapes = [tuple(v.aval.shape) for v in eqn.invars]
    own: list[list[Dim]] = []
    for at, dims in enumerate(ins):
        free = [i for i in range(len(shapes[at])) if i not in summed[at] and i not in batch[at]]
        if dims is not None:
            own.append([dims[i] for i in free])
        elif new is not None and at in new:
            own.append(list(new[at]))
        elif hasattr(eqn.invars[at], "val") or any(d is not None for d in ins):
            own.append(_resized(flow, ins[1 - at], summed[1 - at], [shapes[at][i] for i in free]))
    if len(own) < 2:
        return None
    shared = next((ins[at] for at in (0, 1) if ins[at] is not None), None) or ()
    side = next((at for at in (0, 1) if ins[at] is not None), 0)
    return (*(shared[i] for i in batch[side]), *own[0], *own[1])


def _resized(flow: Flow, dims: Dims, summed: Sequence[int], sizes: Sequence[int]) -> list[Dim]:
    """The axes of a table of numbers: with as many as it sums over it resizes a map, which is one still."""
    made: list[Dim] = [(flow.axis("n", "", size),) for size in sizes]
    if dims is None or len(sizes) != len(summed):
        return made
    after = list(dims)
    for k, at in enumerate(summed):
        old = dims[at]
        if len(old) == 1 and isinstance(old[0], Axis):
            made[k] = (flow.axis(old[0].letter, old[0].origin, sizes[k]),)
        after[at] = made[k]
    carried(flow, dims, after)
    return made


def picked(flow: Flow, eqn: Any, path: str | None, ins: Sequence[Dims]) -> Dims:
    """Entries of a table by their numbers, or some positions of a value: axes that are taken whole stay."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    table = tuple(eqn.invars[0].aval.shape)
    out = tuple(eqn.outvars[0].aval.shape)
    gone = {*numbers.collapsed_slice_dims, *getattr(numbers, "operand_batching_dims", ())}
    kept = [i for i in range(len(table)) if i not in gone]
    made: list[Dim | None] = [None] * len(out)
    for at, i in zip(numbers.offset_dims, kept, strict=True):
        whole = ins[0] is not None and sizes[i] == table[i]
        made[at] = ins[0][i] if whole and ins[0] is not None else (flow.axis("n", path or "gather", out[at]),)
    rest = list(ins[1][:-1]) if ins[1] is not None else []
    free = [at for at, dim in enumerate(made) if dim is None]
    for k, at in enumerate(free):
        made[at] = rest[k] if len(rest) == len(free) else (flow.axis("g", "gather", out[at]),)
    return tuple(dim for dim in made if dim is not None)


def alike(shape: tuple[int, ...], out: tuple[int, ...]) -> range | None:
    """The axes of an output that a weight of this shape is spread over; None where it is not."""
    first = len(out) - len(shape)
    if first < 0 or any(n not in (1, out[first + i]) for i, n in enumerate(shape)):
        return None
    while shape and shape[0] == 1:
        shape, first = shape[1:], first + 1
    last = len(shape)
    while last and shape[last - 1] == 1:
        last -= 1
    return range(first, first + last)
