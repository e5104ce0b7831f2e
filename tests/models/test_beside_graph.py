"""Layers that stand beside a graph, or twice below one holder: each is read once, wherever it is held."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")


class Mlp(keras.layers.Layer):
    """As SAM's: its layers in a list, and in the Sequential that it calls."""

    def __init__(self, units: tuple[int, ...], **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.steps = [keras.layers.Dense(n, activation="relu") for n in units]
        self.net = keras.Sequential(self.steps)

    def build(self, shape: tuple[int, ...]) -> None:
        self.net.build(shape)

    def call(self, x: object) -> object:
        return self.net(x)


class Backbone(keras.Model):
    """A functional model that keeps a decoder for others to call (keras_hub.models.SAMBackbone)."""

    def __init__(self, **kwargs: object) -> None:
        decoder = Mlp((11, 13), name="decoder")
        decoder.build((None, 7))
        inputs = keras.Input((5,))
        super().__init__(inputs, Mlp((3, 7), name="encoder")(inputs), **kwargs)
        self.decoder = decoder


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        linear = torch.nn.Linear
        self.encoder = torch.nn.Sequential(linear(5, 3), torch.nn.ReLU(), linear(3, 7), torch.nn.ReLU())
        self.decoder = torch.nn.Sequential(linear(7, 11), torch.nn.ReLU(), linear(11, 13), torch.nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x))


def _whole() -> keras.Model:
    backbone = Backbone(name="backbone")
    inputs = keras.Input((5,))
    return keras.Model(inputs, backbone.decoder(backbone(inputs)))


def test_a_decoder_kept_beside_a_nested_graph_is_ported() -> None:
    model, net = _whole(), Net()
    lx.port(model, net)
    x = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    with torch.no_grad():
        np.testing.assert_allclose(net(torch.from_numpy(x)).numpy(), np.asarray(model(x)), atol=1e-6)


def test_a_decoder_kept_beside_its_own_graph_is_read_layer_by_layer() -> None:
    found = lx.inspect(Backbone())
    assert [layer.class_name for layer in found.layers if layer.tensors] == ["Dense"] * 4
    assert {layer.name.split("/")[0] for layer in found.layers if layer.tensors} == {"encoder", "decoder"}


class Tables(keras.layers.Layer):
    """Two tables of one shape, whose names alone tell them apart (SAM's relative positions)."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.pos_h = self.add_weight(shape=(3, 5), name="pos_h", initializer="normal")
        self.pos_w = self.add_weight(shape=(3, 5), name="pos_w", initializer="normal")

    def call(self, x: object) -> object:
        return keras.ops.matmul(x, self.pos_h) + keras.ops.square(keras.ops.matmul(x, self.pos_w))


class Holder(keras.layers.Layer):
    """A layer in a layer, under names that have little in common with the other model's."""

    def __init__(self, held: keras.layers.Layer, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.held = held

    def call(self, x: object) -> object:
        return self.held(x)


class TorchBlock(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pos_w, self.pos_h = (torch.nn.Parameter(torch.randn(3, 5)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.pos_h + (x @ self.pos_w) ** 2


class TorchTables(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = TorchBlock()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attn(x)


def test_parameters_of_their_own_are_told_apart_by_their_own_names() -> None:
    table = Tables(name="add_relative_positional_embedding")
    inner = Holder(table, name="multi_head_attention_with_bias")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Holder(inner, name="windowed_transformer_encoder")(inputs))
    net = TorchTables()
    lx.port(model, net, compare=False)
    np.testing.assert_array_equal(net.attn.pos_h.detach().numpy(), np.asarray(table.pos_h))
    np.testing.assert_array_equal(net.attn.pos_w.detach().numpy(), np.asarray(table.pos_w))
