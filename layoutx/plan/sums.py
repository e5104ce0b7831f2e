"""Arrays added in float64 and rounded once, with what the rounding lost and what became infinite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Sum:
    """A sum of arrays.

    Attributes:
        values: in the wanted dtype; an element with one non-zero term is that term, bit for bit.
        error: the largest absolute rounding error; None where no element had two non-zero terms.
        overflowed: where finite terms have a sum that is not finite in the wanted dtype.
    """

    values: Array
    error: float | None
    overflowed: Array


def added(terms: Sequence[Array], dtype: np.dtype[Any]) -> Sum:
    """Add arrays of one shape and of the wanted dtype.

    float64 itself rounds too: Knuth's TwoSum gives what each addition loses, so that a float64 sum is
    not measured against itself.
    """
    wide = np.complex128 if dtype.kind == "c" else np.float64
    shape = terms[0].shape
    total, lost = np.zeros(shape, wide), np.zeros(shape, wide)
    nonzero = np.zeros(shape, np.int64)
    finite = np.ones(shape, bool)
    plain = np.zeros(shape, dtype)
    for at, term in enumerate(terms):
        filled = np.asarray(term != 0)
        np.copyto(plain, term, where=filled if at else True)
        nonzero += filled
        with np.errstate(invalid="ignore", over="ignore"):  # a signalling NaN; a sum beyond float64
            value = np.asarray(term.astype(wide))
            finite &= np.isfinite(value)
            before, total = total, total + value
            part = total - before
            lost = lost + (before - (total - part)) + (value - part)
    both = nonzero > 1
    with np.errstate(invalid="ignore", over="ignore"):
        summed = np.asarray(total.astype(dtype))
        stored = np.asarray(summed.astype(wide))
        far = np.abs((stored - total) - lost)
    values = np.where(both, summed, plain)  # one non-zero term is copied, not added
    usual = both & np.isfinite(stored)
    error = float(np.max(far[usual], initial=0.0)) if both.any() else None
    return Sum(values, error, both & finite & ~np.isfinite(stored))
