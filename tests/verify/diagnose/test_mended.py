"""What a diagnosis says is tried in the target's own run first; orders that nobody tells blame no layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from layoutx.diagnose import diagnose
from layoutx.mended import mended
from layoutx.validate import validate
from layoutx.verify.diagnose.suspect import Diagnosis, Edit, Explanation, Suspect

keras = pytest.importorskip("keras")
SIDE, CHANNELS, GIVEN = 4, 5, 6
RNG = np.random.default_rng(20261123)


class Decoder(nn.Module):
    """A dense layer whose units become a map; `order` of (b, h, w, c)'s axes."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order
        self.dense, self.conv = nn.Linear(GIVEN, SIDE * SIDE * CHANNELS), nn.Conv2d(CHANNELS, 7, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.dense(x)).view(-1, SIDE, SIDE, CHANNELS).permute(*self.order)
        return self.conv(x)


class Encoder(nn.Module):
    """A map cut to its size by a slice of unknown make, and flattened as Keras does it."""

    def __init__(self, average: bool) -> None:
        super().__init__()
        self.average = average
        self.conv, self.dense = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.Linear(2 * 3 * CHANNELS, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pool = F.avg_pool2d if self.average else F.max_pool2d
        x = pool(F.relu(self.conv(x)), 2)[:, :, :2, :3]
        return self.dense(x.permute(0, 2, 3, 1).flatten(1))


def keras_decoder() -> keras.Model:
    layers = keras.layers
    given = keras.Input((GIVEN,))
    x = layers.Dense(SIDE * SIDE * CHANNELS, activation="relu", bias_initializer="glorot_normal", name="dense")(given)
    x = layers.Reshape((SIDE, SIDE, CHANNELS))(x)
    return keras.Model(given, layers.Conv2D(7, 3, padding="same", name="conv")(x))


def keras_encoder() -> keras.Model:
    layers = keras.layers
    given = keras.Input((5, 7, 3))
    x = layers.Conv2D(CHANNELS, 3, padding="same", activation="relu", name="conv")(given)
    x = layers.Flatten()(layers.MaxPooling2D(2)(x))
    return keras.Model(given, layers.Dense(7, name="dense")(x))


def by_hand(source: keras.Model, target: nn.Module) -> None:
    """The weights as people move them: transposed, the rows of flattened maps left where they are."""
    with torch.no_grad():
        for name, axes in (("dense", (1, 0)), ("conv", (3, 2, 0, 1))):
            kernel, bias = source.get_layer(name).get_weights()
            target.get_submodule(name).weight.copy_(torch.from_numpy(kernel.transpose(axes).copy()))
            target.get_submodule(name).bias.copy_(torch.from_numpy(bias))


def test_units_that_become_a_map_of_exchanged_sides_are_told_between_the_layers() -> None:
    source, target = keras_decoder(), Decoder((0, 3, 2, 1)).eval()
    by_hand(source, target)
    found = diagnose(source, target, RNG.normal(size=(5, GIVEN)).astype("float32"))
    assert found.explained
    assert not found.layers
    (gap,) = found.gaps
    assert (gap.gap.before, gap.gap.after) == (("dense",), "conv")
    assert "its axes in the order w h c" in gap.what
    assert gap.code == "x = x.permute(0, 1, 3, 2)"
    target.order = (0, 3, 1, 2)
    assert validate(source, target, RNG.normal(size=(5, GIVEN)).astype("float32")).ok


def test_a_fault_before_a_flatten_does_not_blame_the_dense_behind_it() -> None:
    source, target = keras_encoder(), Encoder(average=True).eval()
    by_hand(source, target)
    given = RNG.normal(size=(5, 5, 7, 3)).astype("float32")
    found = diagnose(source, target, given)
    assert [one.suspect.name for one in found.layers] == []
    (gap,) = found.gaps
    assert (gap.gap.before, gap.gap.after) == (("conv",), "dense")


def pair() -> tuple[nn.Sequential, nn.Sequential]:
    torch.manual_seed(7)
    made = [nn.Sequential(nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 3)).eval() for _ in range(2)]
    made[1].load_state_dict(made[0].state_dict())
    with torch.no_grad():
        made[1][0].weight.copy_(made[0][0].weight.T.clone())
    return made[0], made[1]


