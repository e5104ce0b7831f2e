"""Pairs that habit would get wrong: lists called side by side, names against order, gates, a stack of blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layoutx as lx
from layoutx.errors import MatchError, Problems
from layoutx.match import match, place_of
from layoutx.model.matching.habits import side_by_side

keras = pytest.importorskip("keras")
L = keras.layers
RNG = np.random.default_rng(31)


def filled(model: Any) -> Any:
    for weight in model.weights:
        weight.assign(RNG.normal(0, 0.3, tuple(weight.shape)))
    return model


def places(found: Any) -> dict[str, str]:
    return {pair.source.name: place_of(pair) for pair in found.joint.pairs}


def dilated(between: int = 1) -> Any:
    """Filters and gates block by block, and a layer of another width after each block."""
    x = made = keras.Input((None, 4))
    for rate in (1, 2, 4):
        left = L.Conv1D(6 if between else 4, 2, padding="causal", dilation_rate=rate, activation="tanh")(x)
        right = L.Conv1D(6 if between else 4, 2, padding="causal", dilation_rate=rate, activation="sigmoid")(x)
        x = L.Multiply()([left, right])
        x = L.Conv1D(4, 1)(x) if between else x
    return filled(keras.Model(made, L.Conv1D(3, 1)(x)))


class Dilated(nn.Module):
    """The same with a list for each of the three, as WaveNets are mostly written."""

    def __init__(self, between: int = 1) -> None:
        super().__init__()
        width, self.between = 6 if between else 4, between
        self.filters = nn.ModuleList(nn.Conv1d(4, width, 2, dilation=d) for d in (1, 2, 4))
        self.gates = nn.ModuleList(nn.Conv1d(4, width, 2, dilation=d) for d in (1, 2, 4))
        self.mixes = nn.ModuleList(nn.Conv1d(width, 4, 1) for _ in range(3 * between))
        self.head = nn.Conv1d(4, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i, d in enumerate((1, 2, 4)):
            y = F.pad(x, (d, 0))
            x = torch.tanh(self.filters[i](y)) * torch.sigmoid(self.gates[i](y))
            x = self.mixes[i](x) if self.between else x
        return self.head(x)


@pytest.mark.parametrize("between", [0, 1])
@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_lists_called_side_by_side_are_not_told_by_the_order_of_definition(
    between: int, ending: str, tmp_path: Path
) -> None:
    model, path, there = dilated(between), tmp_path / f"m{ending}", tmp_path / "there.pt"
    model.save(path) if ending == ".keras" else model.save_weights(path)
    torch.save(Dilated(between).state_dict(), there)
    with pytest.raises((MatchError, Problems), match="fits several places"):
        lx.convert(path, tmp_path / "out.pt", to="torch", like=there)
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize("between", [0, 1])
def test_a_gate_is_told_from_what_it_gates(between: int) -> None:
    model, module = dilated(between), Dilated(between).eval()
    report = lx.port(model, module)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees
    back = lx.port(module, filled(dilated(between)))
    assert back.end_to_end is not None
    assert back.end_to_end.agrees


def test_numbers_that_leave_some_out_are_those_of_a_sequential() -> None:
    assert side_by_side({"filters.0", "filters.1", "gates.0", "gates.1"})
    assert side_by_side({"block.3.filters.1", "block.3.filters.2", "block.3.gates.1", "block.3.gates.2"})
    assert not side_by_side({"encoder.0", "encoder.2", "decoder.0", "decoder.2"})
    assert not side_by_side({"layers.0.fc", "layers.1.fc", "blocks.0.fc", "blocks.1.fc"})
    assert not side_by_side({"filters.0", "filters.1", "gates.2", "gates.3"})


def tables() -> Any:
    """Tables of one shape, the pair of the deep part first."""
    user, item = (keras.Input((1,), dtype="int32", name=name) for name in ("user", "item"))
    flat = [
        L.Flatten()(L.Embedding(9, 4, name=f"{part}_{name}")(ids))
        for part in ("deep", "wide")
        for name, ids in (("user", user), ("item", item))
    ]
    deep = L.Dense(4)(L.Concatenate()(flat[:2]))
    return filled(keras.Model([user, item], L.Dense(1)(L.Concatenate()([L.Multiply()(flat[2:]), deep]))))


class Tables(nn.Module):
    """The same, the pair of the wide part defined first; one number a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_user_wide, self.embed_item_wide = nn.Embedding(9, 4), nn.Embedding(9, 4)
        self.embed_user_deep, self.embed_item_deep = nn.Embedding(9, 4), nn.Embedding(9, 4)
        self.hidden, self.predict = nn.Linear(8, 4), nn.Linear(8, 1)

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        user, item = user.squeeze(-1), item.squeeze(-1)
        wide = self.embed_user_wide(user) * self.embed_item_wide(item)
        deep = self.hidden(torch.cat([self.embed_user_deep(user), self.embed_item_deep(item)], -1))
        return self.predict(torch.cat([wide, deep], -1)).squeeze(-1)


