"""The numbers of one stored tensor, slab by slab: how many are zero or not finite, mean, spread, ends and norm."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array

SLAB = 1 << 16  # numbers that are widened to float64 at a time


@frozen
class Numbers:
    """One tensor; mean, std, min, max and norm are of its finite numbers (nan where there are none).

    Attributes:
        size: how many numbers. nan, inf, zero: how many of them are.
        norm: the root of the sum of their squares (Frobenius).
    """

    size: int
    nan: int
    inf: int
    zero: int
    mean: float
    std: float
    min: float
    max: float
    norm: float

    @property
    def zeros(self) -> float:
        """The share of zeros."""
        return self.zero / self.size if self.size else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what is not a number is null."""
        found = {**asdict(self), "zeros": self.zeros}
        return {key: None if isinstance(x, float) and not np.isfinite(x) else x for key, x in found.items()}


def numbers(array: Array) -> Numbers:
    """The numbers of an array of any dtype."""
    flat = array.reshape(-1)
    nan = inf = zero = count = 0
    mean = square = total = 0.0
    low, high = np.inf, -np.inf
    for start in range(0, flat.size, SLAB):
        slab = flat[start : start + SLAB].astype(np.float64)
        finite = np.isfinite(slab)
        if not finite.all():
            nan += int(np.isnan(slab).sum())
            inf += int(np.isinf(slab).sum())
            slab = slab[finite]
        if not slab.size:
            continue
        zero += slab.size - int(np.count_nonzero(slab))
        own = float(slab.mean())
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
        total += float(np.square(slab).sum())  # no BLAS: its threads wait for each other on short vectors
        slab -= own
        both = count + slab.size  # two slabs' spreads joined (Chan, Golub and LeVeque 1979)
        square += float(np.square(slab).sum()) + (own - mean) ** 2 * count * slab.size / both
        mean += (own - mean) * slab.size / both
        count = both
    if not count:
        nothing = float("nan")
        return Numbers(flat.size, nan, inf, zero, nothing, nothing, nothing, nothing, nothing)
    return Numbers(flat.size, nan, inf, zero, mean, (square / count) ** 0.5, low, high, total**0.5)
