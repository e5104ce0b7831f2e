"""What one moment of a tensor comes to: norm, largest value, how far it moved since the last moment, what is broken."""

from __future__ import annotations

import numpy as np

from layoutx.plan.plan import Array

MEASURES = ("norm", "largest", "moved", "broken")
CHUNK = 1 << 18  # numbers that are widened at a time


def summary(now: Array, before: Array | None) -> list[float | None]:
    """[norm, largest absolute value, norm of the change or None, count of NaN and infinities], in float64.

    Args:
        now, before: of one shape; numbers that are not finite count as zeros.
    """
    flat, old = now.reshape(-1), None if before is None else before.reshape(-1)
    square = moved = largest = 0.0
    broken = 0
    for at in range(0, flat.size, CHUNK):
        part = flat[at : at + CHUNK].astype(np.float64)
        broken += _settle(part)
        square += float(np.vdot(part, part))
        largest = max(largest, float(part.max()), -float(part.min()))
        if old is not None:
            past = old[at : at + CHUNK].astype(np.float64)
            _settle(past)
            part -= past
            moved += float(np.vdot(part, part))
    return [float(np.sqrt(square)), largest, None if old is None else float(np.sqrt(moved)), broken]


def _settle(values: Array) -> int:
    """Put zeros where numbers are not finite, and say how many they were."""
    bad = ~np.isfinite(values)
    count = int(np.count_nonzero(bad))
    if count:
        values[bad] = 0.0
    return count


def unit_norms(values: Array, unit: int) -> Array:
    """The norm of each unit's numbers; `unit` is the dimension that counts units."""
    wide = values.astype(np.float64)
    rest = tuple(i for i in range(wide.ndim) if i != unit)
    return np.asarray(np.sqrt((wide * wide).sum(axis=rest)), np.float32)
