"""Layers that their users named by attributes alone, and blocks that give back what they add to."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx
from layoutx.model.keras_live import live_records

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn, ops = keras.layers, torch.nn, keras.ops
WIDTH, HIGH, WIDE, CHANNELS, CLASSES = 14, 5, 3, 6, 11


class Attention(L.Layer):
    """Values are made before keys and queries: neither numbers nor order tell which is which."""

    def __init__(self, **more):
        super().__init__(**more)
        self.v = L.Dense(WIDTH)
        self._parts = {"k": L.Dense(WIDTH), "q": L.Dense(WIDTH)}

    def call(self, x):
        query, key = self._parts["q"](x), self._parts["k"](x)
        scores = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 2, 1))) / WIDTH**0.5)
        return x + ops.matmul(scores, self.v(x))


def keras_tokens():
    tokens = keras.Input((HIGH * WIDE, WIDTH))
    return keras.Model(tokens, Attention()(Attention()(tokens)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x):
        return x + nn.functional.scaled_dot_product_attention(self.q_proj(x), self.k_proj(x), self.v_proj(x))


def shaken(model):
    rng = np.random.default_rng(5)
    for weight in model.weights:
        weight.assign(np.asarray(weight) + rng.normal(0, 0.3, weight.shape))
    return model


def test_a_layer_alone_is_no_model():
    with pytest.raises(lx.LayoutxError, match=r"a model of this layer: .*keras\.Model\(x, layer\(x\)\)"):
        lx.port(L.Dense(5), nn.Linear(3, 5))


def called(model):
    """The layers that hold weights."""
    return [record for record in live_records(model, lambda form: True).layers if record.tensors]


def test_an_attribute_says_which_layer_is_which():
    model, module = shaken(keras_tokens()), nn.Sequential(Block(), Block()).eval()
    report = lx.port(model, module)
    data = np.random.default_rng(0).normal(size=(2, HIGH * WIDE, WIDTH)).astype("float32")
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(data)), model(data), atol=1e-5)
    assert report.end_to_end.agrees
    assert {record.called.split("/", 1)[1] for record in called(model)} == {"v", "parts/k", "parts/q"}


def test_a_name_of_the_users_own_stands_before_the_attribute():
    class Named(L.Layer):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = L.Dense(WIDTH, name="gate"), L.Dense(WIDTH)

        def call(self, x):
            return self.outer(self.inner(x))

    tokens = keras.Input((WIDTH,))
    gate, outer = called(keras.Model(tokens, Named()(tokens)))
    assert gate.name.endswith("/gate")
    assert not gate.called
    assert outer.called.endswith("/outer")


class Stage(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, WIDTH, 3, padding=1)
        self.block = Block()
        self.conv = nn.Conv2d(WIDTH, CHANNELS, 3, padding=1)
        self.head = nn.Linear(CHANNELS * HIGH * WIDE, CLASSES)

    def forward(self, x):
        x = self.block(self.stem(x).flatten(2).transpose(1, 2))
        return self.head(self.conv(x.transpose(1, 2).reshape(-1, WIDTH, HIGH, WIDE)).flatten(1))


def test_a_block_gives_back_the_positions_that_it_adds_to():
    """Tokens that went through attention by hand are a map again: SegFormer, and others that go from stage to stage."""
    picture = keras.Input((HIGH, WIDE, 2))
    tokens = L.Reshape((HIGH * WIDE, WIDTH))(L.Conv2D(WIDTH, 3, padding="same")(picture))
    map_ = L.Reshape((HIGH, WIDE, -1))(Attention()(tokens))
    out = L.Dense(CLASSES)(L.Flatten()(L.Conv2D(CHANNELS, 3, padding="same")(map_)))
    model, module = shaken(keras.Model(picture, out)), Stage().eval()
    lx.port(model, module)
    data = np.random.default_rng(0).normal(size=(2, HIGH, WIDE, 2)).astype("float32")
    with torch.no_grad():
        turned = torch.from_numpy(np.ascontiguousarray(np.moveaxis(data, -1, 1)))
        np.testing.assert_allclose(module(turned), model(data), atol=1e-4)
