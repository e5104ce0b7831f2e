"""Weights that no input of a comparison reaches are compared as numbers: equal outputs do not show them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import layoutx as lx

keras = pytest.importorskip("keras")
L = keras.layers
Change = Callable[[Any], None]


def filled(model: Any) -> Any:
    rng = np.random.default_rng(8)
    for weight in model.weights:
        low = "var" in weight.path or "gamma" in weight.path
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) if low else rng.normal(0, 0.5, tuple(weight.shape)))
    return model


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.steps = nn.Embedding(300, 4), nn.LSTM(4, 5, batch_first=True)
        self.mid, self.norm, self.head = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.steps(self.table(ids))[0][:, -1]
        return self.head(self.norm(torch.relu(self.mid(x))))


def words() -> Any:
    made = keras.Input((6,), dtype="int32")
    x = L.LSTM(5, name="steps")(L.Embedding(300, 4, name="table")(made))
    x = L.BatchNormalization(scale=False, epsilon=1e-5, name="norm")(L.Dense(6, activation="relu", name="mid")(x))
    model = filled(keras.Model(made, L.Dense(2, name="head")(x)))
    bias = keras.ops.convert_to_numpy(model.get_layer("mid").bias).copy()
    bias[3] = -50.0  # a unit that gives nothing
    model.get_layer("mid").bias.assign(bias)
    return model


@pytest.fixture(scope="module")
def both() -> tuple[Any, nn.Module]:
    model, module = words(), Words().eval()
    lx.port(model, module)
    return model, module


def changed(module: nn.Module, change: Change) -> nn.Module:
    other = copy.deepcopy(module)
    with torch.no_grad():
        change(other)
    return other


def verdicts(found: Any) -> dict[str, str]:
    return {check.layer: check.verdict for check in found.checks}


@pytest.mark.parametrize(
    ("layer", "change", "said"),
    [
        ("table", lambda m: m.table.weight[291].neg_(), "4 of 1,200 numbers of table"),
        ("mid", lambda m: m.mid.weight[3].neg_(), "5 of 30 numbers of kernel"),
        ("mid", lambda m: m.mid.bias[3].sub_(1.0), "1 of 6 numbers of bias"),
    ],
)
def test_weights_that_no_input_reaches_are_told(
    layer: str, change: Change, said: str, both: tuple[Any, nn.Module]
) -> None:
    model, module = both
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 200, (8, 6)).astype("int32")
    found = lx.validate(model, changed(module, change), ids)
    assert not found.ok
    assert all(check.ok for check in found.end_to_end)  # the outputs are the same
    assert verdicts(found)[layer] == "NOT REACHED"
    assert said in next(check.hidden for check in found.checks if check.layer == layer)
    assert found.first is not None
    text = " ".join(str(found).split())
    assert f"they compute the same on these inputs, which do not reach all weights of {layer}" in text
    assert "The outputs are the same, and the weights are not" in text
    assert found.to_dict()["checks"][0]["hidden"] == found.checks[0].hidden


def test_diagnose_says_which_rows_these_are(both: tuple[Any, nn.Module], tmp_path: Path) -> None:
    model, module = both
    ids = np.random.default_rng(0).integers(0, 200, (8, 6)).astype("int32")

    def change(m: Any) -> None:
        m.table.weight[291].neg_()
        m.table.weight[[207, 230]] = 0.0
        m.mid.bias[3].sub_(1.0)

    found = lx.diagnose(model, changed(module, change), ids)
    assert not found.ok
    assert found.explained
    assert [one["layer"] for one in found.to_dict()["between"]] == ["table", "mid"]
    text = " ".join(str(found).split())
    assert "the numbers of 2 layers differ; explained" in text
    assert "weight of table holds other numbers than the source in 3 of 300 rows (207, 230, 291), which no" in text
    assert "bias of mid holds other numbers than the source in 1 of 6 places (3)" in text
    assert "layoutx port SOURCE TARGET --only table" in text
    page = lx.report(found, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "the numbers of table" in page
    assert "not the source&#x27;s: 12 of 1,200 numbers of table" in page


def moved(module: Any) -> None:
    """The one bias as the other one, which is added to it."""
    module.steps.bias_hh_l0.copy_(module.steps.bias_ih_l0)
    module.steps.bias_ih_l0.zero_()


@pytest.mark.parametrize("change", [lambda m: None, moved])
def test_numbers_that_mean_the_same_are_no_difference(change: Change, both: tuple[Any, nn.Module]) -> None:
    model, module = both
    other = changed(module, change)
    for pair in ((model, other), (other, model)):
        found = lx.validate(*pair)
        assert found.ok, str(found)
        assert set(verdicts(found).values()) == {"OK"}


def test_a_difference_that_inputs_reach_is_none_of_the_weights_alone(both: tuple[Any, nn.Module]) -> None:
    model, module = both
    found = lx.validate(model, changed(module, lambda m: m.mid.weight.neg_()))
    assert verdicts(found)["mid"] == "FAIL"
    assert not any(check.hidden for check in found.checks)
