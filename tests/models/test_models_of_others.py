"""Models as other people write them: read, matched, compared and explained whole."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
nn = torch.nn
L = keras.layers
RNG = np.random.default_rng(13)
MAP = RNG.normal(size=(3, 8, 8, 1)).astype("float32")


def filled(model: Any) -> Any:
    """Every weight drawn anew; variances positive."""
    for weight in model.weights:
        weight.assign(abs(RNG.normal(size=tuple(weight.shape))) * 0.3 + 0.1)
    return model


@keras.saving.register_keras_serializable("others")
class AddPositions(L.Layer):
    """Learned positions, as Keras' own example of a vision transformer writes them; `call` cannot be read off."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=tuple(shape[1:]), name="table")

    def call(self, x: Any) -> Any:
        return x + self.table


def patches() -> Any:
    inputs = L.Input((8, 8, 1))
    x = AddPositions(name="positions")(L.Reshape((16, 6))(L.Conv2D(6, 2, 2, name="patch")(inputs)))
    x = L.Dense(7, activation="gelu", name="mlp")(L.LayerNormalization(epsilon=1e-6, name="norm")(x))
    return filled(keras.Model(inputs, L.Dense(3, name="out")(L.Flatten()(x))))


class Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out, self.mlp, self.norm = nn.Linear(112, 3), nn.Linear(6, 7), nn.LayerNorm(6, eps=1e-6)
        self.positions, self.patch = nn.Parameter(torch.zeros(1, 16, 6)), nn.Conv2d(1, 6, 2, 2)

    def forward(self, x: Any) -> Any:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.positions
        return self.out(nn.functional.gelu(self.mlp(self.norm(x))).flatten(1))


def test_axes_are_followed_through_a_table_of_positions() -> None:
    target = Patches()
    assert lx.port(patches(), target, MAP).end_to_end.agrees
    assert float(target.positions.detach().abs().min()) > 0


def test_a_layer_with_gelu_that_was_not_loaded_is_told() -> None:
    source, target = patches(), Patches()
    lx.port(source, target, MAP)
    torch.manual_seed(3)
    target.mlp.reset_parameters()
    (found,) = lx.diagnose(source, target, MAP).layers
    assert [edit.mode for edit in found.explanations[0].edits] == ["F13"]


class Twice(nn.Module):
    """Two alike convolutions, defined in the order opposite to that of their calls."""

    def __init__(self) -> None:
        super().__init__()
        self.b, self.a = nn.Conv2d(5, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
        self.norm, self.stem = nn.BatchNorm2d(5, eps=1e-3), nn.Conv2d(1, 5, 3)

    def forward(self, x: Any) -> Any:
        return self.norm(self.b(torch.relu(self.a(torch.tanh(self.stem(x))))))


def twice() -> Any:
    inputs = L.Input((8, 8, 1))
    x = L.Conv2D(5, 3, activation="relu", padding="same")(L.Conv2D(5, 3, activation="tanh")(inputs))
    return filled(keras.Model(inputs, L.BatchNormalization()(L.Conv2D(5, 3, padding="same")(x))))


@pytest.mark.parametrize("more", [False, True])
def test_layers_that_hold_one_anothers_numbers_are_told_by_the_order_of_calls(more: bool) -> None:
    source, target = twice(), Twice().eval()
    lx.port(source, target, MAP)
    one, other = ({k: v.clone() for k, v in m.state_dict().items()} for m in (target.a, target.b))
    target.a.load_state_dict(other)
    target.b.load_state_dict(one)
    target.norm.eps = 1e-5 if more else 1e-3
    found = lx.diagnose(source, target, MAP)
    modes = sorted(edit.mode for layer in found.layers for edit in layer.explanations[0].edits)
    assert found.explained
    assert not found.gaps
    assert modes == ["F38", "F38", *(["F8"] if more else [])]


def test_a_forget_bias_that_was_added_in_float32_is_one_mistake() -> None:
    inputs = L.Input((5, 3))
    source = filled(keras.Model(inputs, L.LSTM(7, return_sequences=True, name="lstm")(inputs)))
    target = nn.LSTM(3, 7, batch_first=True)
    x = RNG.normal(size=(2, 5, 3)).astype("float32")
    lx.port(source, target, x, compare=False)
    with torch.no_grad():
        target.bias_ih_l0[7:14] += 1
    (found,) = lx.diagnose(source, target, x).layers
    assert [edit.mode for edit in found.explanations[0].edits] == ["F21"]
    assert found.explanations[0].certain


class Last(nn.Module):
    """Reads the last state alone: an exported program leaves out what nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.rnn, self.table = nn.Linear(5, 2), nn.GRU(3, 5, batch_first=True), nn.Embedding(11, 3)

    def forward(self, tokens: Any) -> Any:
        return self.out(self.rnn(self.table(tokens))[1][-1])


def test_an_exported_program_that_reads_the_last_state_alone() -> None:
    model, tokens = Last().eval(), np.arange(14).reshape(2, 7) % 11
    program = torch.export.export(model, (torch.tensor(tokens),))
    found = lx.validate(model, program, {"words": tokens})  # the one input, by a name of the user's own
    assert found.ok
    assert found.compared == 3
    model = copy.deepcopy(model)  # the program holds the model's own tensors
    with torch.no_grad():
        model.rnn.weight_hh_l0[3] += 0.5
    assert lx.validate(model, program, tokens).first.layer == "rnn"


def test_constants_of_a_graph_are_no_layers_that_a_match_lacks(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    model = Last().eval()
    example = (torch.zeros(2, 7, dtype=torch.int64),)
    torch.onnx.export(model, example, tmp_path / "m.onnx", dynamo=False, do_constant_folding=False)
    found = lx.match(model, tmp_path / "m.onnx")
    assert found.complete, str(found)
    assert found.joint.spare
    assert "constants of the graph" in str(found)


def test_inputs_by_another_name_are_taken_where_there_is_one_alone() -> None:
    source, target = twice(), Twice().eval()
    lx.port(source, target, MAP)
    assert lx.validate(source, target, {"batch": MAP}).ok
    with pytest.raises(LayoutxError):
        lx.validate(source, target, {"batch": MAP, "more": MAP})
