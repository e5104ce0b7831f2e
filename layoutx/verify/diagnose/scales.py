"""A preprocessing of the inputs: the scale and shift of every channel that make one array the other (F34)."""

from __future__ import annotations

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.diagnose.operation import Op
from layoutx.verify.diagnose.ways import CLOSE


def affine(given: Array, expected: Array) -> Op | None:
    """The scale and shift of every channel that make one the other: a preprocessing of the inputs (F34)."""
    channels = given.shape[-1] if given.ndim > 1 else 1
    x, y = given.reshape(-1, channels), expected.reshape(-1, channels)
    if x.shape[0] < 3 or not np.isfinite(x).all():
        return None
    middle = x - x.mean(0)
    power = (middle**2).sum(0)
    if not (power > 0).all():
        return None
    scale = (middle * (y - y.mean(0))).sum(0) / power
    shift = y.mean(0) - scale * x.mean(0)
    if np.abs(x * scale + shift - y).max() > CLOSE * max(float(np.abs(y).max()), 1e-26):
        return None
    if np.allclose(scale, scale[0], rtol=1e-6) and np.allclose(shift, shift[0], rtol=1e-6, atol=1e-6 * np.abs(y).max()):
        scale, shift = scale[:1], shift[:1]
    numbers = [", ".join(f"{v:.6g}" for v in values[:4]) for values in (scale, shift)]
    small = bool(np.all(np.abs(shift) <= CLOSE * np.abs(y).max()))
    words = f"a factor of {numbers[0]}" if small else f"a factor of {numbers[0]} and a shift of {numbers[1]}"
    whole = (scale, np.zeros(1)) if small else (scale, shift)
    code = f"x = x * {numbers[0]}" + ("" if small else f" + {numbers[1]}")
    return Op(words, "scale", lambda a: a * whole[0] + whole[1], "F34", code)
