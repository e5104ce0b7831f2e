"""Keras' activations by the names that layoutx uses: two functions called `hard_sigmoid` have two names here."""

import torch
from torch import Tensor
from torch.nn import functional as F

# hard_sigmoid_0.2 is that of Keras 1, Keras 2 and tf_keras, hard_sigmoid_1/6 that of Keras 3 (and of torch itself)
ACTIVATIONS = (
    "linear", "tanh", "sigmoid", "hard_sigmoid_0.2", "hard_sigmoid_1/6", "relu", "relu6", "leaky_relu_0.2",
    "leaky_relu_0.01", "elu", "selu", "softplus", "softsign", "gelu", "gelu_tanh", "silu", "mish", "exponential",
    "log_sigmoid", "softmax",
)  # fmt: skip


def known(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: it is not one of ACTIVATIONS; `hard_sigmoid` alone, for one, says not which of two functions.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"no activation is called {name!r}; there are {', '.join(ACTIVATIONS)}")
    return name


def activated(name: str, x: Tensor) -> Tensor:
    """The activation of that name, element by element; softmax over the last axis."""
    if name == "tanh":
        return torch.tanh(x)
    if name == "sigmoid":
        return torch.sigmoid(x)
    if name == "hard_sigmoid_0.2":
        return torch.clamp(x * 0.2 + 0.5, 0.0, 1.0)
    if name == "hard_sigmoid_1/6":
        return F.hardsigmoid(x)
    if name == "relu":
        return F.relu(x)
    if name == "leaky_relu_0.2":
        return F.leaky_relu(x, 0.2)
    if name == "leaky_relu_0.01":
        return F.leaky_relu(x, 0.01)
    if name == "softplus":
        return torch.logaddexp(x, torch.zeros_like(x))  # F.softplus is linear above 20
    if name == "softsign":
        return F.softsign(x)
    if name == "exponential":
        return torch.exp(x)
    if name == "softmax":
        return F.softmax(x, dim=-1)
    return _unit(name, x)


def _unit(name: str, x: Tensor) -> Tensor:
    if name == "relu6":
        return F.relu6(x)
    if name == "elu":
        return F.elu(x)
    if name == "selu":
        return F.selu(x)
    if name == "gelu":
        return F.gelu(x)
    if name == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    if name == "silu":
        return F.silu(x)
    if name == "mish":
        return x * torch.tanh(torch.logaddexp(x, torch.zeros_like(x)))
    if name == "log_sigmoid":
        return F.logsigmoid(x)
    return x
