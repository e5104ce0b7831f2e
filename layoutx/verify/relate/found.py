"""One atom of the source found in a tensor of the other file: its place, its sign, and what was done to it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.plan.views import view
from layoutx.verify.relate.change import UNCHANGED, Change
from layoutx.verify.relate.numbers import Numbers
from layoutx.verify.relate.steps import Run


@frozen
class Found:
    """Where an atom lies in a tensor's flat memory.

    Attributes:
        offset: where its first number is (all indices 0).
        runs: axis -> its digits, slowest first; () for an axis of length one.
        orders: axis -> index -> relative position, for axes that digits do not say (shuffled units).
        negated: stored with the sign changed.
        change: what was done to the numbers.
        wrong: how many numbers are others after all; residual: the largest difference of those.
    """

    numbers: Numbers
    offset: int
    runs: Mapping[str, tuple[Run, ...]]
    orders: Mapping[str, tuple[int, ...]]
    negated: bool = False
    change: Change = UNCHANGED
    wrong: int = 0
    residual: float = 0.0

    def within(self, size: int) -> bool:
        """Whether all of it lies inside a memory of this size."""
        low = high = self.offset
        for runs in self.runs.values():
            for run in runs:
                reach = run.stride * (run.size - 1)
                low, high = low + min(0, reach), high + max(0, reach)
        for order in self.orders.values():
            low, high = low + min(order), high + max(order)
        return low >= 0 and high < size

    def expected(self, stored: Array) -> Array:
        """The atom's numbers as they would be stored in this array's dtype; one dimension an axis."""
        found = self.change(self.numbers.array, stored.dtype)
        return np.negative(found) if self.negated else found

    def read(self, flat: Array) -> Array:
        """What stands at the place: a view where digits say it, else a copy; one dimension an axis (or a digit)."""
        if not self.orders:
            return view(flat, self.offset, [(r.size, r.stride) for axis in self.numbers.axes for r in self.runs[axis]])
        return np.asarray(flat[self._indices()])

    def mark(self, mask: Array) -> bool:
        """Take the place in a mask of taken elements; False where some of it is taken already."""
        if not self.orders:
            here = self.read(mask)
            if here.any():
                return False
            here[...] = True
            return True
        at = self._indices()
        if mask[at].any():
            return False
        mask[at] = True
        return True

    def _indices(self) -> Array:
        from layoutx.verify.relate.steps import spelled

        found = np.asarray(np.int64(self.offset))
        for axis in self.numbers.axes:
            order = np.array(self.orders[axis]) if axis in self.orders else spelled(self.runs[axis])
            found = found[..., None] + order
        return found


def difference(found: Found, flat: Array) -> tuple[int, float]:
    """How many numbers at the place are not the expected ones, and the largest difference: NaN where one of two is."""
    there = found.read(flat)
    wanted = found.expected(flat).reshape(there.shape)
    apart = ~((there == wanted) | ((there != there) & (wanted != wanted)))
    count = int(apart.sum())
    if not count:
        return 0, 0.0
    with np.errstate(invalid="ignore"):
        return count, float(np.abs(there[apart].astype(np.float64) - wanted[apart].astype(np.float64)).max())


def differing(wrong: int, size: int, residual: float) -> str:
    """How many of how many numbers differ, and by how much."""
    much = f"by up to {residual:.3g}" if residual == residual else "with NaN on one side"
    return f"{wrong:,} of {size:,} numbers differ, {much}"
