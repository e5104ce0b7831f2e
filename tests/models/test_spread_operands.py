"""Operands of other lengths: a gate over channels, one over positions, and both; what is flattened behind them."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn, ops = keras.layers, torch.nn, keras.ops
HIGH, WIDE, CHANNELS, CLASSES = 5, 3, 7, 11


class Gates(L.Layer):
    """A squeeze and excitation, and a map of where to look; `kind` says what becomes of them."""

    def __init__(self, kind, **more):
        super().__init__(**more)
        self.kind, self.channels, self.places = kind, L.Dense(CHANNELS), L.Conv2D(1, 3, padding="same")

    def call(self, x):
        gate, places = ops.sigmoid(self.channels(ops.mean(x, axis=(1, 2)))), self.places(x)
        if self.kind == "both":
            return gate[:, None, None, :] * places
        return x * gate[:, None, None] + places


class Module(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.stem = kind, nn.Conv2d(2, CHANNELS, 3, padding=1)
        self.channels, self.places = nn.Linear(CHANNELS, CHANNELS), nn.Conv2d(CHANNELS, 1, 3, padding=1)
        self.head = nn.Linear(HIGH * WIDE * CHANNELS, CLASSES)

    def forward(self, x):
        x = self.stem(x)
        gate, places = torch.sigmoid(self.channels(x.mean((2, 3))))[:, :, None, None], self.places(x)
        return self.head((gate * places if self.kind == "both" else x * gate + places).flatten(1))


@pytest.mark.parametrize("kind", ["both", "channels"])
def test_rows_behind_operands_of_other_lengths(kind):
    """A map of one channel times features of which only these were known was taken for one channel: rows stayed."""
    picture = keras.Input((HIGH, WIDE, 2))
    x = Gates(kind)(L.Conv2D(CHANNELS, 3, padding="same")(picture))
    model, module = keras.Model(picture, L.Dense(CLASSES)(L.Flatten()(x))), Module(kind).eval()
    lx.port(model, module, compare=False)
    data = np.random.default_rng(0).normal(size=(2, HIGH, WIDE, 2)).astype("float32")
    with torch.no_grad():
        turned = torch.from_numpy(np.ascontiguousarray(np.moveaxis(data, -1, 1)))
        np.testing.assert_allclose(module(turned), model(data), atol=1e-5)
