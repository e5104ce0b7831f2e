"""Norms of the user's own classes in a live Keras model, with a scale and a shift: which norm of Keras' they are.

Instance norms of CycleGANs, group norms and layer norms written before Keras had them. A copy of the sums is made in
NumPy: over the last axis, or over the positions of a sample and the channels of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

NEAR = 1e-4  # relative to the largest output
FAR = 100.0  # inputs beside which no eps counts
SMALL = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)  # and such as show it, from the largest on
SIDES = (5, 4, 3)  # of the maps that a norm is tried on
Array = np.ndarray[Any, Any]


def norm_of(layer: Any) -> tuple[str, Mapping[str, Any]] | None:
    """Class and config of Keras' norm that computes the same from the same weights; None where none does.

    Raises whatever the layer's own code does.
    """
    held, rank = list(layer.weights), _rank(layer)
    if len(held) != 2 or not 2 <= rank <= 5 or any(len(one.shape) != 1 for one in held):
        return None
    scale, shift = (np.asarray(one, "float64") for one in held)
    if len(scale) != len(shift) or len(scale) < 2 or not np.abs(scale).min():
        return None
    data = np.random.default_rng(20261122).normal(size=(2, *SIDES[: rank - 2], len(scale))).astype("float32")

    def call(x: Array) -> Array:
        from layoutx.model.keras_live import made_array

        return made_array(layer(x)).astype("float64")

    made = call(FAR * data)
    for name, config, around in _norms(rank, len(scale)):
        if close(made, around(FAR * data, 0.0) * scale + shift):
            eps = _eps(call, data, around, scale, shift)
            given = {"name": layer.name, "dtype": layer.dtype_policy.name, "center": True, "scale": True}
            return None if eps is None else (name, {**given, **config, "axis": -1, "epsilon": eps})
    return None


def _rank(layer: Any) -> int:
    """The number of axes that a built layer is called on; 0 where it does not say."""
    shape = (layer.get_build_config() or {}).get("input_shape")
    return (
        len(shape) if isinstance(shape, (list, tuple)) and all(isinstance(n, (int, type(None))) for n in shape) else 0
    )


def _norms(rank: int, channels: int) -> Iterator[tuple[str, dict[str, Any], Callable[[Array, float], Array]]]:
    """Class, config and formula of each norm that may be meant; a group norm needs positions."""

    def grouped(groups: int) -> Callable[[Array, float], Array]:
        def around(x: Array, eps: float) -> Array:
            parts = x.astype("float64").reshape(*x.shape[:-1], groups, -1)
            return _standard(parts, (*range(1, rank - 1), rank), eps).reshape(x.shape)

        return around

    yield "LayerNormalization", {}, lambda x, eps: _standard(x.astype("float64"), (-1,), eps)
    for groups in (n for n in range(channels, 0, -1) if channels % n == 0 and rank > 2):
        yield "GroupNormalization", {"groups": groups if groups < channels else -1}, grouped(groups)


def _standard(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    made: Array = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
    return made


def _eps(
    call: Callable[[Array], Array], data: Array, around: Callable[[Array, float], Array], scale: Array, shift: Array
) -> float | None:
    """What is added to the variance, to three digits: from the largest inputs beside which it counts.

    None where no such number explains both small and smaller inputs: it stands elsewhere in the formula.
    """
    found = 0.0
    for small in SMALL:
        x = small * data
        plain = around(x, 0.0)
        at = np.unravel_index(np.argmax(np.abs(plain * scale)), plain.shape)
        ratio = (plain * scale)[at] / ((call(x) - shift)[at] or np.inf)
        if ratio > 1.05:  # of roots: a tenth of the variance
            found = _solved(x, around, plain[at] / ratio, at)
            break
    alike = (close(call(s * data), around(s * data, found) * scale + shift) for s in SMALL)
    return found if all(alike) else None


def _solved(x: Array, around: Callable[[Array, float], Array], wanted: float, at: Any) -> float:
    """The eps with which one element comes out as wanted, by halving."""
    low, high = 0.0, 1.0
    for _ in range(80):
        half = (low + high) / 2
        low, high = (half, high) if abs(around(x, half)[at]) > abs(wanted) else (low, half)
    return float(f"{high:.3g}")


def close(here: Array, there: Array) -> bool:
    """Whether two outputs are of one shape and the same, up to NEAR."""
    return here.shape == there.shape and bool(np.abs(here - there).max() <= NEAR * np.abs(there).max())
