"""Pairings proposed over the whole model: by values, wiring, names, numbers and order; ties are told, never broken."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch_models
from keras_models import built, precision, trained
from torch import nn
from torch_resnet import ResNet50

from layoutx.convert import convert
from layoutx.errors import LayoutxError, UsageError
from layoutx.match import Match, match, place_of
from layoutx.port import port


def places(found: Match) -> dict[str, str]:
    """Layer -> its counterpart."""
    return {pair.source.name: place_of(pair) for pair in found.joint.pairs}


def accounted(found: Match, source: set[str], target: set[str]) -> None:
    """Every layer of the source and every tensor of the target stands in exactly one list."""
    joint = found.joint
    lists = [[p.source.name for p in joint.pairs], list(joint.open), list(joint.lost), list(joint.skipped)]
    named = [name for own in lists for name in own]
    assert sorted(named) == sorted(source)
    taken = [t.name for p in joint.pairs for t in p.target.tensors.values()]
    assert sorted([*taken, *joint.unused]) == sorted(target)


def squares(count: int, bias: str = "normal") -> Any:
    """Equal square Dense layers with other names, and other numbers, each."""
    import keras

    with precision(keras, "float64"):
        layers = [keras.layers.Dense(5, bias_initializer=bias, name=f"k{chr(97 + i)}") for i in range(count)]
        return keras.Sequential([keras.Input((5,)), *layers])


class Shuffled(nn.Module):
    """As many Linear modules, defined in a random order under names that say nothing; no trace, no order."""

    def __init__(self, count: int, seed: int = 3) -> None:
        super().__init__()
        order = np.random.default_rng(seed).permutation(count)
        self.names = {int(i): f"m{chr(97 + at)}" for at, i in enumerate(order)}
        for i in order:
            self.add_module(self.names[int(i)], nn.Linear(5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.isnan().any()):
            return x
        for i in range(len(self.names)):
            x = self.get_submodule(self.names[i])(x)
        return x


def filled(model: Any, module: nn.Module, names: dict[int, str], only: str = "") -> None:
    """The module's counterpart of each layer gets its numbers, transposed as torch keeps them."""
    with torch.no_grad():
        for i, layer in enumerate(model.layers):
            kernel, bias = (torch.from_numpy(np.array(w)) for w in layer.get_weights())
            one = module.get_submodule(names[i])
            if only != "bias":
                one.weight.copy_(kernel.T)
            if only != "kernel":
                one.bias.copy_(bias)


def sorted_file(module: nn.Module, tmp_path: Any) -> Any:
    """Its state dict as the safetensors library writes it: sorted by name."""
    from safetensors.torch import save_file

    save_file(module.state_dict(), tmp_path / "sorted.safetensors")
    return tmp_path / "sorted.safetensors"


