"""Layers of the user's own classes in a live Keras model that compute what Keras' own do, found by running them.

A subclass of MultiHeadAttention with a cache, a root mean square norm from before Keras had one: their names tell
nothing, and their layers and weights alone not what becomes of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from layoutx.model.keras_own_norms import close, norm_of

FAR, TINY = 100.0, 1e-6  # inputs of a norm beside which no eps counts, and beside which it is all that does


def computed(layer: Any) -> tuple[str, Mapping[str, Any]] | None:
    """Class and config of the layer that computes the same from the same weights; None where none is known to."""
    if not getattr(layer, "built", False):
        return None
    try:
        return _attention(layer) or _norm(layer) or _dense(layer) or norm_of(layer)
    except Exception:  # any code of the user's may run here
        return None


def _attention(layer: Any) -> tuple[str, Mapping[str, Any]] | None:
    """A subclass of Keras' own attention that makes the weights as that does."""
    homes = {kind.__module__.split(".")[0] for kind in type(layer).__mro__}
    base = sys.modules["tf_keras" if "tf_keras" in homes else "keras"].layers.MultiHeadAttention
    if not isinstance(layer, base) or type(layer) is base:
        return None
    config = base.get_config(layer)
    plain = base.from_config(config)
    query, key, value = (getattr(layer, f"_{part}_dense").kernel.shape[0] for part in ("query", "key", "value"))
    rng = np.random.default_rng(20261122)
    data = [rng.normal(size=(2, n, width)).astype("float32") for n, width in ((3, query), (5, value), (5, key))]
    plain(data[0], data[1], key=data[2])
    plain.set_weights(layer.get_weights())
    names = [weight.name for weight in plain.weights] == [weight.name for weight in layer.weights]
    here, there = (_made(one(data[0], data[1], key=data[2])) for one in (layer, plain))
    return ("MultiHeadAttention", config) if names and close(here, there) else None


def _norm(layer: Any) -> tuple[str, Mapping[str, Any]] | None:
    """One weight, and the root of the mean square: scaled by the weight, or by one plus the weight."""
    held = list(layer.weights)
    if len(held) != 1 or len(held[0].shape) != 1 or held[0].shape[0] < 2:
        return None
    scale = np.asarray(held[0], "float64")
    x = FAR * np.random.default_rng(20261122).normal(size=(2, 3, len(scale))).astype("float32")
    made = _made(layer(x))
    root = np.sqrt(np.mean(np.square(x, dtype="float64"), -1, keepdims=True))
    for name, factor in (("RMSNormalization", scale), ("ShiftedRMSNormalization", 1 + scale)):
        at = int(np.argmax(np.abs(factor)))
        if close(made, x / root * factor) and factor[at]:
            small = np.full((1, 1, len(scale)), TINY, "float32")
            ratio = TINY * factor[at] / float(_made(layer(small))[0, 0, at])
            eps = float(f"{max(ratio**2 - TINY**2, 0):.3g}")
            return name, {"name": layer.name, "epsilon": eps, "dtype": layer.dtype_policy.name}
    return None


def _made(outputs: Any) -> np.ndarray[Any, Any]:
    from layoutx.model.keras_live import made_array

    return made_array(outputs).astype("float64")


def _dense(layer: Any) -> tuple[str, Mapping[str, Any]] | None:
    """A matrix of the rows of x, and perhaps a bias after it: the layer that every course on Keras writes by hand."""
    held = [np.asarray(one, "float64") for one in layer.weights]
    if [one.ndim for one in held] not in ([2], [2, 1]) or held[0].shape[1:] != held[-1].shape[-1:]:
        return None
    if len(held[0]) < 2:  # a factor of (1, channels) gives the same, whatever comes in
        return None
    x = np.random.default_rng(20261122).normal(size=(3, len(held[0]))).astype("float32")
    made = x @ held[0] + (held[1] if len(held) > 1 else 0)
    if not made.any() or not close(_made(layer(x)), made):
        return None
    config = {"units": made.shape[1], "use_bias": len(held) > 1, "activation": "linear"}
    return "Dense", {"name": layer.name, "dtype": layer.dtype_policy.name, **config}
