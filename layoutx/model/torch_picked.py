"""What indexing and repeating do to the dimensions of a torch value: some go, some are new, the others stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layoutx.model.axes import Axis, Dim, Shape, size_of
from layoutx.model.onnx_axes import Flow, Value
from layoutx.model.onnx_rules import carried, moved_axis
from layoutx.model.torch_program import Op

Dims = tuple[Dim, ...] | None


def listed(op: Op, at: int, *names: str) -> list[Any]:
    """Sizes or axes that stand in a list or one after the other."""
    found = op.arg(at, *names)
    if isinstance(found, (list, tuple)):
        return list(found)
    return list(op.args[at:]) if len(op.args) > at else [] if found is None else [found]


def select(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    """`x.select(dim, index)`."""
    dims, at = ins[0].dims if ins else None, op.arg(1, "dim")
    return (
        None if dims is None or not isinstance(at, int) else tuple(d for i, d in enumerate(dims) if i != at % len(dims))
    )


def indexed(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    """`x[...]`: a number takes its dimension away, a part of one makes a new one, None one of length one."""
    dims, index = ins[0].dims if ins else None, op.arg(1, "index")
    index = list(index) if isinstance(index, (list, tuple)) else [index]
    if dims is None or not all(isinstance(i, (int, slice, type(None), type(Ellipsis))) for i in index):
        return None
    left = len(dims) - sum(i is not None and i is not Ellipsis for i in index)
    at = next((k for k, i in enumerate(index) if i is Ellipsis), len(index))
    if left < 0 or index.count(Ellipsis) > 1:
        return None
    index[at : at + 1] = [slice(None)] * left
    made: list[Dim] = []
    rest = iter(dims)
    for one in index:
        if one is None:
            made.append((flow.axis("u", op.outputs[0], 1),))
            continue
        dim = next(rest)
        if one == slice(None):
            made.append(dim)
        elif isinstance(one, slice):
            made.append(_cut(flow, op, dim, one, out[len(made)] if out is not None and len(out) > len(made) else None))
    if len(made) == len(dims) and None not in index:
        carried(flow, dims, made)
    return tuple(made)


def _cut(flow: Flow, op: Op, dim: Dim, ends: slice, said: int | None) -> Dim:
    """A part of a dimension; of a single axis it is that axis with fewer positions."""
    whole = size_of(dim)
    plain = all(end is None or type(end) is int for end in (ends.start, ends.stop, ends.step)) and ends.step != 0
    size = said if said is not None or whole is None or not plain else len(range(whole)[ends])
    single = len(dim) == 1 and isinstance(dim[0], Axis)
    return moved_axis(flow, dim, size) if single else (flow.axis("g", op.outputs[0], size),)


def repeated(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    """`x.repeat(...)`, `x.tile(...)`: a dimension that is there once stays, the others are new."""
    dims, times = ins[0].dims if ins else None, listed(op, 1, "repeats", "dims")
    if dims is None or not times:
        return None
    if op.name == "tile":
        times = [1] * (len(dims) - len(times)) + times
    front = len(times) - len(dims)
    if front < 0:
        return None
    old: list[Dim | None] = [*[None] * front, *dims]
    return tuple(d if n == 1 and d is not None else _new(flow, op, d, n) for d, n in zip(old, times, strict=True))


def expanded(flow: Flow, op: Op, ins: Sequence[Value], out: Shape) -> Dims:
    """`x.expand(...)`: dimensions of length one may become longer, which makes them new; the others stay."""
    dims, sizes = ins[0].dims if ins else None, listed(op, 1, "size", "sizes")
    if dims is None or len(sizes) < len(dims):
        return None
    old: list[Dim | None] = [*[None] * (len(sizes) - len(dims)), *dims]
    return tuple(
        d if d is not None and (n == -1 or size_of(d) != 1) else _new(flow, op, None, n)
        for d, n in zip(old, sizes, strict=True)
    )


def _new(flow: Flow, op: Op, dim: Dim | None, times: Any) -> Dim:
    size = 1 if dim is None else size_of(dim)
    return (flow.axis("r", op.outputs[0], size * times if size and isinstance(times, int) and times > 0 else None),)
