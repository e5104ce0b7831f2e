"""Numbers that are not the source's: nearly so, of one value only, or others altogether."""

from __future__ import annotations

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.relate.found import differing

SURE = 0.9
ROUNDING = 1e-5
LARGEST = 1 << 20


@frozen
class Near:
    """How two arrays of one size are alike.

    `word`: "close", "initial" or "other"; `apart`: how many numbers differ, -1 for most.
    """

    word: str
    words: tuple[str, ...]
    correlation: float
    residual: float
    apart: int = -1


def nearness(expected: Array, stored: Array) -> Near:
    """Compare numbers in the order that is read.

    Args:
        expected, stored: flat; a sample is taken of large ones.
    """
    if expected.size != stored.size:
        return Near("other", (f"{stored.size:,} numbers, where {expected.size:,} would be read",), 0.0, float("nan"))
    step = max(1, expected.size // LARGEST)
    a, b = expected[::step].astype(np.float64), stored[::step].astype(np.float64)
    alike = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(all="ignore"):  # NaN on one side only makes the difference NaN
        residual = float(np.abs(np.where(alike, 0.0, a - b)).max()) if a.size and not np.isnan(a).all() else np.nan
    like = _correlation(a, b)
    if b.size > 1 and (b == b[0]).all():
        value = f"{b[0]:.6g}"
        return Near("initial", (f"{value} everywhere: never written, or still at its initial value",), like, residual)
    scale = float(np.nanmax(np.abs(a))) if a.size and not np.isnan(a).all() else 0.0
    if residual <= ROUNDING * scale:
        return Near("close", (f"equal up to rounding ({residual:.2g}): computed, not copied",), like, residual)
    same = int(alike.sum())
    if 2 * same >= a.size and a.any():
        words = f"{differing(a.size - same, a.size, residual)}; the others are equal"
        return Near("close", (words,), like, residual, a.size - same)
    if like >= SURE:
        words = f"close, not equal (correlation {like:.5g}, apart by up to {residual:.3g}): trained further, or noise"
        return Near("close", (words,), like, residual)
    chance = max(0.2, 3 / np.sqrt(max(a.size, 1)))  # what unrelated numbers reach now and then
    about = "fresh initial values, or another training?" if abs(like) < chance else "related in part?"
    return Near("other", (f"not related: correlation {like:.2f}; {about}",), like, residual)


def _correlation(a: Array, b: Array) -> float:
    good = np.isfinite(a) & np.isfinite(b)
    a, b = a[good], b[good]
    if len(a) < 2:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else 0.0
