"""The way of a large strided copy: boxes that lie in long runs on both sides, turned over while they are in the cache.

A box is copied to a scratch array first, along the source's runs, and from there along the target's runs. The rows of
the scratch array are an odd number of cache lines apart: the rows of the source often are not, and then each element of
a column would push its neighbour out of the cache. Lengths and limits were measured (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np

from layoutx.frozen import frozen

Array = np.ndarray[Any, Any]
Start = tuple[int, ...]

LINE = 64  # bytes of a cache line
SETS, WAYS = 64, 12  # of a first-level cache
FIRST = 8192  # elements that are looked at to see how they fall into the cache
NEAR = 3 << 19  # bytes of a small tensor: all of it stays close to the processor
LINES = 256  # lines that a first-level cache holds with ease
# Boxes: elements of a target run and bytes of a source run within one; which is faster depends on the processor.
FLAT = 131, 2048  # 131 is no multiple of 8, by which NumPy's loop is unrolled
TALL = 512, 1024
FEW = 16  # runs of the source that can be read side by side where they lie
SHORT = 8  # elements of an innermost loop; below, starting the loop costs as much as the loop
UNITS: dict[int, np.dtype[Any]] = {2: np.dtype("u2"), 4: np.dtype("u4"), 8: np.dtype("u8"), 16: np.dtype("V16")}


class Axis(NamedTuple):
    """One axis of a copy: its length, and its steps on both sides in bytes."""

    size: int
    to: int
    of: int


@frozen
class Scratch:
    """Where a box waits between its two copies.

    Attributes:
        rows: the axes that only target runs go over, in the target's order.
        columns: the axes that source runs go over, in the source's order.
        turned: of each axis of the box, whether the source runs backwards over it within its runs.
        pitch: bytes from one row to the next.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    turned: tuple[bool, ...]
    pitch: int

    def view(self, buffer: Array, box: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """The bytes of a buffer with the axes of a box."""
        rows, columns = ([box[axis] for axis in axes] for axes in (self.rows, self.columns))
        lines = buffer[: prod(rows) * self.pitch].reshape(-1, self.pitch)
        block = lines[:, : prod(columns) * dtype.itemsize].view(dtype).reshape(*rows, *columns)
        places = (*self.rows, *self.columns)
        return _turn(block.transpose([places.index(axis) for axis in range(len(box))]), self.turned)

    def steps(self, box: Sequence[int], width: int) -> list[int]:
        """Bytes from one element to the next along each axis, but for the sign."""
        found = [0] * len(box)
        for axes, step in ((self.rows, self.pitch), (self.columns, width)):
            for axis in reversed(axes):
                found[axis] = step
                step *= box[axis]
        return found

    def nbytes(self, box: Sequence[int]) -> int:
        """The least size of a buffer."""
        return prod(box[axis] for axis in self.rows) * self.pitch


@frozen
class Way:
    """How one view is copied to another.

    Attributes:
        dropped: which axes of both views have length one.
        turned: of the axes that are left, which run backwards in the target: both views are turned around there.
        order: the axes that are left, outermost in the target first.
        merged: their lengths, after those that continue each other on both sides are merged.
        unit: bytes moved as one element, where that is more than one element; else 0.
        shape: lengths of the axes, counted in these units.
        box: lengths of a box; (): all at once.
        scratch: None if a box lies in so few runs that it is read as fast where it is.
        peeled: how many innermost axes are too short for NumPy's inner loop; they are looped over here.
    """

    dropped: tuple[bool, ...]
    turned: tuple[bool, ...]
    order: tuple[int, ...]
    merged: tuple[int, ...]
    shape: tuple[int, ...]
    unit: int = 0
    box: tuple[int, ...] = ()
    scratch: Scratch | None = None
    peeled: int = 0

    @property
    def name(self) -> str:
        """plain (np.copyto is at its best), direct (box by box) or scratch (box by box through a scratch array)."""
        return "plain" if not self.box else "direct" if self.scratch is None else "scratch"

    def seen(self, array: Array) -> Array:
        """An array of the copy with this way's axes: a view."""
        array = array[tuple(0 if gone else slice(None) for gone in self.dropped)]
        array = _turn(array, self.turned).transpose(self.order).reshape(self.merged)
        return array.view(UNITS[self.unit]).reshape(self.shape) if self.unit else array


@lru_cache(maxsize=4096)
def way(shape: tuple[int, ...], to: tuple[int, ...], of: tuple[int, ...], width: int, tall: bool = False) -> Way:
    """The way from strides `of` to `to`, both in bytes, for elements of `width` bytes; in flat or tall boxes."""
    found, axes = ordered(shape, to, of)
    if at_best(axes, width):
        return found
    axes, unit = _widened(axes, width)
    width = unit or width
    if len(axes) < 2:
        return found
    box, scratch = _box(axes, width, *(TALL if tall else FLAT))
    steps = scratch.steps(box, width) if scratch else [axis.of for axis in axes]
    peeled = _peeled([Axis(n, axis.to, step) for n, axis, step in zip(box, axes, steps, strict=True)])
    shape = tuple(axis.size for axis in axes)
    return replace(found, shape=shape, unit=unit, box=box, scratch=scratch, peeled=peeled)


def ordered(shape: Sequence[int], to: Sequence[int], of: Sequence[int]) -> tuple[Way, list[Axis]]:
    """The plain way of a copy, and its axes in the target's order, where those that continue each other are one."""
    kept = [(n, t, s) for n, t, s in zip(shape, to, of, strict=True) if n != 1]
    turned = tuple(t < 0 for _, t, _ in kept)
    axes = [Axis(n, abs(t), -s if t < 0 else s) for n, t, s in kept]
    order = tuple(sorted(range(len(axes)), key=lambda i: (-axes[i].to, -abs(axes[i].of))))
    axes = merged([axes[i] for i in order])
    lengths = tuple(axis.size for axis in axes)
    return Way(tuple(n == 1 for n in shape), turned, order, lengths, lengths), axes


def merged(axes: Iterable[Axis]) -> list[Axis]:
    """Axes, outermost first, with those that continue each other on both sides as one."""
    found: list[Axis] = []
    for axis in axes:
        if found and (found[-1].to, found[-1].of) == (axis.to * axis.size, axis.of * axis.size):
            axis = Axis(found.pop().size * axis.size, axis.to, axis.of)
        found.append(axis)
    return found


def starts(shape: Sequence[int], box: Sequence[int]) -> Iterable[Start]:
    """Where the boxes of an array begin, in the target's order."""
    return product(*(range(0, size, step) for size, step in zip(shape, box, strict=True)))


def move(found: Way, to: Array, of: Array, todo: Iterable[Start], buffer: Array) -> None:
    """Copy boxes from one array to another, both as the way sees them.

    Args:
        todo: where the boxes begin.
        buffer: bytes for the scratch array, of this thread alone.
    """
    room = found.scratch.view(buffer, found.box, to.dtype) if found.scratch else None
    for start in todo:
        index = tuple(slice(at, at + n) for at, n in zip(start, found.box, strict=True))
        target, source = to[index], of[index]
        if room is not None:
            piece = room[tuple(slice(n) for n in target.shape)]
            np.copyto(piece, source)
            source = piece
        if not found.peeled:
            np.copyto(target, source)
            continue
        for at in np.ndindex(target.shape[-found.peeled :]):
            np.copyto(target[(..., *at)], source[(..., *at)])


def _turn(array: Array, turned: Sequence[bool]) -> Array:
    return array[tuple(slice(None, None, -1 if back else None) for back in turned)] if any(turned) else array


def inward(axes: Sequence[Axis]) -> list[int]:
    """The axes in the order of the source's memory, innermost first."""
    return sorted(range(len(axes)), key=lambda i: abs(axes[i].of))


def at_best(axes: Sequence[Axis], width: int) -> bool:
    """Whether np.copyto has full speed: one loop, one number in many places, or each line of the source fetched once.

    np.copyto goes through the target in order. A line of the source is at hand until all of it is used, where the
    lines that are read meanwhile fit into the first-level cache; in a small tensor it is not far even if they do not.
    """
    if len(axes) < 2 or any(axis.to == 0 or axis.of == 0 for axis in axes):
        return True
    outer, run = len(axes), width
    for axis in inward(axes):
        outer, run = min(outer, axis), run * axes[axis].size
        if run >= LINE:
            break
    meanwhile = axes[outer + 1 :]
    small = prod(axis.size for axis in axes) * width < NEAR
    return (small or prod(axis.size for axis in meanwhile) <= FIRST) and _crowd(
        meanwhile, LINES if small else FIRST
    ) <= WAYS


def _crowd(axes: Sequence[Axis], first: int) -> int:
    """The most lines of the source that fall into one set of the cache, over the first elements in target order."""
    steps = np.zeros(1, np.int64)
    for axis in reversed(axes):
        if len(steps) < first:
            steps = (np.arange(axis.size)[:first, None] * axis.of + steps).ravel()[:first]
    lines = np.sort(steps // LINE)  # np.unique would import numpy.ma, a tenth of what a small conversion takes
    return int(np.bincount(lines[np.diff(lines, prepend=lines[0] - 1) > 0] % SETS).max())


def _widened(axes: list[Axis], width: int) -> tuple[list[Axis], int]:
    """The same copy in wider elements, and their width, where both sides share a run of elements; else 0."""
    size, *steps = axes[-1]
    unit = max((u for u in UNITS if u > width and size * width % u == 0), default=0)
    if not unit or steps != [width, width]:
        return axes, 0
    last = [Axis(size * width // unit, unit, unit)] if size * width > unit else []
    return [*axes[:-1], *last], unit


def _box(axes: Sequence[Axis], width: int, rows: int, run: int) -> tuple[tuple[int, ...], Scratch | None]:
    """Lengths of a box with long runs on both sides, and what it needs of a scratch array."""
    box, outward = [1] * len(axes), range(len(axes) - 1, -1, -1)
    size = rows * run  # bytes of a box: it stays in the second-level cache
    rows = axes[-1].size if rows < axes[-1].size <= 2 * rows else rows  # a whole axis: then runs lie side by side
    columns = _grow(box, axes, inward(axes), size // rows // width, run // width // 8)
    _grow(box, axes, outward, rows, rows // 2)
    for axis in outward:  # the rest of the cache: fewer boxes
        box[axis] = min(axes[axis].size, box[axis] * max(1, size // (prod(box) * width)))
    rest = tuple(axis for axis in range(len(axes)) if axis not in columns)
    if prod(box[axis] for axis in rest) <= FEW:
        return tuple(box), None
    pitch = pitch_of(prod(box[axis] for axis in columns) * width)
    turned = tuple(axis in columns and axes[axis].of < 0 for axis in range(len(axes)))
    return tuple(box), Scratch(rest, tuple(reversed(columns)), turned, pitch)


def pitch_of(run: int) -> int:
    """Bytes from one row of a scratch array to the next, for rows of `run` bytes: an odd number of cache lines."""
    return (-(-run // LINE) | 1) * LINE


def _grow(box: list[int], axes: Sequence[Axis], order: Iterable[int], want: int, enough: int) -> list[int]:
    """Lengthen a box along axes, innermost first, for runs of `want` elements, or `enough`; the axes they go over."""
    run, taken = 1, []
    for axis in order:
        box[axis] = max(box[axis], min(axes[axis].size, want // run))
        run *= box[axis]
        taken.append(axis)
        if run >= enough or box[axis] < axes[axis].size:
            break
    return taken


def _peeled(axes: Sequence[Axis]) -> int:
    """How many innermost axes to loop over, for the longest loop of NumPy: it takes the target's innermost one."""
    best, length = 0, 0
    for peeled in range(len(axes)):
        inner = merged(axis for axis in axes[: len(axes) - peeled] if axis.size != 1)
        calls = prod(axis.size for axis in axes[len(axes) - peeled :])
        if inner and calls <= SHORT and inner[-1].size > length:
            best, length = peeled, inner[-1].size
        if length >= SHORT:
            break
    return best
