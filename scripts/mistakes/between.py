"""What lies between layers: pooling, enlarging, pixel shuffle, joins, activations; transposed and depthwise layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mistakes.case import FLOAT32, REPAIRED, Case, Made, changed, normal, ported, shaken
from mistakes.conv import border

L = keras.layers
Step = Callable[[Any], Any]


class Steps(nn.Module):
    """A convolution, a step without weights, another convolution."""

    def __init__(self, step: Step, inputs: int, middle: int, after: int, kernel: int = 3) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(inputs, middle, kernel), nn.Conv2d(after, 4, kernel)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, h, w) -> the same with 4 channels."""
        return self.c2(self.step(self.c1(x)))


def stepped(
    layers: list[Any],
    right: Step,
    wrong: Step,
    sizes: tuple[int, int] = (5, 5),
    space: tuple[int, int] = (13, 16),
    keep: tuple[str, ...] = (),
) -> Made:
    """Keras does `layers` between two convolutions; torch rightly, and wrongly.

    Args:
        keep: convolutions whose channels nobody can follow into what torch does by hand.
    """
    middle, after = sizes
    source = shaken(keras.Sequential([keras.Input((*space, 3)), L.Conv2D(middle, 3, name="c1"), *layers, L.Conv2D(4, 3, name="c2")]))  # fmt: skip # noqa: E501
    nets = [Steps(step, 3, middle, after) for step in (right, wrong)]
    return source, ported(source, *nets, keep=keep), normal(2, *space, 3)


def edged(size: int, stride: int, value: float = 0.0) -> Step:
    """A border as TensorFlow's `same`."""

    def apply(x: Tensor) -> Tensor:
        ends = [n for length in reversed(x.shape[2:]) for n in border(length, size, stride)]
        return F.pad(x, ends, value=value)

    return apply


def average_same(x: Tensor) -> Tensor:
    """Average pooling of 3 by 2 with `same`, the border not counted."""
    pad = edged(3, 2)
    return F.avg_pool2d(pad(x), 3, 2) / F.avg_pool2d(pad(torch.ones_like(x)), 3, 2)


