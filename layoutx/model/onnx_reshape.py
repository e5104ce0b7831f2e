"""An ONNX Reshape: axes dealt out in order to new dimensions, joined where one holds several, taken apart where not."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from layoutx.model.axes import Axis, Dim, Item, Shape, size_of
from layoutx.model.onnx_axes import Flow, whole

Sizes = list[int | None]


def reshaped(
    flow: Flow, name: str, dims: tuple[Dim, ...] | None, out: Shape, wanted: Sequence[int] | None, zero: bool
) -> tuple[Dim, ...] | None:
    """The dims after a Reshape; None where they cannot be told.

    The first dimensions that stay are set aside, so that batch and time may be unknown; the rest is dealt out.

    Args:
        out: the inferred shape, None in it where a size is unknown.
        wanted: the stored target shape, 0 (the size that was there, without `zero`) and -1 (the rest) in it.
    """
    if dims is None or (out is None and wanted is None):
        return None
    target: Sizes = list(out) if out is not None else [None] * len(wanted or ())
    stays = [False] * len(target)
    if wanted is not None and len(wanted) == len(target):
        target = [n if n > 0 else target[i] for i, n in enumerate(wanted)]
        stays = [n == 0 and not zero for n in wanted]
    for count in range(min(len(dims), len(target)), -1, -1):
        if not all(stays[i] or target[i] == size_of(dims[i]) for i in range(count)):
            continue
        rest = _solved(dims[count:], target[count:], sure=wanted is not None and all(stays[:count]))
        made = None if rest is None else _dealt(flow, name, [x for d in dims[count:] for x in d], rest)
        if made is not None:
            return (*dims[:count], *made)
    return _tail(flow, name, dims, target)


def _solved(dims: Sequence[Dim], target: Sizes, sure: bool) -> list[int] | None:
    """The sizes of the rest, of which one may follow from the others; None where old and new elements differ."""
    old = [size_of(d) for d in dims]
    known = [n for n in old if n is not None]
    given = [n for n in target if n is not None]
    if len(known) < len(old) or len(given) < len(target) - (1 if sure else 0):
        return None
    total, part = prod(known), prod(given)
    if len(given) < len(target):
        return [n if n is not None else total // part for n in target] if part and total % part == 0 else None
    return given if total == part else None


def _dealt(flow: Flow, name: str, items: list[Item], target: Sequence[int]) -> tuple[Dim, ...] | None:
    """Items dealt to dimensions of these sizes in order; None where they cut across the old axes."""
    rest = [x for x in items if size_of((x,)) != 1]
    units = [x for x in items if size_of((x,)) == 1]
    out: list[Dim] = []
    while len(out) < len(target):
        size = target[len(out)]
        if size == 1:
            out.append((units.pop(0) if units else flow.axis("u", name, 1),))
            continue
        dim: list[Item] = []
        have = 1
        while rest and have < size and (dim or (size_of((rest[0],)) or 0) <= size):
            have *= size_of((rest[0],)) or 0
            dim.append(rest.pop(0))
        if have == size:
            out.append(whole(flow, tuple(dim)))
            continue
        parts = _split(flow, name, rest.pop(0), target[len(out) :]) if rest and not dim else None
        if parts is None:
            return None
        out.extend((p,) for p in parts)
    return tuple(out) if not rest else None


def _split(flow: Flow, name: str, item: Item, target: Sequence[int]) -> tuple[Axis, ...] | None:
    """One axis as the parts of the next dimensions that fill it; the same parts whenever it is cut the same way."""
    sizes: list[int] = []
    for n in target:
        if prod(sizes) == size_of((item,)):
            break
        sizes.append(n)
    if not isinstance(item, Axis) or prod(sizes) != item.size:
        return None
    old = flow.splits.get(item.id)
    if old is not None:
        return old if [p.size for p in old] == sizes else None
    letters = {3: "hwc", 2: "tc"}.get(len(sizes), "") or [f"d{i}" for i in range(len(sizes))]
    parts = tuple(flow.axis(letter, name, n) for letter, n in zip(letters, sizes, strict=True))
    flow.splits[item.id] = parts
    flow.cut |= dict.fromkeys((p.id for p in parts), item)
    return parts


def _tail(flow: Flow, name: str, dims: Sequence[Dim], target: Sizes) -> tuple[Dim, ...] | None:
    """Where only the first dimensions change (batch and time joined), the last ones are the old ones."""
    kept = 0
    while kept < min(len(dims), len(target)) - 1:
        size = target[-1 - kept]
        if size is None or size != size_of(dims[-1 - kept]):
            break
        kept += 1
    if not kept:
        return None
    front = tuple((flow.axis(f"d{i}", name, n),) for i, n in enumerate(target[: len(target) - kept]))
    return (*front, *dims[len(dims) - kept :])
