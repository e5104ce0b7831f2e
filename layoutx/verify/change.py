"""How far one tensor moved: the amount, the share, and the rows and units that stayed as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from layoutx.frozen import frozen
from layoutx.verify.sides import Dimension

PRINTED_FROM, EDGE = 1000, 3  # numpy and torch print larger arrays by the first and last three of each axis


@frozen
class AxisChange:
    """One stored dimension: `still` are the indices at which nothing moved, ascending."""

    dimension: Dimension
    still: tuple[int, ...]

    @property
    def moved(self) -> int:
        """At how many indices something moved."""
        return self.dimension.size - len(self.still)


@frozen
class TensorChange:
    """One stored tensor of the first model against the same numbers of the second.

    Attributes:
        name: as the first model's form calls it; key: as its file does; there: the second model's tensors.
        roles: what it holds; state: moved by data, without a gradient (running statistics).
        size, changed: how many numbers it has, and how many differ at all.
        largest: the largest absolute change, `at` which index; relative: |after - before| / |before| by Euclidean
            norms, None where `before` is all zeros.
        norms: the norm before and after. broken: how many numbers are NaN or infinite, before and after.
        axes: one a stored dimension.
        printed: how many numbers printing it shows, where it shows corners only (else 0); printed_still: how many of
            these did not move.
        dtypes: before and after. absent: "zeros" or "ones" where the second model has none.
        summed: the tensor holds one part of a sum that the two models split differently; the sums are compared, with
            `terms`, the other tensors of the first model in them.
    """

    name: str
    key: str
    there: tuple[str, ...]
    shape: tuple[int, ...]
    changed: int
    largest: float
    relative: float | None
    norms: tuple[float, float]
    broken: tuple[int, int]
    axes: tuple[AxisChange, ...]
    dtypes: tuple[str, str]
    roles: tuple[str, ...] = ()
    state: bool = False
    at: tuple[int, ...] = ()
    printed: int = 0
    printed_still: int = 0
    absent: str = ""
    summed: bool = False
    terms: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def words(self) -> str:
        """ "717 of 784 rows", "all 32", "none"."""
        if not self.changed:
            return "none"
        for axis in self.axes:
            if axis.still and axis.dimension.size > 1 and len(self.shape) > 1:
                count = f"{axis.moved:,} of {axis.dimension.size:,}"
                return f"{count} {self.noun(axis)}" if len(self.shape) == 2 else f"{self.noun(axis)}: {count}"
        return f"all {self.size:,}" if self.changed == self.size else f"{self.changed:,} of {self.size:,}"

    def noun(self, axis: AxisChange) -> str:
        """What the slices of a dimension are called: rows and columns of a matrix, else by the axis."""
        if len(self.shape) == 2:
            return "rows" if axis is self.axes[0] else "columns"
        return axis.dimension.name

    def to_dict(self) -> dict[str, Any]:
        """For JSON; an axis lists the indices that did not move."""
        return {
            "tensor": self.name, "key": self.key, "there": list(self.there), "roles": list(self.roles),
            "shape": list(self.shape), "state": self.state, "size": self.size, "changed": self.changed,
            "largest": self.largest, "at": list(self.at), "relative": self.relative,
            "norm": {"before": self.norms[0], "after": self.norms[1]},
            "not_finite": {"before": self.broken[0], "after": self.broken[1]},
            "axes": [
                {"axis": a.dimension.name, "size": a.dimension.size, "side": a.dimension.side, "moved": a.moved,
                 "still": list(a.still)}
                for a in self.axes
            ],
            "printed": self.printed, "printed_still": self.printed_still, "dtype": list(self.dtypes),
            "absent_after": self.absent, "summed": self.summed, "terms": list(self.terms),
        }  # fmt: skip


def corners(shape: Sequence[int]) -> list[list[int]]:
    """For each axis the indices that printing an array shows; [] where it shows all of them."""
    if int(np.prod(shape, dtype=np.int64)) <= PRINTED_FROM:
        return []
    return [[*range(EDGE), *range(n - EDGE, n)] if n > 2 * EDGE else list(range(n)) for n in shape]