def test_names_that_contradict_the_order_are_not_overruled_by_it(tmp_path: Path) -> None:
    model, there = tables(), tmp_path / "there.pt"
    model.save(tmp_path / "m.keras")
    torch.save(Tables().state_dict(), there)
    found = places(match(tmp_path / "m.keras", there))
    assert {name: place for name, place in found.items() if "_" in name and "dense" not in name} == {
        "deep_user": "embed_user_deep",
        "deep_item": "embed_item_deep",
        "wide_user": "embed_user_wide",
        "wide_item": "embed_item_wide",
    }


def test_one_output_a_sample_is_the_same_with_and_without_its_axis() -> None:
    report = lx.port(tables(), Tables())
    assert report.end_to_end is not None
    assert report.end_to_end.agrees
    assert "outputs of shapes (3, 1) and (3,)" in report.end_to_end.note


def test_one_pair_of_equal_numbers_is_no_series(tmp_path: Path) -> None:
    x = made = keras.Input((None, 3))
    for i in range(2):
        x = L.TimeDistributed(L.Dense(5, activation="relu"), name=f"steps_{i}")(x)
    x = L.Dense(5, name="dense_2")(L.GlobalAveragePooling1D()(x))
    filled(keras.Model(made, L.Dense(1, name="dense_3")(x))).save(tmp_path / "m.keras")
    module = nn.Module()
    module.phi = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU())
    module.rho = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 1))
    torch.save(module.state_dict(), tmp_path / "there.pt")
    found = places(match(tmp_path / "m.keras", tmp_path / "there.pt"))
    assert found == {"steps_0": "phi.0", "steps_1": "phi.2", "dense_2": "rho.0", "dense_3": "rho.1"}


class Block(L.Layer):
    """Attention and two Dense layers, each with its sum and its norm."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.attention = L.MultiHeadAttention(2, 4)
        self.feed = keras.Sequential([L.Dense(11, activation="relu"), L.Dense(8)])
        self.norm1, self.norm2 = L.LayerNormalization(epsilon=1e-5), L.LayerNormalization(epsilon=1e-5)

    def call(self, x: Any) -> Any:
        x = self.norm1(x + self.attention(x, x))
        return self.norm2(x + self.feed(x))


class Words(L.Layer):
    """A table of words and one of places, added."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.words, self.places = L.Embedding(13, 8), L.Embedding(6, 8)

    def call(self, ids: Any) -> Any:
        return self.words(ids) + self.places(keras.ops.arange(6))


class Encoder(nn.Module):
    """torch's own stack of such blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, 6, 8))
        self.table = nn.Embedding(13, 8)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 11, batch_first=True), 3)
        self.head = nn.Linear(8, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.table(ids) + self.place).mean(1))


def encoder() -> Any:
    made = keras.Input((6,), dtype="int32")
    x = Words()(made)
    for _ in range(3):
        x = Block()(x)
    return filled(keras.Model(made, L.Dense(2)(L.GlobalAveragePooling1D()(x))))


def test_a_stack_of_torchs_own_is_opened_into_its_layers() -> None:
    model, module = encoder(), Encoder().eval()
    for source, target in ((model, module), (module, filled(encoder()))):
        report = lx.port(source, target)
        assert report.end_to_end is not None
        assert report.end_to_end.agrees, report.end_to_end.note


class Shared(nn.Module):
    """Layers under two names: as attributes, and in the Sequential that runs them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 5)
        self.net = nn.Sequential(self.first, nn.ReLU(), self.second)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def test_a_torch_file_says_which_names_are_one_tensor(tmp_path: Path) -> None:
    model = filled(keras.Sequential([keras.Input((3,)), L.Dense(5, activation="relu"), L.Dense(5)]))
    model.save(tmp_path / "m.keras")
    torch.save(Shared().state_dict(), tmp_path / "there.pt")
    lx.convert(tmp_path / "m.keras", tmp_path / "out.pt", to="torch", like=tmp_path / "there.pt")
    assert lx.port(model, Shared()).end_to_end.agrees
    module, x = Shared(), RNG.normal(size=(4, 3)).astype("float32")
    module.load_state_dict(torch.load(tmp_path / "out.pt"))
    expected = np.asarray(model(x))
    assert np.abs(module(torch.from_numpy(x)).detach().numpy() - expected).max() < 1e-5
    torch.save(module.state_dict(), tmp_path / "here.pt")
    lx.convert(tmp_path / "here.pt", tmp_path / "back.keras", to="keras", like=tmp_path / "m.keras")
    assert np.array_equal(np.asarray(keras.models.load_model(tmp_path / "back.keras")(x)), expected)


def test_a_tied_head_needs_no_layer_of_its_own() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.mix, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.head(self.mix(self.table(ids)))

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.mix = L.Embedding(7, 4), L.Dense(4)

        def call(self, ids: Any) -> Any:
            return keras.ops.matmul(self.mix(self.table(ids)), keras.ops.transpose(self.table.embeddings))

    model = Model()
    model(np.zeros((1, 5), "int32"))
    for source, target in ((filled(model), Tied()), (Tied(), model)):
        report = lx.port(source, target)
        assert report.end_to_end is not None
        assert report.end_to_end.agrees, report.end_to_end.note
