"""Live Keras models of the user's own classes: their layers are opened, their wiring is not guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
nn = torch.nn
L = keras.layers
RNG = np.random.default_rng(5)
TOKENS = np.array([[3, 4, 5, 9, 8], [1, 2, 3, 4, 5], [7, 6, 11, 2, 4]], "int32")


def filled(model: Any) -> Any:
    for weight in model.weights:
        weight.assign(RNG.normal(size=tuple(weight.shape)) * 0.4)
    return model


class Block(L.Layer):
    """A layer of the user's own class, which holds two of Keras'."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.norm, self.dense = L.LayerNormalization(name="norm"), L.Dense(7, name="dense")

    def call(self, x: Any) -> Any:
        return x + self.dense(self.norm(x))


class TorchBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dense = nn.LayerNorm(7, eps=1e-3), nn.Linear(7, 7)

    def forward(self, x: Any) -> Any:
        return x + self.dense(self.norm(x))


def test_layers_inside_a_layer_of_another_class() -> None:
    tokens = keras.Input((6,), dtype="int32")
    y = Block(name="block")(L.Embedding(23, 7, name="embed")(tokens))
    source = filled(keras.Model(tokens, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(y))))

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.block, self.head = nn.Embedding(23, 7), TorchBlock(), nn.Linear(7, 3)

        def forward(self, x: Any) -> Any:
            return self.head(self.block(self.embed(x)).mean(1))

    target = Whole()
    assert lx.port(source, target).end_to_end.agrees
    assert lx.validate(source, target).ok


class Subclass(keras.Model):
    """A model whose config names no layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = L.Embedding(23, 7, name="embed"), L.Bidirectional(L.LSTM(5), name="rnn")
        self.blocks, self.head = [L.Dense(10, name="b0"), L.Dense(10, name="b1")], L.Dense(3, name="head")

    def call(self, x: Any) -> Any:
        x = self.rnn(self.embed(x))
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class TorchSubclass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(23, 7), nn.LSTM(7, 5, batch_first=True, bidirectional=True)
        self.b0, self.b1, self.head = nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 3)

    def forward(self, x: Any) -> Any:
        h = self.rnn(self.embed(x))[1][0]
        return self.head(self.b1(self.b0(torch.cat([h[0], h[1]], -1))))


def test_a_subclassed_model_is_ported_both_ways() -> None:
    source, target = Subclass(), TorchSubclass()
    source(TOKENS)
    filled(source)
    assert lx.port(source, target, inputs=TOKENS).end_to_end.agrees
    assert lx.validate(source, target, [TOKENS]).ok
    back = Subclass()
    back(TOKENS)
    assert lx.port(target, back, inputs=TOKENS, allow={"rounds"}).end_to_end.agrees


def test_weights_of_the_subclass_itself_are_listed() -> None:
    class Scaled(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = L.Dense(3, name="dense")
            self.scale = self.add_weight(shape=(3,), name="scale", initializer="ones")

        def call(self, x: Any) -> Any:
            return self.dense(x) * self.scale

    source = Scaled()
    source(np.zeros((1, 4), "float32"))
    with pytest.raises(LayoutxError, match="scale"):
        lx.port(source, nn.ModuleDict({"dense": nn.Linear(4, 3)}))


def test_a_class_that_is_only_called_dense() -> None:
    class Dense(L.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(4, 4), name="kernel")
            self.bias = self.add_weight(shape=(4,), name="bias")

        def call(self, x: Any) -> Any:
            return x @ keras.ops.transpose(self.kernel) + self.bias

    class Odd(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = Dense(name="dense")

        def call(self, x: Any) -> Any:
            return self.dense(x)

    source = Odd()
    source(np.zeros((1, 4), "float32"))
    with pytest.raises(LayoutxError, match="no form"):
        lx.port(source, nn.ModuleDict({"dense": nn.Linear(4, 4)}))
