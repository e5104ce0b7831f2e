"""Convolutions, norms and dense layers: a small image model in several sizes, and what goes wrong in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mistakes.case import FLOAT32, Case, Made, changed, normal, ported, shaken, shaken_torch

L = keras.layers


@dataclass(frozen=True)
class Size:
    """Of the image model: maps, channels of both convolutions, units of both dense layers."""

    h: int
    w: int
    inputs: int
    first: int
    second: int
    units: int

    @property
    def map(self) -> tuple[int, int, int]:
        """The flattened map, channels first."""
        return self.second, -(-((self.h - 2) // 2) // 2), -(-((self.w - 2) // 2) // 2)


PRIMES = Size(12, 14, 3, 5, 7, 11)
SQUARE = Size(14, 14, 3, 3, 3, 27)
LARGE = Size(26, 22, 3, 13, 17, 19)
SIZES = {"primes": PRIMES, "square": SQUARE, "large": LARGE}


def image(z: Size, activation: str = "relu", momentum: float = 0.99) -> Any:
    """The Keras model."""
    model = keras.Sequential(
        [
            keras.Input((z.h, z.w, z.inputs)),
            L.Conv2D(z.first, 3, name="c1", activation=activation),
            L.BatchNormalization(name="bn", momentum=momentum),
            L.MaxPooling2D(2),
            L.Conv2D(z.second, 3, strides=2, padding="same", name="c2"),
            L.Flatten(),
            L.Dense(z.units, activation="relu", name="d1"),
            L.Dense(z.units, name="d2"),
        ]
    )
    return shaken(model)


class Image(nn.Module):
    """The same in torch; the arguments make the mistakes."""

    def __init__(
        self,
        z: Size,
        eps: float = 1e-3,
        pad: str = "same",
        act: Callable[[Tensor], Tensor] = F.relu,
        pool: Callable[[Tensor], Tensor] = lambda x: F.max_pool2d(x, 2),
        flat: Callable[[Tensor], Tensor] = lambda x: x.flatten(1),
        before: Callable[[Tensor], Tensor] = lambda x: x,
        momentum: float = 0.01,
    ) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(z.inputs, z.first, 3)
        self.bn = nn.BatchNorm2d(z.first, eps=eps, momentum=momentum)
        self.c2 = nn.Conv2d(z.first, z.second, 3, stride=2, padding=1 if pad == "symmetric" else 0)
        self.d1 = nn.Linear(int(np.prod(z.map)), z.units)
        self.d2 = nn.Linear(z.units, z.units)
        self.pad, self.act, self.pool, self.flat, self.before = pad, act, pool, flat, before

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, h, w) -> (batch, unit)."""
        x = self.pool(self.bn(self.act(self.c1(self.before(x)))))
        if self.pad != "symmetric":
            ends = [border(n, 3, 2) for n in reversed(x.shape[2:])]
            x = F.pad(x, [n for end in ends for n in (end if self.pad == "same" else end[::-1])])
        return self.d2(F.relu(self.d1(self.flat(self.c2(x)))))


