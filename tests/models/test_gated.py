"""Gates and tied tables: which factor of a product goes through an activation, and a second table beside the first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError
from layoutx.model.record import Way
from layoutx.model.ways import ACTIVE, GATE, SIGMOID, TIMES, kind_of, passed

torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")
nn, L, F = torch.nn, keras.layers, torch.nn.functional
WIDTH, INNER, VOCAB = 6, 10, 13
RNG = np.random.default_rng(20261122)
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "by hand": lambda x: x * torch.sigmoid(x),
}


def filled(model: Any) -> Any:
    model.set_weights([RNG.normal(size=w.shape) * 0.4 for w in model.get_weights()])
    return model


def gated(activation: str, inside: bool) -> Any:
    """Two gated blocks whose names tell nothing; `inside`: the activation is the Dense's own."""
    name = "silu" if activation == "by hand" else activation
    x = start = keras.Input((WIDTH,))
    for n in range(2):
        left, right = (L.Dense(INNER, name=f"{word}_{n}") for word in ("one", "two"))
        if inside:
            left.activation = keras.activations.get(name)
        y = left(x) if inside else keras.activations.get(name)(left(x))
        x = x + L.Dense(WIDTH, name=f"back_{n}")(y * right(x))
    return filled(keras.Model(start, x))


class Gated(nn.Module):
    """The same; what is gated is defined and read first."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        self.act = ACTIVATIONS[activation]
        self.m, self.n = ([nn.Linear(WIDTH, INNER) for _ in range(2)] for _ in range(2))
        self.blocks = nn.ModuleList([nn.ModuleList(pair) for pair in zip(self.m, self.n, strict=True)])
        self.out = nn.ModuleList([nn.Linear(INNER, WIDTH), nn.Linear(INNER, WIDTH)])

    def forward(self, x: Any) -> Any:
        for (plain, gate), out in zip(self.blocks, self.out, strict=True):
            x = x + out(plain(x) * self.act(gate(x)))
        return x


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_gate_is_told_by_its_activation(activation: str, inside: bool) -> None:
    source, target, back = gated(activation, inside), Gated(activation), gated(activation, inside)
    assert lx.port(source, target).end_to_end.agrees
    assert lx.port(target, back).end_to_end.agrees


def test_two_plain_factors_are_told_by_nothing() -> None:
    with pytest.raises(LayoutxError, match="fits several places"):
        lx.port(gated("linear", False), Gated("silu"), compare=False)


def test_what_a_product_does_to_ways() -> None:
    a, b = (Way("a"),), (Way("b"),)
    assert {kind_of(name) for name in ("SiLU", "gelu", "relu6", "HardSigmoid", "leaky_relu", "tanh")} == {ACTIVE}
    assert {kind_of(name) for name in ("Sigmoid", "logistic")} == {SIGMOID}
    assert {kind_of(name) for name in ("Multiply", "mul")} == {TIMES}
    assert {kind_of(name) for name in ("matmul", "linear", "softmax", "Dense")} == {""}
    active = passed(ACTIVE, [a])
    assert passed(TIMES, [active, b]) == (Way("a", pooled=(GATE,)), Way("b"))
    assert not any(way.active for way in passed(TIMES, [active, b]))
    assert passed(TIMES, [active, passed(ACTIVE, [b])]) == (Way("a"), Way("b"))
    behind = passed(SIGMOID, [b])
    assert passed(TIMES, [active, behind]) == (Way("a"), Way("b", pooled=(GATE,)))  # tanh(a) * sigmoid(b)
    assert passed(TIMES, [passed(SIGMOID, [a]), behind]) == (Way("a"), Way("b"))
    assert passed(TIMES, [active, ()]) == (Way("a"),)  # a constant
    (itself,) = passed(TIMES, [a, active])  # x * sigmoid(x)
    assert itself.active
    assert not itself.pooled


def untied() -> Any:
    tokens = keras.Input((5,), dtype="int32")
    table = L.ReversibleEmbedding(VOCAB, WIDTH, tie_weights=False, name="table")
    y = L.LayerNormalization(name="norm")(table(tokens))
    return filled(keras.Model(tokens, table(y, reverse=True)))


class Untied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.table = nn.Linear(WIDTH, VOCAB, bias=False), nn.Embedding(VOCAB, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-3)

    def forward(self, x: Any) -> Any:
        return self.head(self.norm(self.table(x)))


def test_a_reversible_embedding_with_a_table_of_its_own_for_the_way_back(tmp_path: Path) -> None:
    source, target, back = untied(), Untied(), untied()
    assert lx.port(source, target).end_to_end.agrees
    np.testing.assert_array_equal(
        target.head.weight.detach().numpy(), source.get_layer("table").reverse_embeddings.numpy().T
    )
    assert lx.port(target, back).end_to_end.agrees
    source.save(tmp_path / "untied.keras")
    lx.convert(tmp_path / "untied.keras", tmp_path / "out.safetensors", to="torch", like=Untied())
    again = Untied()
    assert lx.port(tmp_path / "untied.keras", again).end_to_end.agrees
    lx.convert(tmp_path / "out.safetensors", tmp_path / "back.keras", to="keras", like=tmp_path / "untied.keras")
    for one, other in zip(
        source.get_weights(), keras.models.load_model(tmp_path / "back.keras").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
