"""Where given numbers stand in a large array: one pass over it, a bit table first, no sorting of the array."""

from __future__ import annotations

import numpy as np

from layoutx.plan.plan import Array

CHUNK = 1 << 20
_ODD = np.uint64(0x9E3779B97F4A7C15)


def keys_of(values: Array) -> Array:
    """The distinct absolute values, sorted, without zeros and NaN; float64."""
    found = np.unique(np.abs(values.astype(np.float64, copy=False)).reshape(-1))
    return np.asarray(found[np.isfinite(found) & (found > 0)])


def occurrences(keys: Array, flat: Array) -> tuple[Array, Array]:
    """Where the absolute values of an array are one of the keys.

    Args:
        keys: sorted, distinct, positive float64.
        flat: one-dimensional, any numeric dtype.

    Returns:
        which: index of the key, at: index in `flat`; in the order of `flat`.
    """
    width = np.uint64(64 - int(min(24, max(12, np.ceil(np.log2(16 * max(len(keys), 1)))))))
    table = np.zeros(1 << (64 - int(width)), bool)
    table[_hash(keys, width)] = True
    which, at = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    if len(keys):
        for start in range(0, flat.size, CHUNK):
            part = np.abs(flat[start : start + CHUNK].astype(np.float64))
            near = np.nonzero(table[_hash(part, width)])[0]
            place = np.minimum(np.searchsorted(keys, part[near]), len(keys) - 1)
            right = keys[place] == part[near]
            which.append(place[right].astype(np.int64))
            at.append(near[right].astype(np.int64) + start)
    return np.concatenate(which), np.concatenate(at)


def _hash(values: Array, width: np.uint64) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray((np.ascontiguousarray(values).view(np.uint64) * _ODD) >> width)
