"""What the numbers in a gap say by themselves: an activation that is missing, or the same numbers in another order."""

from __future__ import annotations

import numpy as np

from layoutx.plan.plan import Array

CLOSE = 1e-6  # of the largest value
CHANNELS = 4  # that may each be scaled in their own way


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
    return multiple(expected, given) or scaled(expected, given)


def scaled(expected: Array, given: Array) -> str:
    """Whether the source scales and shifts what the target takes as it is, each channel by numbers of its own.

    What both pad with zeros behind that does not count.
    """
    if expected.shape != given.shape or expected.ndim < 2 or not expected.size or expected.dtype.kind not in "fiu":
        return ""
    if not np.isfinite(expected).all() or not np.isfinite(given).all():
        return ""
    channels = expected.shape[-1] if expected.shape[-1] <= CHANNELS else 1
    left, right = (side.astype(np.float64).reshape(-1, channels) for side in (expected, given))
    found = [_line(*(side[:, at] for side in (right, left))) for at in range(channels)]
    fits = [one for one in found if one is not None]
    if len(fits) < len(found):
        return ""
    factors, terms = ([f"{one[at]:.5g}" for one in fits] for at in (0, 1))
    words = [text[0] if len(set(text)) == 1 else f"({', '.join(text)}) by channel" for text in (factors, terms)]
    return f"the source's numbers are the target's times {words[0]}, plus {words[1]}"


def _line(x: Array, y: Array) -> tuple[float, float] | None:
    """The factor and the term of y = factor * x + term; None where it is no such line."""
    inside = (x != 0.0) | (y != 0.0)
    x, y = x[inside], y[inside]
    if x.size < 3 or np.ptp(x) == 0.0 or np.ptp(y) == 0.0:
        return None
    middle = x - x.mean()
    factor = float(middle @ (y - y.mean())) / float(middle @ middle)
    term = float(y.mean() - factor * x.mean())
    return (factor, term) if np.abs(factor * x + term - y).max() <= CLOSE * np.abs(y).max() else None


def multiple(expected: Array, given: Array) -> str:
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
