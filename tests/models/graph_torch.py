"""A torch module built from a Keras model's graph, as a person would port it: channels first, names of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from layoutx.model.graph import Graph, Node, graph_of

Tensor = torch.Tensor
Names = Callable[[int, str, str], str]


def in_features(number: int, class_name: str, name: str) -> str:
    """`features_12`: where a layer stands, and nothing else."""
    return f"features_{number}"


def by_kind(number: int, class_name: str, name: str) -> str:
    """`conv2d_17`: another one's numbering, which counts over the whole model."""
    return f"{class_name.lower().replace('batchnormalization', 'bn')}{number}"


def own_names(number: int, class_name: str, name: str) -> str:
    """The Keras names, as far as torch takes them."""
    return name.replace("/", "_").replace(".", "_")


class FromGraph(nn.Module):
    """Runs the layers of a Keras graph in their order; weights are torch's initial ones until they are ported.

    `names` gives each layer its attribute. Maps are `(batch, channels, height, width)`.
    """

    def __init__(
        self, graph: Graph, names: Names = in_features, constants: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        super().__init__()
        self.graph, self.constants = graph, constants or {}
        self.paths: dict[str, str] = {}
        self.steps: dict[str, Callable[..., Tensor]] = {}
        for number, node in enumerate(graph.layers):
            made = layer(node)
            if isinstance(made, nn.Module):
                path = names(number, node.class_name, node.name)
                setattr(self, path, made)
                self.paths[node.name] = path
            self.steps[node.name] = made

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        known: dict[tuple[str, int], Tensor] = {}
        fed = {ref.layer: x for ref, x in zip(self.graph.inputs, inputs, strict=True)}
        for node in self.graph.layers:
            if node.name in fed:
                known[node.name, 0] = fed[node.name]
                continue
            for number, call in enumerate(node.calls):
                fixed = self.constants.get(node.name, ())
                known[node.name, number] = self.steps[node.name](*(known[ref.layer, ref.call] for ref in call), *fixed)
        found = tuple(known[ref.layer, ref.call] for ref in self.graph.outputs)
        return found[0] if len(found) == 1 else found


def from_keras(model: Any, names: Names = in_features) -> FromGraph:
    """The torch module of a Keras Functional model, in float64 and eval mode; its weights appear at the first call."""
    config = json.loads(model.to_json())
    layers = config["config"]["layers"]
    constants = {entry["name"]: [a for a in _arguments(entry) if isinstance(a, float)] for entry in layers}
    return FromGraph(graph_of(config), names, constants).double().eval()


def _arguments(entry: Mapping[str, Any]) -> list[Any]:
    """What an operation is called with beside tensors: `x + 3.0`."""
    calls = entry.get("inbound_nodes") or [{}]
    return list(calls[0].get("args", ())) if isinstance(calls[0], dict) else []


def scrambled(model: Any, seed: int = 20261121) -> Any:
    """The same Keras model with weights that hide no mistake: no bias, gamma or statistic at its initial value."""
    rng = np.random.default_rng(seed)
    values = []
    for variable in model.weights:
        value = np.asarray(variable)
        if variable.path.endswith(("variance", "gamma")):
            value = rng.uniform(0.6, 1.4, value.shape)
        elif value.ndim < 2:
            value = rng.normal(0, 0.2, value.shape)
        else:
            fan = max(1, int(np.prod(value.shape[:-1])) if "depthwise" not in variable.path else value[..., 0, 0].size)
            value = rng.normal(0, (1.6 / fan) ** 0.5, value.shape)
        values.append(value)
    model.set_weights(values)
    return model


def layer(node: Node) -> Callable[..., Tensor]:
    """One layer's module, or the function that a person writes for it."""
    makers: dict[str, Callable[[dict[str, Any], Node], Callable[..., Tensor]]] = {
        "InputLayer": lambda c, n: _same,
        "Conv2D": _conv,
        "DepthwiseConv2D": _depthwise,
        "SeparableConv2D": _separable,
        "Dense": _dense,
        "BatchNormalization": lambda c, n: _Lazy(lambda x: nn.BatchNorm2d(x.shape[1], c["epsilon"], 1 - c["momentum"])),
        "Normalization": lambda c, n: _Standard(),
        "Rescaling": lambda c, n: lambda x: x * _first(c["scale"]) + _first(c["offset"]),
        "Activation": lambda c, n: activation(c["activation"]),
        "ReLU": _relu,
        "ZeroPadding2D": lambda c, n: _padding(c["padding"]),
        "MaxPooling2D": _max_pool,
        "AveragePooling2D": lambda c, n: nn.AvgPool2d(_pair(c["pool_size"]), _pair(c["strides"])),
        "GlobalAveragePooling2D": lambda c, n: lambda x: x.mean((2, 3), keepdim=bool(c.get("keepdims"))),
        "Add": lambda c, n: lambda *xs: sum(xs[1:], xs[0]),
        "Multiply": lambda c, n: lambda *xs: math.prod(xs[1:], start=xs[0]),
        "Concatenate": lambda c, n: lambda *xs: torch.cat(xs, 1),
        "Dropout": lambda c, n: _same,
        "Flatten": lambda c, n: lambda x: x.flatten(1),
        "Reshape": lambda c, n: _reshape(c["target_shape"]),
    }
    if node.class_name not in makers:
        raise NotImplementedError(node.class_name)
    return makers[node.class_name](dict(node.config), node)


class _Lazy(nn.Module):
    """A module made at its first call, when the channels are known (torch has no LazyBatchNorm in float64 mode)."""

    def __init__(self, make: Callable[[Tensor], nn.Module]) -> None:
        super().__init__()
        self.make = make
        self.inner: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.inner is None:
            self.inner = self.make(x).to(x.dtype).eval()
        found: Tensor = self.inner(x)
        return found


class _Standard(nn.Module):
    """Keras' Normalization: statistics that were adapted."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(3))
        self.variance = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)
        return (x - self.mean.view(shape)) / self.variance.view(shape).sqrt().clamp(min=1e-7)


def _same(x: Tensor) -> Tensor:
    return x


def _first(value: Any) -> Any:
    return torch.tensor(value).view(1, -1, 1, 1) if isinstance(value, list) else value


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """Keras 3's activation of this name."""
    known: dict[str, Callable[[Tensor], Tensor]] = {
        "linear": _same,
        "relu": F.relu,
        "relu6": F.relu6,
        "sigmoid": torch.sigmoid,
        "hard_sigmoid": F.hardsigmoid,
        "hard_silu": F.hardswish,
        "hard_swish": F.hardswish,
        "swish": F.silu,
        "silu": F.silu,
        "softmax": lambda x: F.softmax(x, -1),
        "tanh": torch.tanh,
    }
    return known[name]


def _relu(c: dict[str, Any], node: Node) -> Callable[..., Tensor]:
    most = c.get("max_value")
    return (lambda x: x.clamp(0, most)) if most is not None else F.relu


def _padding(padding: Any) -> Callable[..., Tensor]:
    (top, bottom), (left, right) = padding
    return lambda x: F.pad(x, (left, right, top, bottom))


def _max_pool(c: dict[str, Any], node: Node) -> Callable[..., Tensor]:
    size, stride = _pair(c["pool_size"]), _pair(c["strides"])
    if c["padding"] == "valid":
        return nn.MaxPool2d(size, stride)

    def pooled(x: Tensor) -> Tensor:
        return F.max_pool2d(F.pad(x, _tf_same(x, size, stride, (1, 1)), value=float("-inf")), size, stride)

    return pooled


def _tf_same(x: Tensor, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[int]:
    """TensorFlow's `same`: what is odd goes to the end."""
    pads: list[int] = []
    for n, k, s, d in zip(x.shape[:1:-1], size[::-1], stride[::-1], dilation[::-1], strict=True):
        total = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        pads += [total // 2, total - total // 2]
    return pads


class _Conv(nn.Module):
    """A convolution as a person writes it who knows that torch's padding is symmetric."""

    def __init__(self, c: dict[str, Any], inner: Callable[[Tensor], nn.Module], size: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.stride, self.dilation = size, _pair(c["strides"]), _pair(c["dilation_rate"])
        self.same = c["padding"] == "same"
        self.conv = _Lazy(inner)
        self.act = activation(c["activation"] or "linear")

    def forward(self, x: Tensor) -> Tensor:
        if self.same:
            x = F.pad(x, _tf_same(x, self.size, self.stride, self.dilation))
        return self.act(self.conv(x))


def _conv(c: dict[str, Any], node: Node) -> Callable[..., Tensor]:
    size, stride, dilation = _pair(c["kernel_size"]), _pair(c["strides"]), _pair(c["dilation_rate"])
    groups, bias = c.get("groups", 1), c["use_bias"]
    return _Conv(
        c,
        lambda x: nn.Conv2d(x.shape[1], c["filters"], size, stride, 0, dilation, groups, bias),
        size,
    )


def _depthwise(c: dict[str, Any], node: Node) -> Callable[..., Tensor]:
    size, stride, dilation = _pair(c["kernel_size"]), _pair(c["strides"]), _pair(c["dilation_rate"])
    many, bias = c["depth_multiplier"], c["use_bias"]
    return _Conv(
        c,
        lambda x: nn.Conv2d(x.shape[1], x.shape[1] * many, size, stride, 0, dilation, x.shape[1], bias),
        size,
    )


def _separable(c: dict[str, Any], node: Node) -> Callable[..., Tensor]:
    """Two convolutions, one after the other."""
    size, stride, dilation = _pair(c["kernel_size"]), _pair(c["strides"]), _pair(c["dilation_rate"])

    def inner(x: Tensor) -> nn.Module:
        n = x.shape[1]
        many = c["depth_multiplier"] * n
        return nn.Sequential(
            nn.Conv2d(n, many, size, stride, 0, dilation, n, False),
            nn.Conv2d(many, c["filters"], 1, bias=c["use_bias"]),
        )

    return _Conv(c, inner, size)


def _dense(c: dict[str, Any], node: Node) -> Callable[..., Tensor]:
    act = activation(c["activation"] or "linear")
    linear = _Lazy(lambda x: nn.Linear(x.shape[-1], c["units"], c["use_bias"]))
    return _Applied(linear, act)


class _Applied(nn.Module):
    def __init__(self, linear: nn.Module, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.act = linear, act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.linear(x))


def _reshape(target: Sequence[int]) -> Callable[..., Tensor]:
    """Keras shapes have channels last; a vector made a map of one pixel is all that these models do."""
    *ones, channels = target
    assert all(n == 1 for n in ones)
    return lambda x: x.reshape(x.shape[0], channels, *ones)
