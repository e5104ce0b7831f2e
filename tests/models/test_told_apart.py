"""Layers of one shape in files without a graph: who is which, in which order they were made, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import layoutx as lx
from layoutx.errors import MatchError, Problems
from layoutx.match import match, place_of
from layoutx.model.load import live_model
from layoutx.model.matching.made import orders_of
from layoutx.spec.registry import registry

keras = pytest.importorskip("keras")
L = keras.layers
HABIT = "where habit alone puts them"
SAID = "Layers of one shape that names, numbers or order alone tell apart"


def filled(model: Any, seed: int = 5) -> Any:
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(0, 0.4, tuple(weight.shape)))
    return model


def heads(*names: str | None) -> Any:
    """A hidden layer and two heads of one shape, as of a variational autoencoder."""
    keras.utils.clear_session()
    made = keras.Input((6,))
    x = L.Dense(5, activation="tanh", name="hidden")(made)
    return filled(keras.Model(made, [L.Dense(3, name=name)(x) for name in names]))


class Heads(nn.Module):
    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.trunk = nn.Linear(6, 5)
        for name in names:
            setattr(self, name, nn.Linear(5, 3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = torch.tanh(self.trunk(x))
        return tuple(getattr(self, name)(x) for name in self.names)


def saved(module: nn.Module, path: Path) -> Path:
    torch.save(module.state_dict(), path)
    return path


def converted(model: Any, module: nn.Module, folder: Path, **more: Any) -> Any:
    model.save(folder / "m.keras")
    return lx.convert(folder / "m.keras", folder / "out.pt", to="torch", like=saved(module, folder / "t.pt"), **more)


def where(report: Any) -> dict[str, str]:
    return {line.name: line.reason.partition(" (")[0] for line in report.layers}


def test_layers_that_habit_alone_tells_apart_are_said(tmp_path: Path) -> None:
    report = converted(heads("left", "right"), Heads("a", "b"), tmp_path)
    assert [list(names) for names in report.alike] == [["left", "right"]]
    assert report.to_dict()["alike"] == [["left", "right"]]
    text = " ".join(str(report).split())
    assert f"every layer computes the same, 2 of 3 {HABIT}" in text
    assert f"{SAID}: left, right." in text
    assert "--pair" in text
    unproved = converted(heads("left", "right"), Heads("a", "b"), tmp_path, verify="bytes")
    assert f"no layer compared, 2 of 3 {HABIT}" in " ".join(str(unproved).split())


def test_the_written_file_says_them_later(tmp_path: Path) -> None:
    report = converted(heads("left", "right"), Heads("a", "b"), tmp_path)
    found = lx.verify_file(tmp_path / "out.pt", tmp_path / "m.keras")
    assert found.ok
    assert [list(names) for names in found.alike] == found.to_dict()["alike"] == [["left", "right"]]
    page = lx.report(report, tmp_path / "page.html").read_text(encoding="utf-8")
    for text in (str(found), str(lx.inspect(tmp_path / "out.pt")), page):
        assert "names, numbers or order alone tell apart: left, right." in " ".join(text.split())
    told = lx.convert(tmp_path / "m.keras", None, to="torch", like=tmp_path / "t.pt", pairs={"left": "a"})
    assert "alike" not in told.certificate()


def test_the_way_back_into_a_template_says_it_too(tmp_path: Path) -> None:
    heads("left", "right").save(tmp_path / "like.keras")
    source = saved(Heads("a", "b"), tmp_path / "t.pt")
    report = lx.convert(source, tmp_path / "o.keras", to="keras", like=tmp_path / "like.keras")
    assert [list(names) for names in report.alike] == [["left", "right"]]


def test_what_the_user_says_is_no_habit(tmp_path: Path) -> None:
    report = converted(heads("left", "right"), Heads("a", "b"), tmp_path, pairs={"left": "b"})
    assert where(report) == {"hidden": "trunk", "left": "b", "right": "a"}
    assert report.alike == ()
    assert HABIT not in str(report)


def test_equal_names_are_no_habit(tmp_path: Path) -> None:
    report = converted(heads("left", "right"), Heads("right", "left"), tmp_path)
    assert where(report) == {"hidden": "trunk", "left": "left", "right": "right"}
    assert report.alike == ()


def test_a_run_of_both_models_tells() -> None:
    model, module = heads("left", "right"), Heads("a", "b").eval()
    report = lx.port(model, module)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees
    assert report.alike == ()
    assert SAID not in str(report)
    untold = lx.port(model, Heads("a", "b").eval(), compare=False)
    assert [list(names) for names in untold.alike] == [["left", "right"]]


def test_match_says_which_layers_could_be_exchanged(tmp_path: Path) -> None:
    heads("left", "right").save(tmp_path / "m.keras")
    found = match(tmp_path / "m.keras", saved(Heads("a", "b"), tmp_path / "t.pt"))
    assert found.alike == (("left", "right"),)
    assert found.to_dict()["alike"] == [["left", "right"]]
    assert f"{SAID}: left, right." in " ".join(str(found).split())


def test_numbers_that_came_back_to_their_names_are_told_apart(tmp_path: Path) -> None:
    model = heads("left", "right")
    converted(model, Heads("a", "b"), tmp_path)
    back = lx.convert(tmp_path / "out.pt", tmp_path / "b.keras", to="keras", like=tmp_path / "m.keras")
    assert back.back is not None
    assert back.back.same == back.back.many == 6
    assert back.alike == ()
    other = lx.convert(
        tmp_path / "out.pt", tmp_path / "c.keras", to="keras", like=tmp_path / "m.keras", pairs={"left": "b"}
    )
    assert other.back is not None
    assert other.back.same == 2  # exchanged, which the original's hashes show


@pytest.mark.parametrize("names", [("fc_logvar", "fc_mu"), ("fc_mu", "fc_logvar"), ("logvar", "mean")])
def test_the_usual_words_for_a_mean_are_one(names: tuple[str, str], tmp_path: Path) -> None:
    report = converted(heads("z_mean", "z_log_var"), Heads(*names), tmp_path)
    assert where(report) == {
        "hidden": "trunk",
        "z_mean": next(n for n in names if "log" not in n),
        "z_log_var": next(n for n in names if "log" in n),
    }


class Deeper(nn.Module):
    """Two heads, of which the second goes on."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        for name, (given, made) in zip(names, [(6, 5), (5, 3), (5, 3), (3, 2)], strict=True):
            setattr(self, name, nn.Linear(given, made))