@pytest.mark.parametrize("only", ["", "kernel", "bias"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_twenty_squares_are_told_apart_by_their_numbers(only: str, dtype: str, tmp_path: Any) -> None:
    """A bias that was summed or trained on, or a kernel of which that is so, leaves the other's evidence whole."""
    model, module = squares(20), Shuffled(20).to(getattr(torch, dtype))
    filled(model, module, module.names, only)
    for given in (module, sorted_file(module, tmp_path)):
        found = match(model, given)
        assert places(found) == {f"k{chr(97 + i)}": name for i, name in module.names.items()}
        assert {pair.reason.partition(" in ")[0] for pair in found.joint.pairs} == {"the same numbers"}
        assert min(pair.confidence for pair in found.joint.pairs) >= 0.99


def test_twenty_squares_without_order_are_all_ambiguous(tmp_path: Any) -> None:
    model, module = squares(20), Shuffled(20)
    found = match(model, sorted_file(module, tmp_path))
    assert found.joint.pairs == ()
    assert set(found.joint.open) == {layer.name for layer in model.layers}
    assert all(set(own) == set(module.names.values()) for own in found.joint.open.values())
    accounted(found, {layer.name for layer in model.layers}, set(module.state_dict()))
    pairs = {"ka": module.names[0], "kb": module.names[1]}
    with pytest.raises(LayoutxError, match="fits several places"):
        convert(model, to="torch", like=sorted_file(module, tmp_path), pairs=pairs)
    with pytest.raises(LayoutxError, match=f"no place is left for kb (.|\n)*it fits {module.names[0]} .ka."):
        port(model, module, pairs={"ka": module.names[0], "kb": module.names[0]})


def test_equal_numbers_twice_decide_nothing_between_the_two(tmp_path: Any) -> None:
    model, module = squares(4), Shuffled(4).double()
    model.layers[2].set_weights(model.layers[1].get_weights())
    filled(model, module, module.names)
    found = match(model, sorted_file(module, tmp_path))
    assert set(places(found)) == {"ka", "kd"}
    assert set(found.joint.open) == {"kb", "kc"}
    assert set(found.joint.open["kb"]) == {module.names[1], module.names[2]}


def test_fresh_zeros_are_no_evidence(tmp_path: Any) -> None:
    model, module = squares(3, bias="zeros"), Shuffled(3).double()
    with torch.no_grad():
        for name in module.names.values():
            module.get_submodule(name).bias.zero_()
    assert set(match(model, sorted_file(module, tmp_path)).joint.open) == {"ka", "kb", "kc"}


class Chain(nn.Module):
    """The same, traced: its calls tell who feeds whom."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        for i in reversed(range(count)):
            self.add_module(f"m{chr(97 + (i * 7) % count)}", nn.Linear(5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(self.count):
            x = torch.relu(self.get_submodule(f"m{chr(97 + (i * 7) % self.count)}")(x))
        return x


def test_twenty_squares_are_told_apart_by_their_wiring() -> None:
    found = match(squares(20), Chain(20))
    assert places(found) == {f"k{chr(97 + i)}": f"m{chr(97 + (i * 7) % 20)}" for i in range(20)}


def test_other_counts_leave_what_is_over(tmp_path: Any) -> None:
    """Three layers for four places, and four for three: nothing is squeezed in."""
    for layers, modules in ((3, 4), (4, 3)):
        model, module = squares(layers), Shuffled(modules)
        found = match(model, sorted_file(module, tmp_path))
        assert found.joint.pairs == ()
        assert len(found.joint.open) == layers
        accounted(found, {layer.name for layer in model.layers}, set(module.state_dict()))
    model, module = squares(4), Shuffled(3).double()
    filled(model_of(model, 3), module, module.names)
    found = match(model, module)
    assert len(found.joint.pairs) == 3
    assert "no place is left for kd" in found.joint.lost["kd"]


def model_of(model: Any, count: int) -> Any:
    """The first layers of a model."""

    class First:
        layers = model.layers[:count]

    return First()


@pytest.mark.parametrize("shift", [0, 1, 5])
def test_numbers_count_from_wherever_they_start(shift: int, tmp_path: Any) -> None:
    """Keras: dense, dense_1, ...; torch: fc1, fc2: equal numbers are not the same layers."""
    import keras

    model = keras.Sequential(
        [keras.Input((5,)), *(keras.layers.Dense(5, name=f"d_{i}" if i else "d") for i in range(4))]
    )
    module = nn.ModuleDict({f"d{i + shift}": nn.Linear(5, 5) for i in reversed(range(4))})
    found = match(model, sorted_file(module, tmp_path))
    assert places(found) == {f"d_{i}" if i else "d": f"d{i + shift}" for i in range(4)}


def test_a_series_of_other_length_is_not_guessed(tmp_path: Any) -> None:
    import keras

    model = keras.Sequential([keras.Input((5,)), *(keras.layers.Dense(5, name=f"d_{i}") for i in range(1, 4))])
    module = nn.ModuleDict({f"fc{i}": nn.Linear(5, 5) for i in range(1, 6)})
    assert len(match(model, sorted_file(module, tmp_path)).joint.open) == 3


@pytest.fixture(scope="module")
def resnet() -> Any:
    import keras

    model = keras.applications.ResNet50(weights=None, classes=7, input_shape=(32, 32, 3))
    rng = np.random.default_rng(11)
    model.set_weights([rng.normal(1, 0.2, w.shape).astype("float32") for w in model.get_weights()])
    return model


@pytest.mark.parametrize(("names", "traced"), [("torch", False), ("torch", True), ("none", True)])
def test_resnet50(resnet: Any, names: str, traced: bool) -> None:
    module = ResNet50(7, names, traced)
    began = time.process_time()
    found = match(resnet, module)
    took = time.process_time() - began
    wanted = {layer.name: module.counterpart(layer.name) for layer in resnet.layers if layer.weights}
    assert places(found) == wanted
    assert len(wanted) == 107
    assert found.complete
    assert took < 5  # of the processor: other programs do not count; scripts/bench_match.py measures it
    assert found.seconds > 0


def test_resnet50_without_any_evidence_is_not_guessed(resnet: Any, tmp_path: Any) -> None:
    """Its state dict alone; the module itself is run, which tells its wiring."""
    module = ResNet50(7, "none", traced=False)
    live = match(resnet, module)
    assert len(live.joint.pairs) == 107
    assert all(place == module.counterpart(name) for name, place in places(live).items())
    torch.save(module.state_dict(), tmp_path / "m.pt")
    found = match(resnet, tmp_path / "m.pt")
    assert found.joint.open
    assert all(place == module.counterpart(name) for name, place in places(found).items())


@pytest.mark.parametrize("name", ["stacked_gru", "bilstm", "separable", "transformer"])
def test_many_to_one_and_back(name: str) -> None:
    """Two GRUs to one stacked module, both directions in one, one layer to two convolutions, packed projections."""
    model, module = trained(name), torch_models.MODELS[name]().double()
    found = match(model, module)
    layers = {layer.name for layer in model.layers if layer.weights}
    accounted(found, layers, set(module.state_dict()))
    assert not found.joint.open
    assert not found.joint.lost
    if name == "stacked_gru":
        assert set(places(found).values()) >= {"rnn/layer_0", "rnn/layer_1"}
    back = match(module, model)
    assert not back.joint.lost
    assert {p.target.name for p in back.joint.pairs} == layers


@pytest.mark.parametrize("name", ["cnn", "two_inputs", "transformer"])
def test_one_framework_to_itself(name: str) -> None:
    """Keras to Keras by configs, torch to torch by the numbers."""
    found = match(trained(name), built(name))
    assert all(pair.source.name == pair.target.name for pair in found.joint.pairs)
    assert all(pair.plan is not None for pair in found.joint.pairs)
    assert found.complete
    module, other = (torch_models.MODELS[name]().double() for _ in range(2))
    other.load_state_dict(module.state_dict())
    found = match(module, other)
    assert all(pair.source.name == pair.target.name for pair in found.joint.pairs)
    assert found.complete
    assert {pair.reason for pair in found.joint.pairs} <= {"the same numbers", "same name"}  # of fresh norms


def test_torch_to_torch_under_other_names_is_ported() -> None:
    torch.manual_seed(5)
    module = torch_models.Cnn().double()
    other = torch_models.Cnn().double()
    other.start, other.first = other.first, None
    other.forward = lambda x: x  # type: ignore[method-assign]
    del other.first
    port(module, other, compare=False, live=False)
    torch.testing.assert_close(other.start.weight, module.first.weight, rtol=0, atol=0)


def test_what_the_user_says_stands() -> None:
    model, module = squares(2), Shuffled(2)
    found = match(model, module, pairs={"ka": "mb"})
    assert places(found)["ka"] == "mb"
    assert found.joint.pairs[0].reason == "paired by the user"
    with pytest.raises(UsageError, match="--pair names no layer: kx"):
        match(model, module, pairs={"kx": "mb"})


def test_margins_and_overlaps() -> None:
    """The assignment is the best of all, and its margins are what every other one loses; checked by trying them all."""
    from itertools import permutations

    from layoutx.model.matching.assignment import PLACED, assigned

    rng = np.random.default_rng(7)
    for rows, columns in ((3, 3), (4, 5), (5, 3)):
        score = rng.normal(size=(rows, columns))
        score[rng.random(score.shape) < 0.3] = -np.inf
        matched, margins = assigned(score)
        ways: list[tuple[float, tuple[int, ...]]] = []
        for way in set(permutations([*range(columns), *[-1] * rows], rows)):
            worth = sum(score[i, c] + PLACED if c >= 0 else 0.0 for i, c in enumerate(way))
            if np.isfinite(worth):
                ways.append((worth, way))
        best = max(ways)
        assert tuple(matched) == best[1]
        for i, margin in enumerate(margins):
            other = max((worth for worth, way in ways if way[i] != best[1][i]), default=-np.inf)
            np.testing.assert_allclose(margin, best[0] - other, atol=1e-6)
    alone = np.array([[1.0, 0.5], [0.9, 0.8]])
    assert assigned(alone)[0] == [0, 1]
    assert sorted(assigned(alone, [(0, 1)])[0]) == [-1, 0]


def test_orders_force_only_what_is_in_every_alignment() -> None:
    from layoutx.model.matching.sequence import forced

    assert forced([{0: 1.0, 1: 1.0}, {0: 1.0, 1: 1.0}]) == ({0: 0, 1: 1}, True)
    assert forced([{0: 1.0, 1: 1.0, 2: 1.0}, {0: 1.0, 1: 1.0, 2: 1.0}]) == ({}, True)
    assert forced([{1: 1.0}, {0: 1.0}])[1] is False
    rows = [{i: 1.0} for i in range(9)]
    assert forced(rows) == ({i: i for i in range(9)}, True)
    assert all(a < b for a, b in pairwise(forced(rows)[0].values()))


def test_two_layers_in_a_row_are_no_two_of_three() -> None:
    """The first and the last of three fit by the model's ends, and any other two as well: nothing is chosen."""
    import keras

    with precision(keras, "float32"):
        layers = [keras.layers.Dense(5, "relu", name="p"), keras.layers.Dense(5, name="q")]
        model = keras.Sequential([keras.Input((5,)), *layers])
    three = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    found = match(model, three).joint
    assert not found.pairs
    assert set(found.open) == {"p", "q"}


class Counted(nn.Module):
    """Layers of one shape that are numbered backwards, defined in any order; only a run tells the order of calls."""

    def __init__(self, order: tuple[int, ...], names: dict[int, str], asks: bool = True) -> None:
        super().__init__()
        self.names, self.asks = names, asks
        for i in order:
            self.add_module(names[i], nn.Linear(5, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(len(self.names)):
            if self.asks and bool(x.isnan().any()):  # a tracer cannot follow this
                break
            x = torch.tanh(self.get_submodule(self.names[i])(x))
        return x


BACKWARDS = {i: f"fc{5 - i}" for i in range(5)}


def tanhs(count: int) -> Any:
    import keras

    layers = [keras.layers.Dense(5, activation="tanh", name=f"d_{i}") for i in range(count)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("asks", [True, False])
def test_numbers_that_count_backwards_are_seen_in_a_run(asks: bool) -> None:
    model, module = tanhs(5), Counted((2, 0, 4, 1, 3), BACKWARDS, asks).double()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = match(model, module)
    assert places(found) == {f"d_{i}": BACKWARDS[i] for i in range(5)}
    assert {pair.reason for pair in found.joint.pairs} <= {"wired alike", "the only place that fits"}
    assert module.training
    assert all((before[n] == v).all() for n, v in module.state_dict().items())
    assert port(model, module).end_to_end.agrees is True


def test_numbers_against_the_order_of_definition_decide_nothing(tmp_path: Any) -> None:
    """Two habits that contradict each other: listed with all candidates, and refused by convert."""
    model, module = tanhs(5), Counted((2, 0, 4, 1, 3), BACKWARDS)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    found = match(model, tmp_path / "m.pt")
    assert found.joint.pairs == ()
    assert {name: set(own) for name, own in found.joint.open.items()} == {
        f"d_{i}": set(BACKWARDS.values()) for i in range(5)
    }
    with pytest.raises(LayoutxError, match="fits several places"):
        convert(model, tmp_path / "out.safetensors", to="torch", like=tmp_path / "m.pt")
    assert not (tmp_path / "out.safetensors").exists()


def test_convert_runs_a_live_template_that_cannot_be_traced(tmp_path: Any) -> None:
    model, module = tanhs(5), Counted((2, 0, 4, 1, 3), BACKWARDS).double()
    convert(model, tmp_path / "out.safetensors", to="torch", like=module)
    from safetensors.torch import load_file

    module.load_state_dict(load_file(tmp_path / "out.safetensors"))
    x = np.random.default_rng(1).normal(size=(7, 5))
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), np.asarray(model(x)), atol=1e-5)


def test_numbers_in_the_order_of_definition_are_a_habit_that_is_not_sure(tmp_path: Any) -> None:
    model, module = tanhs(5), Counted((0, 1, 2, 3, 4), {i: f"fc{i + 1}" for i in range(5)})
    torch.save(module.state_dict(), tmp_path / "m.pt")
    found = match(model, tmp_path / "m.pt")
    assert places(found) == {f"d_{i}": f"fc{i + 1}" for i in range(5)}
    assert {pair.confidence for pair in found.joint.pairs} == {0.85}


class Turned(nn.Module):
    """A module that cannot be traced and turns its map before it flattens it: only a run shows that."""

    def __init__(self, turn: bool) -> None:
        super().__init__()
        self.conv, self.fc, self.turn = nn.Conv2d(2, 3, 3), nn.Linear(3 * 3 * 5, 7), turn

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if float(x.sum()) == 1e30:
            return x
        return self.fc((x.permute(0, 2, 3, 1) if self.turn else x).flatten(1))


@pytest.mark.parametrize("turn", [True, False])
def test_the_order_of_a_flattened_map_is_seen_in_a_run(turn: bool) -> None:
    import keras
    from keras import layers

    model = keras.Sequential([keras.Input((5, 7, 2)), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(7)])
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    assert port(model, Turned(turn)).end_to_end.agrees is True


class Lists(nn.Module):
    """Separable convolutions as a list of depthwise and a list of pointwise ones, both from the end to the start."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(7, 4)
        self.pw = nn.ModuleList([nn.Conv2d(7, 7, 1), nn.Conv2d(3, 7, 1)])
        self.dw = nn.ModuleList(nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False) for c in (7, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in (1, 0):
            x = torch.relu(self.pw[i](self.dw[i](x)))
        return self.head(x.amax((2, 3)))


def test_parts_of_a_composite_are_found_by_who_feeds_whom() -> None:
    import keras
    from keras import layers

    convs = [layers.SeparableConv2D(7, 3, padding="same", activation="relu", name=f"s{i}") for i in (1, 2)]
    model = keras.Sequential([keras.Input((8, 10, 3)), *convs, layers.GlobalMaxPooling2D(), layers.Dense(4)])
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    module = Lists()
    assert match(model, module).complete
    assert port(model, module).end_to_end.agrees is True
    assert port(module, model).end_to_end.agrees is True


def test_one_direction_is_not_taken_for_both_where_the_sizes_are_the_same() -> None:
    """An encoder reads both ways what its decoder reads in one, with equal sizes: each has its own places."""
    keras = pytest.importorskip("keras")
    x = keras.Input((5, 7))
    both = keras.layers.Bidirectional(keras.layers.LSTM(11, return_sequences=True), name="both")(x)
    source = keras.Model(x, [both, keras.layers.LSTM(11, name="one")(x)])

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.LSTM(7, 11, batch_first=True, bidirectional=True)
            self.cell = nn.LSTMCell(7, 11)

    assert places(match(source, Both())) == {"both": "read/layer_0", "one": "cell"}
