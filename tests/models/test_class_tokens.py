"""A class token and positions in one layer of a Keras user's own, laid before the patches of a map."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import torch
from keras import layers, ops
from torch import nn

import layoutx

SIDE, PATCH, WIDTH, OUT = 12, 4, 10, 3
STEPS = (SIDE // PATCH) ** 2


class Tokens(layers.Layer):
    def build(self, given: Any) -> None:
        self.cls = self.add_weight(shape=(1, 1, WIDTH), name="cls", initializer="normal")
        self.pos = self.add_weight(shape=(1, STEPS + 1, WIDTH), name="pos_embedding", initializer="normal")

    def call(self, x: Any) -> Any:
        first = ops.broadcast_to(self.cls, (ops.shape(x)[0], 1, WIDTH))
        return ops.concatenate([first, x], 1) + self.pos


class Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.cls, self.pos = nn.Parameter(torch.zeros(1, 1, WIDTH)), nn.Parameter(torch.zeros(1, STEPS + 1, WIDTH))
        self.norm, self.head = nn.LayerNorm(WIDTH, 1e-5), nn.Linear(WIDTH, OUT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
        return self.head(self.norm(x).mean(1))


def test_a_layer_that_holds_a_class_token_and_positions() -> None:
    given = keras.Input((SIDE, SIDE, 3))
    x = layers.Reshape((STEPS, WIDTH))(layers.Conv2D(WIDTH, PATCH, strides=PATCH, name="patch")(given))
    x = layers.LayerNormalization(epsilon=1e-5, name="norm")(Tokens(name="tokens")(x))
    source = keras.Model(given, layers.Dense(OUT, name="head")(layers.GlobalAveragePooling1D()(x)))
    rng = np.random.default_rng(20261123)
    source.set_weights([rng.normal(size=w.shape) for w in source.weights])
    target = Patches().eval()
    report = layoutx.port(source, target, rng.normal(size=(5, SIDE, SIDE, 3)).astype("float32"))
    assert report.end_to_end.agrees is True
    np.testing.assert_array_equal(target.cls.detach().numpy(), source.get_layer("tokens").get_weights()[0])
