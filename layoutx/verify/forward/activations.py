"""Activation functions by the spellings that the fact `activation` uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from types import MappingProxyType

import numpy as np

from layoutx.errors import UsageError
from layoutx.verify.forward.shapes import Array

Function = Callable[[Array], Array]

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def activation(name: str) -> Function:
    """The function of a fact's spelling; it keeps shape and dtype.

    Names ending in a number or a fraction (`leaky_relu_0.2`, `hard_sigmoid_1/6`) carry the slope.

    Raises:
        UsageError: the name is unknown; the known ones are listed.
    """
    if name in PLAIN:
        return PLAIN[name]
    stem, _, number = name.rpartition("_")
    try:
        return partial(SLOPED[stem], float(Fraction(number)))
    except (KeyError, ValueError, ZeroDivisionError):
        known = ", ".join([*PLAIN, *(f"{stem}_<slope>" for stem in SLOPED)])
        raise UsageError(
            f"no activation is called {name!r}", where=f"known: {known}", do="spell the fact as one of these"
        ) from None


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -x)))


def softmax(x: Array, axis: int = -1) -> Array:
    """exp(x) / sum(exp(x)) along an axis."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


def _erf(x: Array) -> Array:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x), x.dtype)


def _gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3))))


def _elu(alpha: float, x: Array) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def _leaky_relu(slope: float, x: Array) -> Array:
    return np.where(x > 0, x, slope * x)


def _hard_sigmoid(slope: float, x: Array) -> Array:
    return np.clip(slope * x + 0.5, 0.0, 1.0)


PLAIN: Mapping[str, Function] = MappingProxyType(
    {
        "linear": lambda x: x,
        "tanh": np.tanh,
        "sigmoid": sigmoid,
        "relu": lambda x: np.maximum(x, 0.0),
        "relu6": lambda x: np.clip(x, 0.0, 6.0),
        "elu": partial(_elu, 1.0),
        "selu": lambda x: np.asarray(SELU_SCALE * _elu(SELU_ALPHA, x)),
        "softplus": lambda x: np.asarray(np.logaddexp(0.0, x)),
        "softsign": lambda x: np.asarray(x / (1.0 + np.abs(x))),
        "gelu": lambda x: np.asarray(0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))),
        "gelu_tanh": _gelu_tanh,
        "silu": lambda x: np.asarray(x * sigmoid(x)),
        "mish": lambda x: np.asarray(x * np.tanh(np.logaddexp(0.0, x))),
        "exponential": np.exp,
        "log_sigmoid": lambda x: np.asarray(-np.logaddexp(0.0, -x)),
        "softmax": softmax,
    }
)

# "hard_sigmoid_0.2": Keras 1 and 2, tf_keras, ONNX; "hard_sigmoid_1/6": Keras 3, torch
SLOPED: Mapping[str, Callable[[float, Array], Array]] = MappingProxyType(
    {"hard_sigmoid": _hard_sigmoid, "leaky_relu": _leaky_relu, "elu": _elu}
)
