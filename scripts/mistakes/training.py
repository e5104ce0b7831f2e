"""What only shows in another mode: training left on, dropout at inference, momentum, the update of the variance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mistakes.case import Case, Made, normal, ported, shaken
from mistakes.conv import PRIMES, SIZES, Image, image, planted

L = keras.layers


class Dropped(nn.Module):
    """Two dense layers with dropout between them."""

    def __init__(self, always: bool = False) -> None:
        super().__init__()
        self.d1, self.d2 = nn.Linear(7, 11), nn.Linear(11, 5)
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 7) -> (batch, 5)."""
        x = torch.tanh(self.d1(x))
        return self.d2(F.dropout(x, 0.4) if self.always else F.dropout(x, 0.4, self.training))


def dropped(always: bool) -> Made:
    """Dropout that is active: the module in training mode, or a function that does not know its mode."""
    layers = [keras.Input((7,)), L.Dense(11, "tanh", name="d1"), L.Dropout(0.4), L.Dense(5, name="d2")]
    source = shaken(keras.Sequential(layers))
    target = ported(source, Dropped(), Dropped(always))
    return source, target if always else target.train(), normal(6, 7)


def training(z: Any) -> Made:
    """A batch norm in training mode."""
    source, target, inputs = planted(z)
    return source, target.train(), inputs


def momentum(value: float) -> Made:
    """torch's default, or Keras' number as it is."""
    source = image(PRIMES)
    return source, ported(source, Image(PRIMES), Image(PRIMES, momentum=value)), normal(3, PRIMES.h, PRIMES.w, 3)


def cases() -> Iterator[Case]:
    """All of them."""
    for name, z in SIZES.items():
        yield Case("F10", f"batch norm in training mode, {name}", "", lambda z=z: training(z), told=True)
    yield Case("F10", "dropout in training mode", "", lambda: dropped(False), told=True)
    yield Case("F10", "dropout as a function, always on", "", lambda: dropped(True), told=True)
    yield Case("F9", "torch's default momentum", "", lambda: momentum(0.1), told=True)
    yield Case("F9", "Keras' momentum as it is", "", lambda: momentum(0.99), told=True)
    yield Case("F33", "the update of the variance", "", lambda: momentum(0.01), told=True)
