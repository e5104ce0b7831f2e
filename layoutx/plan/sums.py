"""Arrays added in float64 and rounded once, with what the rounding lost and what became infinite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.steps import Add
from layoutx.spec.values import ValueMap

Array = np.ndarray[Any, Any]


@frozen
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


def added(terms: Sequence[Array], dtype: np.dtype[Any], constant: float = 0.0) -> Sum:
    """Add arrays of one shape and of the wanted dtype, and a constant.

    One array and a constant whose sums lose nothing are not rounded: the constant can be taken off again.
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
    if constant:
        nonzero += 1
        before, total = total, total + constant
        part = total - before
        lost = lost + (before - (total - part)) + (constant - part)
        np.copyto(plain, np.asarray(constant, dtype), where=nonzero == 1)
    both = nonzero > 1
    with np.errstate(invalid="ignore", over="ignore"):
        summed = np.asarray(total.astype(dtype))
        stored = np.asarray(summed.astype(wide))
        far = np.abs((stored - total) - lost)
    values = np.where(both, summed, plain)  # one non-zero term is copied, not added
    usual = both & np.isfinite(stored)
    error = float(np.max(far[usual], initial=0.0)) if both.any() else None
    if constant and len(terms) == 1 and error == 0.0:
        error = None
    return Sum(values, error, both & finite & ~np.isfinite(stored))


def computed(terms: Sequence[Array], step: Add, dtype: np.dtype[Any]) -> Sum:
    """The general case: what is stored for the sum of meanings, in float64, rounded once to the wanted dtype."""
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        meanings = [_meant(values.astype(np.float64), t.value) for values, t in zip(terms, step.terms, strict=True)]
        exact = (np.sum(meanings, axis=0) - step.value.add) / step.value.times
        exact = np.asarray((exact if step.value.power == 1 else np.sqrt(exact)) - step.value.shift)
        exact = np.asarray(-exact if step.negate else exact)
        stored = np.asarray(exact.astype(dtype))
        far = np.abs(stored.astype(np.float64) - exact)
        far = np.maximum(far, np.spacing(np.abs(exact)))  # float64 itself rounds
    finite = np.isfinite(far)
    error = float(np.max(far[finite], initial=0.0))
    given = np.logical_and.reduce([np.isfinite(term) for term in terms])
    return Sum(stored, error, np.asarray(given & ~np.isfinite(stored)))


def _meant(stored: Array, value: ValueMap) -> Array:
    """What float64 numbers mean; NaN where a power would lose a sign, which no root brings back."""
    base = stored + value.shift
    if value.power != 1:
        base = np.where(base < 0, np.nan, base)
    return np.asarray(value.times * base**value.power + value.add)
