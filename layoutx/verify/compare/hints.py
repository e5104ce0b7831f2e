"""What the numbers in a gap say by themselves: an activation that is missing, or the same numbers in another order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layoutx.plan.plan import Array

CLOSE = 1e-6  # of the largest value


def hint(expected: Array, given: Array, raw: Array | None, activation: str, before: str) -> str:
    """A sentence, "" where the numbers say nothing by themselves.

    Args:
        expected, given: what the layer after the gap is given in the source and in the target.
        raw: what the target's layer before it gave; activation: the function that the source's layer applies to that.
    """
    if raw is not None and activation and _same(np.sort(raw, axis=None), np.sort(given, axis=None)):
        return f"{before} ends with {activation} in the source; in the target nothing applies it"
    if expected.size != given.size or expected.dtype.kind not in "fiu":
        return ""
    if _same(np.sort(expected, axis=None), np.sort(given, axis=None)):
        flat = "flatten, " if expected.ndim == 2 else ""
        return f"they are the same numbers in another order: {flat}transpose or the order of what is joined"
    return _affine(expected, given)


def _affine(expected: Array, given: Array) -> str:
    """Whether one is a multiple of the other: another scale of the inputs."""
    if expected.shape != given.shape or not np.isfinite(expected).all() or not np.isfinite(given).all():
        return ""
    left, right = expected.astype(np.float64).ravel(), given.astype(np.float64).ravel()
    power = float(left @ left)
    factor = float(left @ right) / power if power > 0.0 else 0.0
    if abs(factor) > CLOSE and _same(left * factor, right):
        return f"the target's numbers are those of the source times {factor:.6g}"
    return ""


def _same(left: Array, right: Array) -> bool:
    if left.shape != right.shape or not left.size or not np.isfinite(right.astype(np.float64)).all():
        return False
    size = float(np.abs(left.astype(np.float64)).max())
    return bool(np.abs(left.astype(np.float64) - right.astype(np.float64)).max() <= CLOSE * max(size, 1e-26))


def single(arrays: Sequence[Array]) -> Array | None:
    """The only one of several, or None."""
    return arrays[0] if len(arrays) == 1 else None
