"""A layer that one model calls on every position, the other on the one that it reads afterwards: CLIP's last norm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from layoutx.plan.plan import Array
from layoutx.verify.compare.apart import apart

ALIKE = 1e-3  # of the largest value: far above what rounding does, far below what another position holds


def in_both(left: Array, right: Array, here: Sequence[int], there: Sequence[int]) -> tuple[Array, Array]:
    """Two canonical arrays, the longer one at the position along one of its first axes that the other one holds.

    As they are where no position is the same.

    Args:
        here, there: the lengths of the axes before the layer's own, which are one in the arrays.
    """
    if left.shape[1:] != right.shape[1:] or len(left) == len(right):
        return left, right
    turned = len(left) < len(right)
    long, short, lead, other = (right, left, there, here) if turned else (left, right, here, there)
    same = next((one for one in _positions(long, lead, other) if apart(one, short).relative < ALIKE), long)
    return (short, same) if turned else (same, short)


def _positions(array: Array, lead: Sequence[int], other: Sequence[int]) -> Iterator[Array]:
    if prod(lead) != len(array):
        return
    split = array.reshape(*lead, *array.shape[1:])
    for axis, n in enumerate(lead):
        if tuple(other) in ((*lead[:axis], *lead[axis + 1 :]), (*lead[:axis], 1, *lead[axis + 1 :])):
            for at in range(n):
                yield split.take(at, axis).reshape(-1, *array.shape[1:])
