"""A strided copy as matrices turned over: where one axis runs through the target's memory, another the source's.

Several axes may share a run: of a kernel (out, in, taps), a run of the target goes over input channels and taps. Then
the box waits in a scratch array on the side where they lie scattered, in rows that are copied as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import prod
from operator import mul
from typing import Any

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.blas import Transpose
from layoutx.plan.tiles import Axis, Scratch, Start, Way, at_best, inward, ordered, pitch_of

Array = np.ndarray[Any, Any]

WIDTH = 4  # bytes of an element: OpenBLAS is no faster than NumPy with 8
BOX = 1 << 19  # bytes of a box: it stays in the second-level cache, and a call costs little beside it
LONG = 1024  # elements of a run within a box, on the side where memory is gone through with steps
ENOUGH = 64  # elements of a run; shorter ones go on over the next axis
LEAST = 4  # elements of a run, below which there is no matrix to turn
CALL = 1 << 14  # elements of a box, below which what a call costs is no longer little
WIDE = 16  # elements of a source run, below which NumPy is as fast where it is at its best
FEW = 1 << 17  # elements of a matrix, below which it is so too: calling BLAS takes 10 µs


@frozen
class Turn:
    """How one view is copied to another in turned matrices.

    Attributes:
        plain: how both views are looked at.
        box: lengths of a box along these axes.
        rows: the axes that a run of the target goes over, outermost first; columns: those of a run of the source.
        before: where the rows wait if the source has them scattered or backwards, else None.
        behind: where the columns wait if the target has them scattered, else None.
    """

    plain: Way
    box: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    before: Scratch | None
    behind: Scratch | None

    @property
    def nbytes(self) -> int:
        """Of the scratch memory that it takes."""
        return sum(scratch.nbytes(self.box) for scratch in (self.before, self.behind) if scratch)


@lru_cache(maxsize=4096)
def turn(shape: tuple[int, ...], to: tuple[int, ...], of: tuple[int, ...], aligned: bool) -> Turn | None:
    """The turned matrices of a copy; None where there are none.

    Args:
        shape: of both views. to: strides of the target in bytes. of: strides of the source.
        aligned: whether the source's addresses suit its elements.
    """
    plain, axes = ordered(shape, to, of)
    groups = _groups(axes)
    if groups is None:
        return None
    rows, columns = groups
    box = _box(axes, rows, columns, BOX // WIDTH)
    lines, runs = prod(box[axis] for axis in rows), prod(box[axis] for axis in columns)
    row, column = axes[rows[-1]], axes[columns[-1]]
    forward = all(axes[axis].of > 0 for axis in columns)
    near = aligned and forward and len(rows) == 1 and _fits(row.of, runs)
    along = len(columns) == 1 and _fits(column.to, lines)
    before = None if near else _scratch(rows, columns, box)
    behind = None if along else _scratch(columns, rows, box)
    slow = behind is not None or runs < WIDE or (before is None and prod(shape) < FEW)
    if prod(box) < CALL or (slow and at_best(axes, WIDTH)):
        return None
    return Turn(plain, box, rows, columns, before, behind)


def move(found: Turn, call: Transpose, to: Array, of: Array, todo: Iterable[Start], buffer: Array) -> bool:
    """Copy boxes from one array to another, both as the plain way sees them; False where bits of one were lost.

    Args:
        todo: where the boxes begin.
        buffer: scratch memory of this thread alone, of `found.nbytes` or more.
    """
    if found.before is None and found.behind is None:
        return _straight(found, call, to, of, todo)
    split = found.before.nbytes(found.box) if found.before else 0
    before = found.before.view(buffer[:split], found.box, to.dtype) if found.before else None
    behind = found.behind.view(buffer[split:], found.box, to.dtype) if found.behind else None
    row, column = found.rows[-1], found.columns[-1]
    for start in todo:
        index = tuple(slice(at, at + n) for at, n in zip(start, found.box, strict=True))
        target, source = to[index], of[index]
        inside = tuple(slice(n) for n in target.shape)
        lines, runs = (prod(target.shape[axis] for axis in axes) for axes in (found.rows, found.columns))
        given, taken = source, target
        if before is not None:
            given = before[inside]
            np.copyto(given, source)
        if behind is not None:
            taken = behind[inside]
        if not call(lines, runs, _at(given), given.strides[row] // WIDTH, _at(taken), taken.strides[column] // WIDTH):
            return False
        if behind is not None:
            np.copyto(target, taken)
    return True


def _straight(found: Turn, call: Transpose, to: Array, of: Array, todo: Iterable[Start]) -> bool:
    """The same where no box waits: addresses alone, for a view of each box costs more than a small box takes."""
    (row,), (column,) = found.rows, found.columns
    target, source, sizes = _at(to), _at(of), (found.box[row], found.box[column])
    lines, runs = to.shape[row], to.shape[column]
    pitch, step = of.strides[row] // WIDTH, to.strides[column] // WIDTH
    for start in todo:
        height, width = min(sizes[0], lines - start[row]), min(sizes[1], runs - start[column])
        given = source + sum(map(mul, start, of.strides))
        if not call(height, width, given, pitch, target + sum(map(mul, start, to.strides)), step):
            return False
    return True


def _at(array: Array) -> int:
    return array.ctypes.data


def _groups(axes: Sequence[Axis]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The axes of the target's runs and those of the source's, outermost first in their memory."""
    if len(axes) < 2 or any(axis.to == 0 or axis.of == 0 for axis in axes):
        return None
    inner = inward(axes)
    rows, columns = [len(axes) - 1], [inner[0]]
    if rows == columns or axes[rows[0]].to != WIDTH or abs(axes[columns[0]].of) != WIDTH:
        return None
    for group, others, order, side in (
        (rows, columns, range(len(axes) - 2, -1, -1), "to"),
        (columns, rows, inner[1:], "of"),
    ):
        for axis in order:
            last = axes[group[-1]]
            run = abs(getattr(last, side)) * last.size
            if prod(axes[i].size for i in group) >= ENOUGH or axis in others or abs(getattr(axes[axis], side)) != run:
                break
            group.append(axis)
        if prod(axes[i].size for i in group) < LEAST:
            return None
    return tuple(reversed(rows)), tuple(reversed(columns))


def _box(axes: Sequence[Axis], rows: Sequence[int], columns: Sequence[int], size: int) -> tuple[int, ...]:
    """Lengths of a box: a part of the outermost axis of each run, all of the others, one of what no run goes over."""
    box = [1] * len(axes)
    stepped, other = (columns, rows) if len(columns) == 1 else (rows, columns)
    along, across = (prod(axes[axis].size for axis in group) for group in (stepped, other))
    along = min(along, max(LONG, size // across))
    for group, want in ((stepped, along), (other, size // along)):
        inner = 1
        for axis in group[1:]:
            box[axis] = axes[axis].size
            inner *= box[axis]
        box[group[0]] = min(axes[group[0]].size, max(1, want // inner))
    return tuple(box)


def _fits(step: int, run: int) -> bool:
    """Whether BLAS takes lines of a matrix that are so many bytes apart."""
    return step % WIDTH == 0 and step // WIDTH >= run


def _scratch(lines: tuple[int, ...], runs: tuple[int, ...], box: Sequence[int]) -> Scratch:
    """Where a box waits in these lines; an axis of no run has length one in it."""
    single = tuple(axis for axis in range(len(box)) if axis not in lines and axis not in runs)
    pitch = pitch_of(prod(box[axis] for axis in runs) * WIDTH)
    return Scratch((*single, *lines), runs, (False,) * len(box), pitch)
