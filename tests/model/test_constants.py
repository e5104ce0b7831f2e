"""What nobody trained is told by what it holds, and needs no place in the other model; the rest of it does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError
from layoutx.files.store import tensor_of
from layoutx.model.constants import constant

T, D = 11, 14


def _waves() -> Any:
    angles = np.arange(T)[:, None] * np.exp(np.arange(0, D, 2) * (-math.log(10000.0) / D))
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(T, D).astype(np.float32)


def _halves() -> Any:
    waves = _waves()
    return np.concatenate([waves[:, 0::2], waves[:, 1::2]], -1)


def _window(side: int) -> Any:
    """torchvision's and timm's, by loops."""
    places = [(y, x) for y in range(side) for x in range(side)]
    return np.array([[(a - c + side - 1) * (2 * side - 1) + b - d + side - 1 for c, d in places] for a, b in places])


@pytest.mark.parametrize(
    "array",
    [
        np.arange(T)[None],
        np.arange(2, T + 2, dtype=np.int32),
        np.zeros((1, T), np.int64),
        np.tril(np.ones((T, T), np.float32)),
        np.tril(np.ones((T, T), np.float32))[None, None],
        np.triu(np.ones((T, T), bool), 1),
        np.triu(np.full((T, T), -np.inf, np.float32), 1),
        np.tril(np.ones((T, T), bool)) ^ np.tril(np.ones((T, T), bool), -3),
        (1 / 10000 ** (np.arange(0, D, 2) / D)).astype(np.float32),
        np.float32(-1e9),
        _waves(),
        _waves()[:, None],
        _halves()[None],
        _window(3),
        _window(4).ravel(),
    ],
)
def test_what_nobody_trained_is_told_by_what_it_holds(array: Any) -> None:
    assert constant(tensor_of("x", np.asarray(array)))


@pytest.mark.parametrize(
    "array",
    [
        np.eye(T, dtype=np.float32),  # a weight may begin so
        np.ones((T, T), np.float32),
        np.zeros((T, D), np.float32),
        np.ones(T, np.float32),
        np.tril(np.random.default_rng(0).normal(size=(T, T))),
        np.tril(np.ones((T, T), np.float32)) + np.eye(T, dtype=np.float32) * 1e-6,
        np.sort(np.random.default_rng(1).uniform(size=7))[::-1],
        np.float32(-10.0),  # SigLIP's logit_bias
        np.random.default_rng(2).permutation(T),
        np.zeros((T, D), np.int8),  # quantised
        _waves() * 1.1,
        np.where(np.arange(T)[:, None] == 5, 0.5, _waves()),
        np.array(0),  # a count of batches
    ],
)
def test_what_may_be_trained_is_not(array: Any) -> None:
    assert constant(tensor_of("x", np.asarray(array))) == ""


def _models() -> tuple[Any, Any]:
    """The same model with masks and positions as buffers, as tutorials have them, and made in its call."""
    import torch
    from torch import nn

    class Made(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(37, D)
            self.attention = nn.MultiheadAttention(D, 2, batch_first=True)
            self.head = nn.Linear(D, 5)

        def made(self, n: int) -> tuple[Any, Any, Any]:
            return torch.triu(torch.ones(n, n), 1).bool(), torch.from_numpy(_waves())[:n], torch.arange(n)

        def forward(self, ids: Any) -> Any:
            mask, waves, places = self.made(ids.shape[1])
            x = self.table(ids) + waves[places]
            return self.head(self.attention(x, x, x, attn_mask=mask)[0])

    class Kept(Made):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.triu(torch.ones(T, T), 1))
            self.register_buffer("pe", torch.from_numpy(_waves())[:, None])
            self.register_buffer("position_ids", torch.arange(T)[None])
            self.attention.register_buffer("bias", torch.tril(torch.ones(T, T))[None, None])

        def made(self, n: int) -> tuple[Any, Any, Any]:
            return self.mask[:n, :n].bool(), self.pe[:, 0], self.position_ids[0, :n]

    torch.manual_seed(7)
    return Kept().eval(), Made().eval()


BUFFERS = {"mask", "pe", "position_ids", "attention.bias"}
IDS = np.random.default_rng(3).integers(0, 37, (3, 7))


@pytest.mark.parametrize("kept_first", [True, False])
def test_buffers_need_no_counterpart(kept_first: bool) -> None:
    source, target = _models() if kept_first else _models()[::-1]
    held = {name: value.clone() for name, value in target.state_dict().items() if name in BUFFERS}
    report = lx.port(source, target, IDS)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees
    assert set(report.leftover) == (BUFFERS if kept_first else set())
    assert report.tensors_used == report.tensors_total
    assert all(value.equal(target.state_dict()[name]) for name, value in held.items())
    assert lx.validate(source, target, IDS).ok
    joint = lx.match(source, target).joint
    assert {**joint.lost, **joint.unused} == {}


def test_a_buffer_that_may_be_trained_needs_one() -> None:
    import torch

    source, target = _models()
    source.register_buffer("shift", torch.randn(D))
    with pytest.raises(LayoutxError, match="shift"):
        lx.port(source, target, IDS)


def test_a_file_gets_the_buffers_of_its_template(tmp_path: Any) -> None:
    """Without them the module would refuse it: load_state_dict is strict."""
    import torch
    from safetensors.torch import load_file, save_file
    from torch import nn

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(5, 7)
            self.register_buffer("tril", torch.tril(torch.ones(T, T)))

    source, template = Small(), Small()
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    save_file(template.state_dict(), tmp_path / "t.safetensors")
    for like in (template, tmp_path / "t.safetensors"):
        lx.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to="torch", like=like)
        template.load_state_dict(load_file(tmp_path / "b.safetensors"))
        assert template.one.weight.equal(source.one.weight)


def test_whole_models_are_compared_although_a_layer_was_left_out() -> None:
    source, target = _models()
    report = lx.port(source, target, IDS, skip=["head"])
    assert report.end_to_end is not None
    assert report.end_to_end.agrees is False
    assert "the whole models do not (head left out)" in str(report).replace("\n", " ")
    target.head.load_state_dict(source.head.state_dict())
    report = lx.port(source, target, IDS, skip=["head"])
    assert report.end_to_end is not None
    assert report.end_to_end.agrees
    assert "the models compute the same (head left out)" in str(report).replace("\n", " ")


def test_a_position_table_is_filled_with_waves() -> None:
    """A model that holds waves gives them to one that has a table in their place."""
    import torch
    from torch import nn

    class Waves(nn.Module):
        def __init__(self, trained: bool) -> None:
            super().__init__()
            self.table = nn.Embedding(37, D)
            if trained:
                self.pos_embed = nn.Parameter(torch.zeros(T, D))
            else:
                self.register_buffer("pos_embed", torch.from_numpy(_waves()))

        def forward(self, ids: Any) -> Any:
            return self.table(ids) + self.pos_embed[: ids.shape[1]]

    target = Waves(True).eval()
    report = lx.port(Waves(False).eval(), target, IDS)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees
    assert np.array_equal(target.pos_embed.detach().numpy(), _waves())


def _typed() -> Any:
    """A model with a table of token types, of which there is one: RoBERTa."""
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.position_embeddings = nn.Embedding(37, D), nn.Embedding(T, D)
            self.token_type_embeddings = nn.Embedding(1, D)
            self.head = nn.Linear(D, 5)

        def forward(self, ids: Any) -> Any:
            x = self.table(ids) + self.position_embeddings(torch.arange(ids.shape[1]))
            return self.head(x + self.token_type_embeddings(torch.zeros_like(ids)))

    return Model().eval()


def _untyped() -> Any:
    import keras

    class PositionEmbedding(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.rows = self.add_weight(shape=(T, D), name="position_embeddings")

        def call(self, x: Any) -> Any:
            return x + self.rows[: x.shape[1]]

    ids = keras.Input((7,), dtype="int32")
    x = PositionEmbedding(name="position_embeddings")(keras.layers.Embedding(37, D, name="table")(ids))
    return keras.Model(ids, keras.layers.Dense(5, name="head")(x))


@pytest.mark.parametrize("typed_first", [True, False])
def test_a_table_of_one_row_needs_no_place_where_it_is_zero(typed_first: bool) -> None:
    import torch

    typed, other = _typed(), _untyped()
    source, target = (typed, other) if typed_first else (other, typed)
    with pytest.raises(LayoutxError, match="set it to zero"):
        lx.port(source, target)
    with torch.no_grad():
        typed.position_embeddings.weight += typed.token_type_embeddings.weight
        typed.token_type_embeddings.weight.zero_()
    end = lx.port(source, target).end_to_end
    assert end is not None
    assert end.agrees


@pytest.mark.parametrize("name", ["pos_embed", "places"])
def test_waves_of_one_model_excuse_no_table_of_the_other(name: str, tmp_path: Any) -> None:
    """A trained table of another length was left out in silence where it was called as the waves are."""
    import torch
    from safetensors.torch import save_file
    from torch import nn

    class Net(nn.Module):
        def __init__(self, name: str, table: Any) -> None:
            super().__init__()
            self.head = nn.Linear(D, 5)
            self.register_parameter(name, nn.Parameter(table))

    save_file(Net("pos_embed", torch.from_numpy(_waves())).state_dict(), tmp_path / "a.safetensors")
    target = Net(name, torch.rand(T + 6, D))
    with pytest.raises(LayoutxError, match="1 tensors of the torch model have no layer"):
        lx.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", to="torch", like=target)
    with pytest.raises(LayoutxError, match="1 tensors of the torch model have no layer"):
        lx.port(tmp_path / "a.safetensors", target)
