"""How far two arrays of the same axes are apart: the largest difference, where it is, and what is not finite."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array


@frozen
class Apart:
    """Two arrays compared.

    Attributes:
        largest: largest absolute difference where both are finite; infinite where the shapes differ.
        scale: largest absolute value of the expected array.
        index: where the largest difference is, or the first value that is finite on one side only.
        unlike: how many values are NaN or infinite on one side and something else on the other.
        odd: the two shapes, where they differ.
        kept: of each axis of the expected array, whether the difference is at some of its places only.
    """

    largest: float
    scale: float
    index: tuple[int, ...] = ()
    unlike: int = 0
    odd: str = ""
    kept: tuple[bool, ...] = ()

    @property
    def relative(self) -> float:
        """The largest difference over the largest expected value."""
        if self.largest == 0.0:
            return 0.0
        return self.largest / self.scale if self.scale > 0.0 else float("inf")


def apart(expected: Array, found: Array) -> Apart:
    """Compare two arrays; NaN equals NaN, an infinity equals itself.

    Args:
        expected, found: arrays of the same axes, of any real dtype.
    """
    if expected.shape != found.shape:
        return Apart(float("inf"), 0.0, odd=f"shape {_shape(found)} instead of {_shape(expected)}")
    if not expected.size:
        return Apart(0.0, 0.0)
    left, right = expected.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):
        far = np.abs(left - right)
    unlike = None
    if not np.isfinite(far.max()):
        finite = np.isfinite(left) & np.isfinite(right)
        unlike = ~finite & ~((left == right) | (np.isnan(left) & np.isnan(right)))
        far = np.where(finite, far, 0.0)
        left = np.where(np.isfinite(left), left, 0.0)
    many = 0 if unlike is None else int(unlike.sum())
    at = int(np.argmax(unlike)) if unlike is not None and many else int(np.argmax(far))
    index = tuple(int(i) for i in np.unravel_index(at, left.shape))
    largest = float(far.flat[int(np.argmax(far))])
    scale = float(max(left.max(), -left.min()))
    differs = far > largest / 1e3 if unlike is None else unlike | (far > largest / 1e3)
    return Apart(largest, scale, index, many, "", _kept(differs))


def _shape(array: Array) -> str:
    return f"({', '.join(map(str, array.shape))})"


def _kept(differs: Array) -> tuple[bool, ...]:
    """For each axis, whether some of its places do not differ at all."""
    axes = range(differs.ndim)
    return tuple(bool(not differs.any(axis=tuple(a for a in axes if a != axis)).all()) for axis in axes)


def where(found: Apart, axes: Sequence[str]) -> str:
    """The place of the largest difference in words: `step 29, unit 4`; the sample only where others do not differ.

    axes: a word for each axis of the compared arrays.
    """
    if found.odd or not found.index or len(axes) != len(found.index):
        return found.odd
    named = []
    for axis, at, kept in zip(axes, found.index, found.kept or [True] * len(axes), strict=True):
        if axis != "sample" or kept:
            named.append(f"{axis} {at}")
    return ", ".join(named)


def worst(found: Sequence[Apart]) -> int:
    """Which of several comparisons is the worst: other shapes, then values that are not finite, then by size."""
    keys = [(bool(x.odd), x.unlike > 0, x.relative, x.largest) for x in found]
    return keys.index(max(keys))