def border(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's `same`."""
    total = max(0, (-(-length // stride) - 1) * stride + kernel - length)
    return total // 2, total - total // 2


def planted(z: Size, fix: Callable[[Any], Any] | None = None, activation: str = "relu", **how: Any) -> Made:
    """Keras is right; the torch model has the mistake."""
    source = image(z, activation)
    function = {"relu": F.relu, "gelu": F.gelu, "leaky_relu": lambda x: F.leaky_relu(x, 0.2)}[activation]
    target = ported(source, Image(z, act=function), Image(z, **{"act": function, **how}), fix)
    return source, target, normal(3, z.h, z.w, z.inputs)


def back(z: Size, **changes: Callable[[Any], Any]) -> Made:
    """torch is right; the Keras model has the mistake."""
    right = image(z)
    source = ported(right, Image(z))
    wrong = image(z)
    wrong.set_weights(right.get_weights())
    for layer, change in changes.items():
        wrong.get_layer(layer).set_weights(change(right.get_layer(layer).get_weights()))
    return source, wrong, normal(3, z.inputs, z.h, z.w)


def rows(z: Size) -> Callable[[Any], None]:
    """Rows in the order h w c."""
    c, h, w = z.map
    return changed("d1.weight", lambda a: a.reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(a.shape))


def rows_twice(z: Size) -> Callable[[Any], None]:
    """Rows turned once more."""
    c, h, w = z.map
    return changed("d1.weight", lambda a: a.reshape(-1, h, w, c).transpose(0, 3, 1, 2).reshape(a.shape))


def raw_bytes(*order: int) -> Callable[[Any], Any]:
    """The bytes of a transposed view under the shape that it should have had."""
    return lambda w: np.ascontiguousarray(w.transpose(order)).reshape(w.shape)


def cases() -> Iterator[Case]:
    """All of them."""
    for name, z in SIZES.items():
        same = ("F2",) if z is SQUARE else ()  # where all axes are equally long, the bytes are those of a transpose
        yield Case("F1", f"rows of the kernel, {name}", "d1", lambda z=z: planted(z, rows(z)))
        yield Case("F1", f"rows turned twice, {name}", "d1", lambda z=z: planted(z, rows_twice(z)), ("F11",))
        last = {"flat": lambda x: x.permute(0, 2, 3, 1).flatten(1)}
        yield Case("F1", f"channels-last flatten, {name}", "d1", lambda z=z, last=last: planted(z, **last))
        yield Case("F2", f"square dense, {name}", "d2", lambda z=z: planted(z, changed("d2.weight", np.transpose)))
        yield Case("F7", f"symmetric border, {name}", "c2", lambda z=z: planted(z, pad="symmetric"))
        yield Case("F7", f"odd pixel in front, {name}", "", lambda z=z: planted(z, pad="front"))
        yield Case("F8", f"batch norm 1e-5, {name}", "bn", lambda z=z: planted(z, eps=1e-5))
        yield Case("F12", f"conv kernel, {name}", "c2", lambda z=z: planted(z, changed("c2.weight", raw_bytes(2, 3, 1, 0))), same)  # fmt: skip # noqa: E501
        yield Case("F12", f"dense kernel, {name}", "d1", lambda z=z: planted(z, changed("d1.weight", raw_bytes(1, 0))), same)  # fmt: skip # noqa: E501
        yield Case("F17", f"kernel turned, {name}", "c1", lambda z=z: planted(z, changed("c1.weight", lambda w: w[:, :, ::-1, ::-1])))  # fmt: skip # noqa: E501
        yield Case("F34", f"B G R kernel, {name}", "c1", lambda z=z: planted(z, changed("c1.weight", lambda w: w[:, ::-1])))  # fmt: skip # noqa: E501
        yield Case("F2", f"Keras dense, {name}", "d2", lambda z=z: back(z, d2=lambda w: [w[0].T, w[1]]))
        yield Case("F26", f"list order, {name}", "bn", lambda z=z: planted(z, listed))
        yield Case("F14", f"bias left out, {name}", "d1", lambda z=z: planted(z, changed("d1.bias", np.zeros_like)))
    yield from few()


def listed(model: Any) -> None:
    """gamma and beta exchanged."""
    gamma, beta = model.bn.weight.clone(), model.bn.bias.clone()
    model.bn.weight.copy_(beta)
    model.bn.bias.copy_(gamma)


def few() -> Iterator[Case]:
    """In one size."""
    z = PRIMES
    yield Case("F2", "in and out of a square conv", "c2", lambda: planted(SQUARE, changed("c2.weight", lambda w: w.swapaxes(0, 1))))  # fmt: skip # noqa: E501
    yield Case("F11", "a square dense converted twice", "d2", lambda: planted(z, changed("d2.weight", np.transpose)), ("F2",))  # fmt: skip # noqa: E501
    yield Case("F11", "a cube converted twice", "c2", lambda: planted(SQUARE, changed("c2.weight", lambda w: w.transpose(3, 2, 0, 1))), ("F2",))  # fmt: skip # noqa: E501
    yield Case("F11", "Keras numbers as they lie", "c2", lambda: planted(SQUARE, changed("c2.weight", lambda w: w.transpose(2, 3, 1, 0))), ("F2",))  # fmt: skip # noqa: E501
    yield Case("F25", "Conv1D of GPT-2 (in, out) as Linear", "d2", lambda: planted(z, changed("d2.weight", np.transpose)), ("F2",))  # fmt: skip # noqa: E501
    yield Case("F6", "the dense bias doubled", "d1", lambda: planted(z, changed("d1.bias", lambda b: 2 * b)))
    yield Case("F6", "the conv bias doubled", "c2", lambda: planted(z, changed("c2.bias", lambda b: 2 * b)))
    yield Case("F8", "an eps of its own", "bn", lambda: planted(z, eps=3.3e-4))
    yield Case("F13", "gamma not loaded", "bn", lambda: planted(z, changed("bn.weight", np.ones_like)), ("F26",))
    yield Case("F13", "a kernel not loaded", "d2", lambda: planted(z, changed("d2.weight", lambda w: normal(*w.shape, seed=9))))  # fmt: skip # noqa: E501
    yield Case("F14", "beta not loaded", "bn", lambda: planted(z, changed("bn.bias", np.zeros_like)), ("F13",))
    yield Case("F26", "deviation as variance", "bn", lambda: planted(z, changed("bn.running_var", np.sqrt)))
    yield Case("F26", "Keras list order", "bn", lambda: back(z, bn=lambda w: [w[1], w[0], w[2], w[3]]))
    yield Case("F17", "Keras kernel turned", "c1", lambda: back(z, c1=lambda w: [w[0][::-1, ::-1], w[1]]))
    yield Case("F17", "height and width exchanged", "c2", lambda: planted(z, changed("c2.weight", lambda w: w.swapaxes(2, 3))))  # fmt: skip # noqa: E501
    yield Case("F30", "conv kernel through float16", "c2", lambda: planted(z, changed("c2.weight", _half)))
    yield Case("F30", "dense kernel through bfloat16", "d1", lambda: planted(z, _bfloat16))
    every = "c1|bn|c2|d1|d2"
    yield Case("F13", "no weights loaded at all", every, lambda: _unloaded(z))
    yield Case("F14", "a layer left out", "", lambda: _without(z), told=True)
    yield Case("F30", "the whole model in half precision", every, lambda: _halved(z))
    yield Case("F34", "B G R inputs", "", lambda: planted(z, before=lambda x: x.flip(1)))
    yield Case("F34", "inputs of 0 to 255", "", lambda: planted(z, before=lambda x: x / 255))
    means, spreads = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    whitened = {"before": lambda x: (x - means[:, None, None]) / spreads[:, None, None]}
    yield Case("F34", "mean and deviation taken off twice", "", lambda: planted(z, **whitened))
    yield Case("F20", "gelu of tanh after a conv", "", lambda: planted(z, activation="gelu", act=lambda x: F.gelu(x, approximate="tanh")), limit=FLOAT32)  # fmt: skip # noqa: E501
    yield Case(
        "F31",
        "leaky slope 0.01 for 0.2",
        "",
        lambda: planted(z, activation="leaky_relu", act=F.leaky_relu),
        limit=FLOAT32,
    )
    yield Case("F19", "the activation forgotten", "", lambda: planted(z, act=lambda x: x))


def _unloaded(z: Size) -> Made:
    return image(z), shaken_torch(Image(z), 3), normal(3, z.h, z.w, z.inputs)


def _without(z: Size) -> Made:
    source, target, inputs = planted(z)
    target.d2 = nn.Identity()
    return source, target, inputs


def _halved(z: Size) -> Made:
    source, target, inputs = planted(z)
    return source, target.half(), inputs


def _half(w: Any) -> Any:
    return w.astype(np.float16).astype(w.dtype)


def _bfloat16(model: Any) -> None:
    model.d1.weight.copy_(model.d1.weight.bfloat16().double())