def shuffled(x: Tensor) -> Tensor:
    """Depth to space as TensorFlow does it (DCR)."""
    b, c, h, w = x.shape
    return x.reshape(b, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(b, c // 4, 2 * h, 2 * w)


@keras.saving.register_keras_serializable("mistakes")
class Shuffle(L.Layer):  # type: ignore[misc]
    """tf.nn.depth_to_space by 2."""

    def call(self, x: Any) -> Any:
        """(batch, h, w, channel) -> (batch, 2 h, 2 w, channel / 4)."""
        import tensorflow as tf

        return tf.nn.depth_to_space(x, 2)


def pooling() -> Iterator[Case]:
    """Pooling, enlarging, shuffling."""
    two = [L.MaxPooling2D(2)]
    best: Step = lambda x: F.max_pool2d(x, 2)  # noqa: E731
    yield Case("F27", "average for max pooling", "", lambda: stepped(two, best, lambda x: F.avg_pool2d(x, 2)))
    same = [L.AveragePooling2D(3, strides=2, padding="same")]
    yield Case("F27", "the border counted in averages", "", lambda: stepped(same, average_same, lambda x: F.avg_pool2d(edged(3, 2)(x), 3, 2)), ("F7",))  # fmt: skip # noqa: E501
    yield Case("F27", "symmetric border of an average", "", lambda: stepped(same, average_same, lambda x: F.avg_pool2d(x, 3, 2, 1)), ("F7",))  # fmt: skip # noqa: E501
    most = [L.MaxPooling2D(3, strides=2, padding="same")]
    right: Step = lambda x: F.max_pool2d(edged(3, 2, -torch.inf)(x), 3, 2)  # noqa: E731
    yield Case("F7", "symmetric border of a max pooling", "", lambda: stepped(most, right, lambda x: F.max_pool2d(x, 3, 2, 1), space=(14, 16)), ("F27",))  # fmt: skip # noqa: E501
    yield Case("F27", "a max pooling that rounds up", "", lambda: stepped(two, best, lambda x: F.max_pool2d(x, 2, ceil_mode=True)))  # fmt: skip # noqa: E501
    yield Case("F27", "global max for average pooling", "", _globally)
    up = [L.UpSampling2D(2, interpolation="bilinear")]
    half: Step = lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")  # noqa: E731
    corners: Step = lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)  # noqa: E731
    yield Case("F28", "aligned corners", "", lambda: stepped(up, half, corners), limit=FLOAT32)
    nearest: Step = lambda x: F.interpolate(x, scale_factor=2)  # noqa: E731
    yield Case("F28", "nearest for bilinear", "", lambda: stepped(up, half, nearest), limit=FLOAT32)
    yield Case("F28", "bilinear for nearest", "", lambda: stepped([L.UpSampling2D(2)], nearest, half))
    pixels: Step = lambda x: F.pixel_shuffle(x, 2)  # noqa: E731
    yield Case("F29", "pixel shuffle (CRD) for depth to space (DCR)", "c1", lambda: stepped([Shuffle()], shuffled, pixels, (12, 3), keep=("c1",)), ("F1",))  # fmt: skip # noqa: E501
    yield Case("F17", "the map upside down", "", lambda: stepped([], lambda x: x, lambda x: x.flip(2)))
    yield Case("F7", "a border at the other end", "", lambda: stepped([L.ZeroPadding2D(((0, 1), (0, 1)))], lambda x: F.pad(x, (0, 1, 0, 1)), lambda x: F.pad(x, (1, 0, 1, 0))))  # fmt: skip # noqa: E501
    yield Case("F1", "height and width exchanged", "", lambda: stepped([], lambda x: x, lambda x: x.transpose(2, 3), space=(12, 12)), ("F17", "F36"))  # fmt: skip # noqa: E501


def functions() -> Iterator[Case]:
    """Activations that are layers of their own."""
    for mode, name, layer, right, wrong in (
        ("F31", "LeakyReLU 0.01 for 0.3", L.LeakyReLU(negative_slope=0.3), lambda x: F.leaky_relu(x, 0.3), F.leaky_relu),  # noqa: E501
        ("F31", "LeakyReLU 0.2 for 0.1", L.LeakyReLU(negative_slope=0.1), lambda x: F.leaky_relu(x, 0.1), lambda x: F.leaky_relu(x, 0.2)),  # noqa: E501
        ("F20", "gelu of tanh", L.Activation("gelu"), F.gelu, lambda x: F.gelu(x, approximate="tanh")),
        ("F19", "relu left out", L.ReLU(), F.relu, lambda x: x),
        ("F19", "relu twice, harmless, then tanh", L.ReLU(), F.relu, lambda x: torch.tanh(F.relu(x))),
        ("F19", "elu for relu", L.ReLU(), F.relu, F.elu),
        ("F19", "Keras 2's hard sigmoid for Keras 3's", L.Activation("hard_sigmoid"), F.hardsigmoid, lambda x: (0.2 * x + 0.5).clamp(0, 1)),  # noqa: E501
    ):  # fmt: skip
        yield Case(
            mode,
            f"{name}, between",
            "",
            lambda a=layer, r=right, w=wrong: stepped([a], r, w),
            limit=FLOAT32 if mode in ("F20", "F31") else REPAIRED,
        )


class Pooled(nn.Module):
    """A convolution, one number for each channel, a dense layer."""

    def __init__(self, most: bool) -> None:
        super().__init__()
        self.c1, self.out, self.most = nn.Conv2d(3, 5, 3), nn.Linear(5, 4), most

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, h, w) -> (batch, 4)."""
        x = self.c1(x)
        return self.out(x.amax((2, 3)) if self.most else x.mean((2, 3)))


def _globally() -> Made:
    source = shaken(keras.Sequential([keras.Input((9, 8, 3)), L.Conv2D(5, 3, name="c1"), L.GlobalAveragePooling2D(), L.Dense(4, name="out")]))  # fmt: skip # noqa: E501
    return source, ported(source, Pooled(False), Pooled(True)), normal(4, 9, 8, 3)


class Joined(nn.Module):
    """Two branches joined."""

    def __init__(self, join: Callable[[Tensor, Tensor], Tensor], wide: int) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(7, 5), nn.Linear(7, 5), nn.Linear(wide, 3)
        self.join = join

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 7) -> (batch, 3)."""
        return self.out(self.join(self.left(x), self.right(x)))


def joined(layer: Any, wide: int, right: Callable[..., Tensor], wrong: Callable[..., Tensor]) -> Made:
    """Two branches joined in Keras, and otherwise in torch."""
    x = keras.Input((7,))
    both = layer([L.Dense(5, name="left")(x), L.Dense(5, name="right")(x)])
    source = shaken(keras.Model(x, L.Dense(3, name="out")(both)))
    return source, ported(source, Joined(right, wide), Joined(wrong, wide)), normal(6, 7)


