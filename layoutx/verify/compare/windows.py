"""Borders that one model adds or cuts outside a layer, the other inside it: the same data on maps of other sizes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.verify.compare.apart import apart
from layoutx.verify.compare.pairs import Couple

MOST = 12  # a border wider than this is none
Border = tuple[tuple[int, int], ...]


def border(larger: Array, smaller: Array, bound: BoundForm) -> Border | None:
    """What lies around `smaller` in `larger`: elements before and after on each spatial axis; None: it does not fit.

    Args:
        larger, smaller: canonical maps (batch, ..., channel) that differ along spatial axes only.
        bound: the layer, whose padding says where to look first: causal pads before, "same" the half of it.
    """
    if larger.ndim != smaller.ndim or larger.ndim < 3 or larger.shape[0] != smaller.shape[0]:
        return None
    more = [a - b for a, b in zip(larger.shape[1:-1], smaller.shape[1:-1], strict=True)]
    if larger.shape[-1] != smaller.shape[-1] or not all(0 <= n <= MOST for n in more) or not any(more):
        return None
    causal = bound.settings.get("padding") == "causal"
    guess = tuple((n, 0) if causal else (n // 2, n - n // 2) for n in more)
    for found in (guess, *borders(more)):
        inner = cropped(larger, found)
        if apart(smaller, inner).largest <= 1e-6 * max(float(np.abs(smaller).max(initial=0.0)), 1e-26):
            return found
    return guess


def borders(more: list[int]) -> Iterator[Border]:
    """Every way to put so many elements before and after each axis."""
    yield from product(*([(i, n - i) for i in range(n + 1)] for n in more))


def _ends(more: list[int]) -> Iterator[Border]:
    """Ways to put many elements before and after each axis: all at one end, or half at each."""
    yield from product(*(dict.fromkeys([(0, n), (n, 0), (n // 2, n - n // 2)]) for n in more))


def cropped(array: Array, by: Border) -> Array:
    """A map without its border."""
    slices = [slice(a, size - b) for (a, b), size in zip(by, array.shape[1:-1], strict=True)]
    return array[(slice(None), *slices)]


def padded(array: Array, by: Border) -> Array:
    """A map with zeros around it."""
    return np.pad(array, ((0, 0), *by, (0, 0)))


def best_crop(expected: Array, found: Array) -> tuple[Array, Border | None]:
    """The part of a larger map that is nearest to the expected one: what is cut off after a convolution."""
    if expected.ndim != found.ndim or expected.shape[0] != found.shape[0] or expected.shape[-1] != found.shape[-1]:
        return found, None
    more = [b - a for a, b in zip(expected.shape[1:-1], found.shape[1:-1], strict=True)]
    if not more or not any(more) or min(more) < 0:
        return found, None
    ways = borders(more) if max(more) <= MOST else _ends(more)  # a causal one of a long reach loses its end
    best = min(ways, key=lambda by: apart(expected, cropped(found, by)).largest)
    return cropped(found, best), best


def border_words(by: Border) -> str:
    """`(0, 1) rows, (0, 1) columns`."""
    return ", ".join(f"({a}, {b})" for a, b in by)


def framed(couple: Couple, x: Array, own: Array, notes: list[str]) -> tuple[Array, Border | None]:
    """The source's map with the border that the target puts around it outside the layer, or without its own."""
    if x.shape == own.shape:
        return x, None
    by = border(own, x, couple.source.bound)
    if by is not None and not bare(own, by):  # a map that is larger for another reason has no border of zeros
        by = next((other for other in borders([a + b for a, b in by]) if bare(own, other)), None)
    if by is not None:
        notes.append(f"the target pads its input outside the layer: {border_words(by)}")
        return padded(x, by), by
    by = border(x, own, couple.target.bound)
    if by is not None and bare(x, by):
        notes.append(f"the source pads its input outside the layer: {border_words(by)}")
        return cropped(x, by), None
    return x, None


def bare(x: Array, by: tuple[tuple[int, int], ...]) -> bool:
    """Whether a map's border holds zeros only."""
    return bool(np.array_equal(padded(cropped(x, by), by), x))