def deeper(*names: str | None) -> Any:
    """The same: Keras sorts by depth, so that the second head comes before the first in the file."""
    keras.utils.clear_session()
    hidden, short, long, end = names
    made = keras.Input((6,))
    x = L.Dense(5, activation="tanh", name=hidden)(made)
    value = L.Dense(3, name=short)(x)
    x = L.Dense(3, activation="relu", name=long)(x)
    return filled(keras.Model(made, [value, L.Dense(2, name=end)(x)]))


def test_the_order_in_which_keras_counted_its_layers_is_that_in_which_they_were_made(tmp_path: Path) -> None:
    model = deeper(None, None, None, None)
    stored = [layer.name for layer in model.layers if layer.weights]
    assert stored == ["dense", "dense_2", "dense_1", "dense_3"]  # else this says nothing
    report = converted(model, Deeper(["trunk", "value", "mid", "policy"]), tmp_path)
    assert where(report) == {"dense": "trunk", "dense_1": "value", "dense_2": "mid", "dense_3": "policy"}
    assert report.alike
    new = torch.load(tmp_path / "out.pt")
    assert np.array_equal(new["value.weight"].numpy(), model.get_layer("dense_1").kernel.numpy().T)


def test_layers_that_were_made_before_what_feeds_them_stand_as_they_are_called() -> None:
    keras.utils.clear_session()
    made = keras.Input((6,))
    model = filled(keras.Model(made, L.Dense(6)(L.Dense(6)(L.Dense(6)(made)))))
    assert [layer.name for layer in model.layers if layer.weights] == ["dense_2", "dense_1", "dense"]
    found = [orders_of(record_of(model)), orders_of(record_of(deeper(None, None, None, None)))]
    assert [[n for n in own[0] if n.startswith("dense")] for own in found] == [
        ["dense_2", "dense_1", "dense"],
        ["dense", "dense_1", "dense_2", "dense_3"],
    ]


def record_of(model: Any) -> Any:
    return live_model(model, registry())