def joins() -> Iterator[Case]:
    """Joins of two branches: the list has no number for them."""
    side: Callable[..., Tensor] = lambda a, b: torch.cat((a, b), 1)  # noqa: E731
    yield Case("-", "branches side by side the other way", "", lambda: joined(L.Concatenate(), 10, side, lambda a, b: torch.cat((b, a), 1)))  # fmt: skip # noqa: E501
    yield Case("-", "a branch left out of a sum", "", lambda: joined(L.Add(), 5, torch.add, lambda a, b: a))
    yield Case("-", "multiplied for added", "", lambda: joined(L.Add(), 5, torch.add, torch.mul))


class Up(nn.Module):
    """A transposed convolution and a convolution."""

    def __init__(self, inputs: int, units: int, stride: int = 2, crop: int | str = "same") -> None:
        super().__init__()
        import layoutx.torch as modules

        if crop == "same":
            self.up = modules.ConvTranspose2dSame(inputs, units, 3, stride=stride)
        else:
            self.up = nn.ConvTranspose2d(inputs, units, 3, stride=stride, padding=int(crop), output_padding=stride - 1)
        self.c2 = nn.Conv2d(units, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, h, w) -> (batch, 2, h, w)."""
        return self.c2(self.up(x))


def upwards(inputs: int, units: int, fix: Callable[[Any], Any] | None = None, wrong: Any = None) -> Made:
    """A Keras Conv2DTranspose with `same`."""
    source = shaken(keras.Sequential([keras.Input((5, 6, inputs)), L.Conv2DTranspose(units, 3, strides=2, padding="same", name="up"), L.Conv2D(2, 2, name="c2")]))  # fmt: skip # noqa: E501
    return source, ported(source, Up(inputs, units), wrong, fix), normal(2, 5, 6, inputs)


class Deep(nn.Module):
    """A depthwise convolution and a pointwise one."""

    def __init__(self, channels: int, mult: int) -> None:
        super().__init__()
        self.dw = nn.Conv2d(channels, channels * mult, 3, groups=channels)
        self.pw = nn.Conv2d(channels * mult, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, h, w) -> (batch, 4, h, w)."""
        return self.pw(self.dw(x))


def depthwise(channels: int, mult: int, fix: Callable[[Any], Any]) -> Made:
    """A Keras DepthwiseConv2D."""
    source = shaken(keras.Sequential([keras.Input((8, 9, channels)), L.DepthwiseConv2D(3, depth_multiplier=mult, name="dw"), L.Conv2D(4, 1, name="pw")]))  # fmt: skip # noqa: E501
    return source, ported(source, Deep(channels, mult), fix=fix), normal(2, 8, 9, channels)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from pooling()
    yield from functions()
    yield from joins()
    for inputs, units in ((5, 7), (4, 4), (11, 11)):
        name = f"{inputs} to {units}"
        if inputs == units:
            swap = changed("up.weight", lambda w: w.swapaxes(0, 1))
            yield Case("F16", f"in and out, {name}", "up", lambda i=inputs, u=units, s=swap: upwards(i, u, s))
        turn = changed("up.weight", lambda w: w[:, :, ::-1, ::-1])
        yield Case("F16", f"kernel turned, {name}", "up", lambda i=inputs, u=units, t=turn: upwards(i, u, t))
        yield Case("F16", f"cropped at the other end, {name}", "up", lambda i=inputs, u=units: upwards(i, u, wrong=Up(i, u, crop=1)), ("F7",))  # fmt: skip # noqa: E501
    for channels, mult in ((5, 2), (3, 3), (7, 3)):
        order = changed("dw.weight", lambda w, c=channels, m=mult: w.reshape(c, m, *w.shape[1:]).swapaxes(0, 1).reshape(w.shape))  # fmt: skip # noqa: E501
        yield Case("F15", f"multiplier before channel, {channels} by {mult}", "dw", lambda c=channels, m=mult, o=order: depthwise(c, m, o))  # fmt: skip # noqa: E501
        both = changed("dw.weight|dw.bias", lambda w, c=channels, m=mult: w.reshape(c, m, *w.shape[1:]).swapaxes(0, 1).reshape(w.shape))  # fmt: skip # noqa: E501
        yield Case("F15", f"and its bias, {channels} by {mult}", "dw", lambda c=channels, m=mult, o=both: depthwise(c, m, o))  # fmt: skip # noqa: E501
