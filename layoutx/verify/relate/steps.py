"""How far each step along an axis moves in memory, and the mixed-radix digits that say it in few numbers."""

from __future__ import annotations

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array

HOLE = np.iinfo(np.int64).min
MOST_DIGITS = 5


@frozen
class Run:
    """One digit of an axis: its length, and the step in elements (negative: stored back to front)."""

    size: int
    stride: int


def merged(lines: Array) -> Array:
    """Positions along one axis, from several lines through the array.

    Args:
        lines: (line, index) positions; HOLE where unknown.

    Returns:
        index -> position relative to that of index 0 (of the first known one, where 0 is a hole).
    """
    known = lines != HOLE
    reference = lines[int(known.sum(1).argmax())].copy()
    for line, here in sorted(zip(lines, known, strict=True), key=lambda pair: -int(pair[1].sum())):
        both = here & (reference != HOLE)
        if both.any():
            shift = most(reference[both] - line[both])
            new = here & (reference == HOLE)
            reference[new] = line[new] + shift
    here = reference != HOLE
    if here.any():
        first = reference[0] if here[0] else reference[here][0]
        reference[here] -= first
    return np.asarray(reference)


def most(values: Array) -> int:
    """The value that stands there most often."""
    found, counts = np.unique(values, return_counts=True)
    return int(found[int(counts.argmax())])


def digits(steps: Array) -> tuple[Run, ...] | None:
    """An axis as digits, slowest first; None where no few digits say where its indices go.

    One digit is an even step; `(h w c)` stored as `(c h w)` has two: c, and h w together.

    Args:
        steps: index -> relative position; HOLE where unknown.
    """
    n = len(steps)
    if n == 1:
        return ()
    for size in [d for d in range(n, 1, -1) if n % d == 0]:
        blocks = steps.reshape(n // size, size)
        stride = _stride(blocks)
        if not stride:
            continue
        level = np.where(blocks == HOLE, HOLE, blocks - stride * np.arange(size))
        top = level.max(1)
        if not ((level == HOLE) | (level == top[:, None])).all():
            continue
        slower = digits(top)
        if slower is not None and len(slower) < MOST_DIGITS:
            return (*slower, Run(size, stride))
    return None


def _stride(blocks: Array) -> int:
    """The step between two known neighbours in one block; 0 where there are none."""
    for block in blocks:
        known = np.nonzero(block != HOLE)[0]
        if len(known) > 1:
            apart, step = int(known[1] - known[0]), int(block[known[1]] - block[known[0]])
            return step // apart if step % apart == 0 else 0
    return 0


def spelled(runs: tuple[Run, ...]) -> Array:
    """Index -> position relative to that of index 0."""
    found = np.zeros(1, np.int64)
    for run in runs:
        found = (found[:, None] + run.stride * np.arange(run.size)).reshape(-1)
    return found