def test_a_repair_is_tried_in_the_targets_own_run() -> None:
    source, target = pair()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    found = diagnose(source, target, RNG.normal(size=(5, 7)).astype("float32"))
    assert found.tried is not None
    assert found.tried.ok
    assert found.tried.layers == ("0",)
    assert "Tried: with 0 repaired so, the models compute the same" in str(found)
    assert found.to_dict()["tried"]["ok"]
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_a_keras_target_has_its_own_numbers_again() -> None:
    layers = keras.layers
    source, target = (
        keras.Sequential([keras.Input((7,)), layers.Dense(7, name="a"), layers.Dense(3, name="b")]) for _ in range(2)
    )
    target.set_weights(source.get_weights())
    kernel = source.get_layer("a").get_weights()[0].T
    target.get_layer("a").kernel.assign(kernel)
    found = diagnose(source, target, RNG.normal(size=(5, 7)).astype("float32"))
    assert found.tried is not None
    assert found.tried.ok
    np.testing.assert_array_equal(target.get_layer("a").kernel, kernel)


@pytest.mark.parametrize("apply", [lambda array: -array, lambda array: array * 2])
def test_what_does_not_repair_the_model_is_not_called_certain(apply: Callable[[np.ndarray], np.ndarray]) -> None:
    source, target = pair()
    found = validate(source, target, RNG.normal(size=(5, 7)).astype("float32"))
    (suspect,) = found.suspects()

    def wrong(s: Suspect) -> Suspect:
        return replace(s, stored={**s.stored, "weight": apply(s.stored["weight"])})

    said = Diagnosis(suspect, (Explanation((Edit("F2", "axes", "it is turned", wrong),), 1.0, 0.0, certain=True),), 1)
    tried = mended(found, [said], target, lambda other: validate(source, other, found.fed[0][0]))
    assert tried is not None
    assert not tried.ok
    assert not tried.holds


def test_inputs_of_float64_are_the_same_numbers_for_both_models() -> None:
    layers = keras.layers
    source = keras.Sequential([keras.Input((7,)), layers.Dense(5, name="0"), layers.Dense(3, name="1")])
    target = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)).eval()
    with torch.no_grad():
        for name, own in (("0", target[0]), ("1", target[1])):
            kernel, bias = source.get_layer(name).get_weights()
            own.weight.copy_(torch.from_numpy(1e3 * kernel.T))
            source.get_layer(name).set_weights([1e3 * kernel, bias])
            own.bias.copy_(torch.from_numpy(bias))
    found = validate(source, target, 30 * RNG.normal(size=(5, 7)))
    assert found.ok
    assert found.end_to_end[0].relative is not None
    assert found.end_to_end[0].relative < 1e-12


class Tagger(nn.Module):
    """Two recurrent layers; `first`: whether the first one reads batch before time, as the second does."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 6, batch_first=first)
        self.gru, self.head = nn.GRU(6, 7, batch_first=True), nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(self.lstm(x)[0])[0])


def test_one_recurrent_layer_without_batch_first_is_named_once() -> None:
    source, target = Tagger(True).eval(), Tagger(False).eval()
    target.load_state_dict(source.state_dict())
    found = diagnose(source, target, RNG.normal(size=(4, 9, 5)).astype("float32"))
    (gap,) = found.gaps
    assert (gap.mode, gap.code) == ("F36", "lstm = torch.nn.LSTM(..., batch_first=True)")
    assert [remark for remark in found.remarks if remark.mode == "F36"] == []


class Head(nn.Module):
    """Three dense layers with their activations behind them; Keras has these inside its layers."""

    def __init__(self, first: Callable[[torch.Tensor], torch.Tensor] = torch.tanh) -> None:
        super().__init__()
        self.first = first
        self.a, self.b, self.c = nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(torch.tanh(self.b(self.first(self.a(x))))).softmax(-1)


def keras_head(source: Head) -> keras.Model:
    layers = keras.layers
    acts = {"a": "tanh", "b": "tanh", "c": "softmax"}
    sizes = {"a": 6, "b": 7, "c": 3}
    made = keras.Sequential([keras.Input((5,)), *(layers.Dense(sizes[n], acts[n], name=n) for n in acts)])
    for name in acts:
        own = source.get_submodule(name)
        made.get_layer(name).set_weights([own.weight.detach().numpy().T, own.bias.detach().numpy()])
    return made


def test_an_activation_in_the_targets_own_layers_is_no_fault_behind_another() -> None:
    source = Head().eval()
    target = keras_head(source)
    bias = target.get_layer("a").bias
    bias.assign(bias + 1.0)
    found = diagnose(source, target, RNG.normal(size=(5, 5)).astype("float32"))
    assert [one.suspect.name for one in found.layers] == ["a"]
    assert found.gaps == ()


def test_an_activation_in_the_targets_own_layer_is_told_where_it_is_the_wrong_one() -> None:
    source = Head(torch.relu).eval()
    found = diagnose(source, keras_head(source), RNG.normal(size=(5, 5)).astype("float32"))
    (gap,) = found.gaps
    assert "between a and b the source does: relu; the target does: tanh" in gap.what