def test_names_of_the_user_beside_two_orders_that_differ_decide_nothing(tmp_path: Path) -> None:
    model = deeper("base", "worth", "inner", "act")
    assert [layer.name for layer in model.layers if layer.weights] == ["base", "inner", "worth", "act"]
    with pytest.raises((MatchError, Problems)) as error:
        converted(model, Deeper(["trunk", "x", "y", "z"]), tmp_path)
    assert "--pair worth=" in str(error.value)
    assert "--pair inner=" in str(error.value)


class Taken(nn.Module):
    """What one layer gives less what the other gives: both have the same neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 5), nn.Linear(4, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.fc1(x) - self.fc2(x))


def test_the_reason_is_what_told_two_layers_apart_not_what_speaks_for_both() -> None:
    keras.utils.clear_session()
    made = keras.Input((4,))
    model = filled(keras.Model(made, L.Dense(2, name="head")(L.Subtract()([L.Dense(5)(made), L.Dense(5)(made)]))))
    found = match(model, Taken().eval())
    reasons = {pair.source.name: (place_of(pair), pair.reason) for pair in found.joint.pairs}
    assert reasons["dense"] == ("fc1", "numbered in this order")
    assert reasons["dense_1"] == ("fc2", "numbered in this order")
    assert found.alike == (("dense", "dense_1"),)


class Towers(nn.Module):
    """Two towers of one shape, the second defined first, whose outputs are added."""

    def __init__(self) -> None:
        super().__init__()
        self.b, self.a = nn.Linear(6, 5), nn.Linear(6, 5)
        self.out = nn.Linear(5, 2)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.a(first)) + torch.tanh(self.b(second)))


def towers() -> Any:
    keras.utils.clear_session()
    made = [keras.Input((6,), name=name) for name in ("apple", "river")]
    x, y = (L.Dense(5, activation="tanh", name=name)(i) for name, i in zip(("left", "right"), made, strict=True))
    return filled(keras.Model(made, L.Dense(2, name="end")(L.Add()([x, y]))))


def test_towers_that_agree_only_with_their_inputs_exchanged_are_said() -> None:
    for back in (False, True):
        model, module = towers(), Towers().eval()
        report = lx.port(module, model) if back else lx.port(model, module)
        assert report.end_to_end is not None
        assert report.end_to_end.agrees
        assert report.end_to_end.mixed == (1, 0)
        assert [list(names) for names in report.alike] == [["left", "right"]]
        assert "the models compute the same if the target is given inputs 2, 1 in this order (or" in " ".join(
            str(report).split()
        )
    told = lx.port(towers(), Towers().eval(), pairs={"left": "a"})
    assert told.end_to_end is not None
    assert told.end_to_end.mixed == ()
    assert told.alike == ()


class TwoTowers(nn.Module):
    """A recommender's towers, that of the items first; they are compared, so that either could be the other."""

    def __init__(self) -> None:
        super().__init__()
        self.item_tower = nn.Sequential(nn.Embedding(23, 7), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))
        self.user_tower = nn.Sequential(nn.Embedding(23, 7), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        return (self.user_tower(user[:, 0]) * self.item_tower(item[:, 0])).sum(1, keepdim=True)


def recommender() -> Any:
    """The same with tables that have names, and layers that have none."""
    keras.utils.clear_session()
    made = [keras.Input((1,), dtype="int32") for _ in range(2)]
    named = zip(("user_emb", "item_emb"), made, strict=True)
    x, y = (L.Flatten()(L.Embedding(23, 7, name=name)(one)) for name, one in named)
    x, y = (L.Dense(3)(L.Dense(5, activation="relu")(one)) for one in (x, y))
    return filled(keras.Model(made, L.Dot(axes=1)([x, y])))


@pytest.mark.parametrize("back", [False, True])
def test_names_of_tables_speak_for_what_they_feed_before_order_does(back: bool) -> None:
    source, target = recommender(), TwoTowers()
    report = lx.port(target, source, allow={"rounds"}) if back else lx.port(source, target)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees
    assert not report.end_to_end.mixed
    assert report.alike == ()


def test_towers_are_not_mixed_where_nothing_but_their_tables_has_names(tmp_path: Path) -> None:
    with pytest.raises(Problems, match=r"Dense\) fits several places[\s\S]*user_tower\.1"):
        converted(recommender(), TwoTowers(), tmp_path)
