"""Normalisation by statistics that were counted before training."""

from __future__ import annotations

import numpy as np

from layoutx.verify.forward.shapes import Array, Arrays, Facts, need, sizes_of

SMALLEST = 1e-7  # keras.config.epsilon()


def normalization(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = (x - mean) / max(sqrt(variance), 1e-7); with the fact `invert`, y = x * max(sqrt(variance), 1e-7) + mean.

    mean, variance (channel), one of length one serves all; x (batch, ..., channel) -> y of the same shape.
    The settings `given_mean`, `given_variance` stand in for roles that are not stored.
    """
    kind = "normalization"
    (data,) = need(kind, x, "x")
    given = {name: settings.get(f"given_{name}") for name in ("mean", "variance")}
    plain = {name: np.asarray(value, np.float64).reshape(-1) for name, value in given.items() if value is not None}
    mean, variance = need(kind, {**plain, **roles}, "mean", "variance")
    sizes_of(kind, {"mean": (mean, "channel"), "variance": (variance, "channel")})
    if mean.size > 1:
        sizes_of(kind, {"mean": (mean, "channel"), "x": (data, "batch space... channel")})
    root = np.maximum(np.sqrt(variance), SMALLEST)
    return {"y": data * root + mean if facts.get("invert") else (data - mean) / root}
