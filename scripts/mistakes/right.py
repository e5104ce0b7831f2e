"""Right ports of random small architectures: a diagnosis has nothing to say of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layoutx.diagnose import diagnose
from mistakes.attention import Block, block
from mistakes.case import Made, doubles, normal, ported, shaken
from mistakes.conv import Image, Size, border, image
from mistakes.recurrent import STEPS, One, one, tagged

L = keras.layers
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "linear": lambda x: x, "elu": F.elu, "silu": F.silu,
    "softplus": F.softplus, "gelu": F.gelu,
}  # fmt: skip


class Chain(nn.Module):
    """Any number of steps, some of them with weights."""

    def __init__(self, steps: list[tuple[str, Any, Callable[[Any, Tensor], Tensor]]]) -> None:
        super().__init__()
        for name, module, _ in steps:
            if module is not None:
                self.add_module(name, module)
        self.steps = [(name, act) for name, _, act in steps]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, ...) -> (batch, units)."""
        for name, act in self.steps:
            x = act(getattr(self, name, None), x)
        return x


def padded(kernel: int, stride: int, same: bool) -> Callable[[Any, Tensor], Tensor]:
    """The layer after TensorFlow's border."""

    def apply(module: Any, x: Tensor) -> Tensor:
        ends = [n for length in reversed(x.shape[2:]) for n in border(length, kernel, stride)]
        return module(F.pad(x, ends) if same else x)

    return apply


def then(
    step: Callable[[Any, Tensor], Tensor], function: Callable[[Tensor], Tensor]
) -> Callable[[Any, Tensor], Tensor]:
    """A step and a function after it."""
    return lambda module, x: function(step(module, x))


def plain(module: Any, x: Tensor) -> Tensor:
    """The layer as it is."""
    return module(x)


def chain(rng: Any) -> Made:
    """Convolutions, norms and pooling in any order, and dense layers."""
    h, w, channels = (int(n) for n in rng.integers((9, 9, 1), (15, 15, 5)))
    here: list[Any] = [keras.Input((h, w, channels))]
    there: list[Any] = []
    given = (h, w, channels)
    for number in range(int(rng.integers(1, 4))):
        kernel, stride, same = int(rng.integers(1, 4)), int(rng.integers(1, 3)), bool(rng.integers(2))
        units, act = int(rng.integers(2, 8)), str(rng.choice(list(FUNCTIONS)))
        name = f"conv{number}"
        padding = "same" if same else "valid"
        here.append(L.Conv2D(units, kernel, strides=stride, padding=padding, activation=act, name=name))
        layer = nn.Conv2d(channels, units, kernel, stride=stride)
        there.append((name, layer, then(padded(kernel, stride, same), FUNCTIONS[act])))
        if rng.integers(2):
            here.append(L.BatchNormalization(name=f"bn{number}"))
            there.append((f"bn{number}", nn.BatchNorm2d(units, eps=1e-3), plain))
        channels = units
        size = keras.Sequential(here).output_shape[1:3]
        if min(size) < 4:
            break
        if rng.integers(2):
            here.append(L.MaxPooling2D(2) if rng.integers(2) else L.AveragePooling2D(2))
            pool = F.max_pool2d if isinstance(here[-1], L.MaxPooling2D) else F.avg_pool2d
            there.append((f"pool{number}", None, lambda _, x, pool=pool: pool(x, 2)))
    size = keras.Sequential(here).output_shape[1:3]
    flat = bool(rng.integers(2))
    here.append(L.Flatten() if flat else L.GlobalAveragePooling2D())
    there.append(("flat", None, (lambda _, x: x.flatten(1)) if flat else (lambda _, x: x.mean((2, 3)))))
    many = channels * size[0] * size[1] if flat else channels
    units, act = int(rng.integers(2, 9)), str(rng.choice(list(FUNCTIONS)))
    here += [L.Dense(units, activation=act, name="fc1"), L.Dense(units, name="fc2")]
    there += [("fc1", nn.Linear(many, units), then(plain, FUNCTIONS[act])), ("fc2", nn.Linear(units, units), plain)]
    source = shaken(keras.Sequential(here), int(rng.integers(1000)))
    return source, ported(source, Chain(there)), normal(2, *given)


def sequence(rng: Any) -> Made:
    """A recurrent layer and a dense one."""
    kind = str(rng.choice(["lstm", "gru", "rnn"]))
    inputs, units = (int(n) for n in rng.integers(2, 9, 2))
    source = one(kind, inputs, units)
    return source, ported(source, One(kind, inputs, units)), normal(3, STEPS, inputs)


def picture(rng: Any) -> Made:
    """The image model in any size."""
    z = Size(*(int(n) for n in rng.integers((10, 10, 1, 2, 2, 3), (19, 19, 5, 8, 8, 12))))
    source = image(z)
    return source, ported(source, Image(z)), normal(2, z.h, z.w, z.inputs)


def transformer(rng: Any) -> Made:
    """One block of a transformer."""
    heads, head = (int(n) for n in rng.integers(1, 5, 2))
    head += head * heads == 1  # a norm of one number gives nothing
    source = block(heads, head)
    return source, ported(source, Block(heads, head)), normal(2, 5, heads * head)


def back(rng: Any) -> Made:
    """torch is the source."""
    source, target, inputs = chain(rng)
    return target, source, np.moveaxis(inputs, -1, 1)


def alarms(many: int, seed: int = 20261121) -> Iterator[tuple[str, str]]:
    """(name, what was said) of every right port of which anything was said; one empty pair for each silent one."""
    kinds: tuple[Callable[[Any], Made], ...] = (chain, sequence, chain, picture, transformer, back, lambda _: tagged())
    for number in range(many):
        rng = np.random.default_rng((seed, number))
        kind = kinds[number % len(kinds)]
        with doubles():
            source, target, inputs = kind(rng)
            found = diagnose(source, target, inputs)
        said = not found.ok or found.layers or found.gaps
        yield (f"{number} {getattr(kind, '__name__', '')}", str(found)) if said else ("", "")
