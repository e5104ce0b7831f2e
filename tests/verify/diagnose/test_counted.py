"""Ids counted from elsewhere, steps at zero, a softmax over the wrong axis, and branches laid side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable

import keras
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layoutx.diagnose import diagnose
from layoutx.diagnosis import WholeDiagnosis

ROWS, WIDTH, STEPS, OUT = 23, 6, 9, 5
RNG = np.random.default_rng(20261123)


class Tagger(nn.Module):
    """Ids looked up and classified; `way` is what its author does wrong."""

    def __init__(self, way: str = "") -> None:
        super().__init__()
        self.way = way
        self.words, self.mid, self.head = nn.Embedding(ROWS, WIDTH), nn.Linear(WIDTH, 7), nn.Linear(7, OUT)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words((ids + 2).clamp(max=ROWS - 1) if self.way == "shift" else ids)
        x = x * (ids != 3)[..., None] if self.way == "mask" else x
        x = self.head(torch.tanh(self.mid(x)))
        return x.softmax({"steps": 1, "samples": 0}.get(self.way, -1))


class Net(nn.Module):
    """A map that is halved, enlarged again, and laid beside what it was."""

    def __init__(self, enlarge: Callable[[torch.Tensor], torch.Tensor], last: bool = True) -> None:
        super().__init__()
        self.enlarge, self.last = enlarge, last
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        self.c = nn.Conv2d(9, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = F.relu(self.a(x))
        b = self.enlarge(F.relu(self.b(F.max_pool2d(a, 2))))
        return self.c(torch.cat([a, b] if self.last else [b, a], 1))


def told(source: nn.Module, target: nn.Module, given: np.ndarray) -> WholeDiagnosis:
    target.load_state_dict(copy.deepcopy(source.state_dict()))
    return diagnose(source.eval(), target.eval(), given)


@pytest.mark.parametrize(
    ("way", "what"),
    [
        ("shift", "its ids are 2 more than the source's"),
        ("mask", "the target sets"),
        ("steps", "the target does: softmax over the steps"),
        ("samples", "the target does: softmax over the samples"),
    ],
)
def test_what_people_do_to_ids_steps_and_axes(way: str, what: str) -> None:
    ids = RNG.integers(0, ROWS, (4, STEPS))
    ids[0, 0] = 3
    found = told(Tagger(), Tagger(way), ids)
    (gap,) = found.gaps
    assert what in gap.what
    assert found.explained


def bilinear(aligned: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=aligned)


@pytest.mark.parametrize(
    ("enlarge", "last", "what", "mode"),
    [
        (bilinear(True), True, "(relu of what a gives), (relu, bilinear, aligned corners of b) side by side", "F28"),
        (bilinear(False), False, "(relu, bilinear, half-pixel centres of b), (relu of what a gives) side by side", ""),
    ],
)
def test_branches_of_maps_of_different_sizes(enlarge: object, last: bool, what: str, mode: str) -> None:
    found = told(Net(bilinear(False)), Net(enlarge, last), RNG.normal(size=(3, 3, 8, 6)).astype("float32"))
    (gap,) = found.gaps
    assert gap.mode == mode
    assert what in gap.what
    assert gap.after < 1e-9


def test_maps_that_are_the_outputs_of_a_channels_first_source() -> None:
    source = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)).eval()
    layers = keras.layers
    given = keras.Input((7, 9, 3))
    x = layers.Conv2D(4, 3, name="0")(given)
    target = keras.Model(given, layers.Conv2D(2, 1, activation="sigmoid", name="1")(x))
    for name in ("0", "1"):
        own = source.get_submodule(name)
        kernel = own.weight.detach().numpy().transpose(2, 3, 1, 0)
        target.get_layer(name).set_weights([kernel, own.bias.detach().numpy()])
    (gap,) = diagnose(source, target, RNG.normal(size=(3, 3, 7, 9)).astype("float32")).gaps
    assert "the source does: nothing; the target does: sigmoid" in gap.what


class Clip(nn.Module):
    """Two towers; a temperature and a factor that only the model's own code uses."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(7, 5), nn.Linear(6, 5)
        self.logit_scale, self.factors = nn.Parameter(torch.tensor(2.6592)), nn.Parameter(torch.rand(5) + 0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = F.normalize(self.left(x[:, :7]) * self.factors, dim=-1)
        return self.logit_scale.exp() * a @ F.normalize(self.right(x[:, 7:]), dim=-1).T


@pytest.mark.parametrize("name", ["logit_scale", "factors"])
def test_a_parameter_of_ones_own_that_was_not_loaded(name: str) -> None:
    source = Clip().eval()
    target = copy.deepcopy(source)
    with torch.no_grad():
        getattr(target, name).fill_(1.0)
    found = diagnose(source, target, RNG.normal(size=(4, 13)).astype("float32"))
    (told,) = found.gaps
    assert (told.layer, told.mode) == (name, "F13")
    assert told.after < 1e-9
    assert torch.equal(getattr(target, name), torch.ones_like(getattr(target, name)))


class Normed(nn.Module):
    """`called`: whether the norm, which is made and loaded, is called too."""

    def __init__(self, called: bool) -> None:
        super().__init__()
        self.called = called
        self.a, self.norm, self.b = nn.Linear(7, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.a(x))
        return self.b(self.norm(x) if self.called else x)


def test_a_layer_that_the_target_holds_and_never_calls() -> None:
    source = Normed(True)
    with torch.no_grad():
        source.norm.weight.uniform_(0.5, 2.0)
    found = told(source, Normed(False), RNG.normal(size=(4, 7)).astype("float32"))
    (gap,) = found.gaps
    assert "The target has norm, and never calls it" in gap.what
    assert gap.mode == "F14"
    note = next(check.note for check in found.validation.checks if check.layer == "norm")
    assert "its own run does not call it" in note


class Pair(nn.Module):
    """Two tables of one shape; `turned`: each is given the other's ids."""

    def __init__(self, turned: bool) -> None:
        super().__init__()
        self.turned = turned
        self.user, self.item, self.head = nn.Embedding(ROWS, 5), nn.Embedding(ROWS, 5), nn.Linear(10, 3)

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> torch.Tensor:
        first, second = (item, user) if self.turned else (user, item)
        return self.head(torch.cat([self.user(first), self.item(second)], -1))


def test_inputs_that_are_read_in_another_order() -> None:
    source, target = Pair(False).eval(), Pair(True).eval()
    target.load_state_dict(source.state_dict())
    found = diagnose(source, target, [RNG.integers(0, ROWS, 11) for _ in range(2)])
    assert found.gaps[0].what == "the target reads input 1 at user, where the source reads input 0"
    assert found.explained


def test_a_plain_sum_of_rounded_numbers_is_no_multiple() -> None:
    from layoutx.verify.diagnose.formula import formula

    one, other = (RNG.normal(size=(5, 7, 3)) for _ in range(2))
    goal = (one + other).astype("float32").astype("float64")
    found, _ = formula(goal, {"one": one, "other": other})
    assert found is not None
    assert found.words == "one added to other"
