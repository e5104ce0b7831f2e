"""Layers that only Keras 1 had: Highway, MaxoutDense, SReLU and ParametricSoftplus."""

from __future__ import annotations

import numpy as np

from layoutx.errors import SizeError
from layoutx.verify.forward.activations import activation, sigmoid
from layoutx.verify.forward.shapes import Array, Arrays, Facts, biased, need, sizes_of


def highway(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = t act(x w + b) + (1 - t) x with t = sigmoid(x w_carry + b_carry).

    w, w_carry (input, output), b, b_carry (output) or absent; x (batch, input) -> y (batch, output), output = input.
    Fact `activation`. Source: keras 1.2.2, core.py, Highway.call.
    """
    (w, w_carry), (data,) = need("highway", roles, "w", "w_carry"), need("highway", x, "x")
    b, b_carry = roles.get("b"), roles.get("b_carry")
    sizes = sizes_of(
        "highway",
        {
            "w": (w, "input output"),
            "w_carry": (w_carry, "input output"),
            "b": (b, "output"),
            "b_carry": (b_carry, "output"),
            "x": (data, "batch... input"),
        },
    )
    if sizes["input"] != sizes["output"]:
        raise SizeError(f"highway: input is {sizes['input']} and output {sizes['output']}", why="x itself is added")
    gate = sigmoid(biased(data @ w_carry, b_carry))
    act = activation(str(facts.get("activation", "linear")))
    return {"y": gate * act(biased(data @ w, b)) + (1.0 - gate) * data}


def maxout_dense(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = the largest over `feature` of x kernel + bias.

    kernel (feature, input, output), bias (feature, output) or absent; x (batch, input) -> y (batch, output).
    Source: keras 1.2.2, core.py, MaxoutDense.call.
    """
    (kernel,), (data,) = need("maxout_dense", roles, "kernel"), need("maxout_dense", x, "x")
    bias = roles.get("bias")
    given = {
        "kernel": (kernel, "feature input output"),
        "bias": (bias, "feature output"),
        "x": (data, "batch... input"),
    }
    sizes_of("maxout_dense", given)
    return {"y": biased(np.einsum("...i,fio->...fo", data, kernel), bias).max(axis=-2)}


def srelu(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """Three lines: slope a_left below t_left, 1 between, a_right above t_left + |t_right|.

    Roles (..., channel), every size may be 1 and is then shared; x (batch, ..., channel) -> y of the same shape.
    Source: keras 1.2.2, advanced_activations.py, SReLU.call.
    """
    t_left, a_left, t_right, a_right = need("srelu", roles, "t_left", "a_left", "t_right", "a_right")
    (data,) = need("srelu", x, "x")
    _shared("srelu", data, t_left, a_left, t_right, a_right)
    right = t_left + np.abs(t_right)
    below = np.where(data < t_left, t_left + a_left * (data - t_left), data)
    return {"y": np.where(data > right, right + a_right * (data - right), below)}


def parametric_softplus(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = alpha log(1 + exp(beta x)).

    alpha, beta (..., channel), every size may be 1 and is then shared; x (batch, ..., channel) -> y of the same shape.
    Source: keras 1.2.2, advanced_activations.py, ParametricSoftplus.call.
    """
    alpha, beta = need("parametric_softplus", roles, "alpha", "beta")
    (data,) = need("parametric_softplus", x, "x")
    _shared("parametric_softplus", data, alpha, beta)
    return {"y": alpha * np.logaddexp(0.0, beta * data)}


def _shared(kind: str, data: Array, *arrays: Array) -> None:
    for array in arrays:
        pairs = zip(array.shape[::-1], data.shape[:0:-1], strict=False)
        if array.ndim >= data.ndim or any(size not in (1, whole) for size, whole in pairs):
            raise SizeError(
                f"{kind}: numbers of shape {array.shape} do not fit x {data.shape}",
                where=("(..., channel)", "x (batch, ..., channel)"), why="every size must be 1 or that of x",
            )  # fmt: skip
