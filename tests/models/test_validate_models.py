"""Whole models compared layer by layer: right ports have no fault, planted ones are found where they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torch_models
from keras_models import MODELS, built, precision, trained
from torch import Tensor, nn

from layoutx.convert import convert
from layoutx.port import port
from layoutx.validate import validate
from layoutx.validation import Validation
from layoutx.verify.running.opened import opened


def right(name: str, module: nn.Module | None = None) -> nn.Module:
    """A torch port of a trained Keras model; the two need not agree as wholes."""
    found = (module or torch_models.MODELS[name]()).double()
    port(trained(name), found, compare=False)
    return found


def faults(found: Validation) -> list[str]:
    """Everything that is said to differ, but the outputs: layers, and `before>after` for gaps."""
    wrong = [check.layer for check in found.checks if not check.ok]
    return [*wrong, *(f"{'+'.join(gap.before)}>{gap.after}" for gap in found.gaps)]


def changed(name: str, change: Callable[[Any], None]) -> Validation:
    """A right port in which something is changed, against its source."""
    module = right(name)
    with torch.no_grad():
        change(module)
    return validate(trained(name), module)


@pytest.mark.parametrize("name", tuple(MODELS))
def test_a_right_port_has_no_fault(name: str) -> None:
    module = right(name)
    for found in (validate(trained(name), module), validate(module, trained(name))):
        assert found.ok, str(found)
        assert faults(found) == []
        assert found.compared == found.layers > 0
        assert all(check.verdict == "OK" for check in found.end_to_end)
        assert found.first is None
        assert found.suspects() == []


def test_unpermuted_rows_behind_flatten() -> None:
    """The layer after Flatten fails, and no other: what comes after it is fed the source's own input."""

    def unpermuted(module: Any) -> None:
        module.head[0].weight.copy_(torch.tensor(np.asarray(trained("cnn").get_layer("hidden").kernel).T))

    found = changed("cnn", unpermuted)
    assert not found.ok
    assert faults(found) == ["hidden"]
    assert found.first.layer == "hidden"
    assert found.end_to_end[0].verdict == "FAIL"
    (suspect,) = found.suspects()
    assert (suspect.name, suspect.place) == ("hidden", "head.0")
    assert suspect.refine == {"input": "(c h w)"}
    np.testing.assert_allclose(suspect.run(suspect.stored, suspect.inputs)["y"], suspect.found["y"], atol=1e-12)
    assert np.abs(suspect.expected["y"] - suspect.found["y"]).max() > 0.1
    assert suspect.expected["y"].min() == 0.0, "the source's relu is applied"
    assert suspect.found["y"].min() == 0.0, "and so it is to the target's output"


def test_a_module_that_flattens_channels_last_is_no_fault() -> None:
    """Unpermuted rows are right where the module permutes the map: its own run shows it."""
    assert validate(trained("cnn"), right("cnn", torch_models.CnnLast())).ok
    assert faults(validate(trained("cnn"), turned_rows())) == ["hidden"]


def turned_rows() -> torch.nn.Module:
    """The planted mistake: rows reordered for a module that keeps the order of Keras."""
    module = torch_models.CnnLast().double().eval()
    module.load_state_dict(right("cnn").state_dict())
    return module


class NoRelu(torch_models.Cnn):
    """The planted mistake: the activation of the first convolution is missing."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 8, 8) -> (batch, 10)."""
        x = self.norm(self.first(F.pad(x, (0, 1, 0, 1))))
        return self.head(torch.tanh(self.second(x)).flatten(1))


def test_a_missing_activation_lies_between() -> None:
    found = validate(trained("cnn"), right("cnn", NoRelu()))
    assert faults(found) == ["conv1>bn"]
    assert found.between.hint == "conv1 ends with relu in the source; in the target nothing applies it"
    assert found.between.places == ("first", "norm")
    assert found.first is found.between
    assert found.between.expected.min() == 0.0
    assert found.between.given.min() < 0.0
    assert "The fault lies between conv1 and bn" in str(found)


class PadsBefore(torch_models.Cnn):
    """The planted mistake: "same" at stride 2 padded before the map, not behind it."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 8, 8) -> (batch, 10)."""
        x = self.norm(F.relu(self.first(F.pad(x, (1, 0, 1, 0)))))
        return self.head(torch.tanh(self.second(x)).flatten(1))


class PadsAround(torch_models.Cnn):
    """The planted mistake: the layer itself pads on both sides."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 5, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 8, 8) -> (batch, 10)."""
        return self.head(torch.tanh(self.second(self.norm(F.relu(self.first(x))))).flatten(1))


def test_padding_outside_the_layer_lies_between_inside_it_is_the_layer() -> None:
    outside = validate(trained("cnn"), right("cnn", PadsBefore()))
    assert faults(outside) == [">conv1"]
    assert "pads outside the layer by (1, 0), (1, 0), where (0, 1), (0, 1) is right" in outside.between.hint
    inside = validate(trained("cnn"), right("cnn", PadsAround()))
    assert faults(inside) == ["conv1"]


class AveragePool(torch_models.TwoInputs):
    """The planted mistake: the mean in place of the largest."""

    def forward(self, image: Tensor, aux: Tensor) -> Tensor:
        """(batch, 1, 8, 8), (batch, 5) -> (batch, 10)."""
        x = F.avg_pool2d(F.relu(self.conv(image)), (2, 3)).flatten(1)
        return self.scores(F.relu(self.hidden(torch.cat((x, torch.tanh(self.side(aux))), dim=1))))


def test_another_pooling_lies_between() -> None:
    found = validate(trained("two_inputs"), right("two_inputs", AveragePool()))
    assert faults(found) == ["conv+side>hidden"] or faults(found) == ["side+conv>hidden"]
    assert "pool (MaxPooling2D)" in found.between.passed


def test_another_epsilon_is_told_at_the_norm() -> None:
    def other(module: Any) -> None:
        module.norm.eps = 1e-5

    found = changed("cnn", other)
    assert faults(found) == ["bn"]
    (suspect,) = found.suspects()
    assert suspect.settings["eps"] == 1e-5
    assert suspect.source.settings["eps"] == 2e-3

    def nearly(module: Any) -> None:
        module.norm.eps = 2.00002e-3

    assert {check.verdict for check in changed("cnn", nearly).checks} == {"OK", "INACCURATE"}


def test_one_weight_is_nan() -> None:
    def broken(module: Any) -> None:
        module.second.weight[3, 2, 1, 0] = float("nan")

    found = changed("cnn", broken)
    assert faults(found) == ["conv2"]
    assert found.first.unlike > 0
    assert found.first.where.endswith("channel 3")
    assert '"largest": null' not in str(found.to_dict())


def test_the_backward_direction_alone() -> None:
    def forward_weights(module: Any) -> None:
        module.encoder.weight_hh_l0_reverse.copy_(module.encoder.weight_hh_l0)

    found = changed("bilstm", forward_weights)
    assert faults(found) == ["first.backward"]
    assert [check.layer for check in found.checks][1:3] == ["first.forward", "first.backward"]
    assert found.first.where.startswith(("step", "state", "sample"))


def test_swapped_directions_lie_between() -> None:
    found = validate(trained("bilstm"), right("bilstm", torch_models.BiLstmSwapped()))
    assert faults(found) == ["second>scores"]
    assert "the same numbers in another order" in found.between.hint


def test_attention_with_a_transposed_projection() -> None:
    """Square: only the forward pass can tell."""

    def turned(module: Any) -> None:
        module.mix.out_proj.weight.copy_(module.mix.out_proj.weight.T.clone())

    assert faults(changed("transformer", turned)) == ["attention"]


class TimeFirst(nn.Module):
    """Reads time before batch; the last layer is given its input from the end."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.mid, self.upper = nn.LSTM(7, 7), nn.Linear(7, 7), nn.LSTM(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        """(time, batch, 7) -> (time, batch, 5)."""
        return self.upper(self.mid(self.lower(x)[0]).flip(0))[0]


def test_time_first_where_batch_and_time_have_one_length() -> None:
    import keras

    with precision(keras, "float64"):
        k = keras.layers
        model = keras.Sequential(
            [
                keras.Input((7, 7)),
                k.LSTM(7, return_sequences=True, name="lower"),
                k.Dense(7, name="mid"),
                k.LSTM(5, go_backwards=True, return_sequences=True, name="upper"),
            ]
        )
    rng = np.random.default_rng(20261121)
    for value in model.weights:
        value.assign(rng.normal(size=value.shape) * 0.4)
    module = TimeFirst().double()
    port(model, module, compare=False)
    found = validate(model, module, rng.normal(size=(7, 7, 7)))
    assert found.ok, str(found)
    assert found.notes == ("inputs: time turned before batch",)


class Twice(nn.Module):
    """One layer called twice."""

    def __init__(self, between: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.d, self.e, self.between = nn.Linear(5, 5), nn.Linear(5, 3), between

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 5) -> (batch, 3)."""
        return self.e(torch.tanh(self.d(self.between(self.d(x)))))


def test_a_shared_layer_is_compared_at_each_call() -> None:
    import keras

    with precision(keras, "float64"):
        x = keras.Input((5,))
        d = keras.layers.Dense(5, activation="tanh", name="d", bias_initializer="normal")
        model = keras.Model(x, keras.layers.Dense(3, name="e", bias_initializer="normal")(d(d(x))))
    module = Twice().double()
    port(model, module)
    found = validate(model, module)
    assert found.ok
    assert [(check.layer, check.call) for check in found.checks] == [("d", 0), ("d", 1), ("e", 0)]
    module.between = lambda x: x
    wrong = validate(model, module)
    assert faults(wrong) == ["d>d"]
    assert wrong.between.call == 1


def test_a_subclassed_model_is_compared() -> None:
    import keras

    class Sub(keras.Model):
        def __init__(self) -> None:
            super().__init__(dtype="float64")
            self.a = keras.layers.Dense(7, activation="relu", name="a", dtype="float64")
            self.b = keras.layers.Dense(3, name="b", dtype="float64")

        def call(self, x: Any) -> Any:
            return self.b(self.a(x))

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 7), nn.Linear(7, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.relu(self.a(x)))

    x = np.random.default_rng(20261121).normal(size=(4, 5))
    model, module = Sub(), Module().double()
    model(x)
    with torch.no_grad():
        for name in ("a", "b"):
            layer = getattr(model, name)
            getattr(module, name).weight.copy_(torch.tensor(np.asarray(layer.kernel).T))
            getattr(module, name).bias.copy_(torch.tensor(np.asarray(layer.bias)))
    found = validate(model, module, x)
    assert found.ok, str(found)
    assert found.compared == found.layers == 2


def test_keras_against_keras() -> None:
    model, other = trained("cnn"), built("cnn")
    other.set_weights(model.get_weights())
    assert validate(model, other).ok
    other.get_layer("bn").epsilon = 1e-3
    assert faults(validate(model, other)) == ["bn"]


def test_a_recording_against_a_live_model() -> None:
    for name in ("cnn", "bilstm", "transformer"):
        recording = opened(trained(name)).record(opened(trained(name)).inputs())
        module = right(name)
        for found in (validate(recording, module), validate(module, recording)):
            assert found.ok, str(found)
            assert found.compared == found.layers
            assert "recorded: layers are compared by what they hand on, not in their own right" in found.notes
    wrong = validate(opened(trained("cnn")).record(opened(trained("cnn")).inputs()), turned_rows())
    assert wrong.first.layer == "hidden"


PAIRS = {
    "cnn_max_mnist2.h5": "cnn_max_mninst2.onnx",
    "cnn_max_mnist3.h5": "cnn_max_mninst3.onnx",
    "fc_2-2sigmoids-3.h5": "fc_2-2sigmoids-3.onnx",
    "robust_mnist_sigmoid_linear.h5": "robust_model_sigmoid_linear.onnx",
}


@pytest.mark.parametrize("keras_file", PAIRS)
def test_real_files_both_ways(models: Any, keras_file: str) -> None:
    pytest.importorskip("onnx", reason="runs an ONNX graph")
    here, there = models / "marabou-mnist" / keras_file, models / "marabou-mnist" / PAIRS[keras_file]
    for found in (validate(here, there), validate(there, here)):
        assert found.ok, str(found)
        assert found.compared == found.layers


class Marabou(nn.Module):
    """cnn_max_mnist2 in torch."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 8, 4), nn.Conv2d(8, 4, 4)
        self.d1, self.d2 = nn.Linear(484, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 1, 28, 28) -> (batch, 10)."""
        x = F.max_pool2d(F.relu(self.c2(F.relu(self.c1(x)))), 2)
        return self.d2(F.relu(self.d1(x.flatten(1))))


def test_a_real_graph_against_torch(models: Any, tmp_path: Any) -> None:
    """The torch port needs the Flatten permutation, which the ONNX file does not have."""
    from safetensors.torch import load_file

    folder = models / "marabou-mnist"
    module = Marabou()
    convert(folder / "cnn_max_mnist2.h5", tmp_path / "m.safetensors", to="torch", like=module)
    module.load_state_dict(load_file(tmp_path / "m.safetensors"))
    for file in ("cnn_max_mnist2.h5", "cnn_max_mninst2.onnx"):
        assert validate(folder / file, module).ok
    with torch.no_grad():
        module.d1.weight.copy_(module.d1.weight.reshape(32, 4, 11, 11).permute(0, 2, 3, 1).reshape(32, 484))
    for file in ("cnn_max_mnist2.h5", "cnn_max_mninst2.onnx"):
        found = validate(folder / file, module)
        assert faults(found) == ["dense_14"]


@pytest.mark.parametrize("name", ["cnn", "transformer", "autoencoder", "bilstm"])
def test_a_suspect_runs_as_it_was_found(name: str) -> None:
    """Every weight is changed: each layer is a suspect, and its own framework gives what was found, both ways."""
    module = right(name)
    with torch.no_grad():
        for value in module.parameters():
            value.mul_(1.01)
    for found in (validate(trained(name), module), validate(module, trained(name))):
        assert not any(check.ok for check in found.checks)
        suspects = found.suspects()
        assert len(suspects) == found.layers
        for suspect in suspects:
            outputs = suspect.run(suspect.stored, suspect.inputs)
            for key, array in suspect.found.items():
                np.testing.assert_allclose(outputs[key], array, rtol=0, atol=1e-9, err_msg=suspect.name)


def test_weights_that_were_summed_and_rounded() -> None:
    """torch keeps two biases, Keras one: in float32 their sum is rounded, with consent; that is no fault."""
    import keras

    torch.manual_seed(5)
    module = torch.nn.ModuleDict({"rnn": torch.nn.LSTM(3, 7, batch_first=True), "out": torch.nn.Linear(7, 2)})

    class Last(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = module["rnn"], module["out"]

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x)[0][:, -1])

    source = Last()
    with precision(keras, "float32"):
        layers = [keras.Input((5, 3)), keras.layers.LSTM(7, name="rnn"), keras.layers.Dense(2, name="out")]
        target = keras.Sequential(layers)
    x = np.random.default_rng(1).normal(size=(3, 5, 3))
    port(source, target, x.astype(np.float32), allow={"rounds"})
    found = validate(source, target, x)
    assert found.ok, str(found)
    assert found.checks[0].largest > 0
    kernel, recurrent, bias = target.get_layer("rnn").get_weights()
    target.get_layer("rnn").set_weights([kernel, recurrent, bias * 1.00001])
    assert not validate(source, target, x).ok


def test_a_live_onnx_model(models: Path) -> None:
    onnx = pytest.importorskip("onnx")
    folder = models / "marabou-mnist"
    live = onnx.load(folder / "fc_2-2sigmoids-3.onnx")
    assert validate(folder / "fc_2-2sigmoids-3.h5", live).ok
    live.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(
        onnx.numpy_helper.to_array(live.graph.initializer[0]) * 2, live.graph.initializer[0].name))  # fmt: skip
    assert not validate(folder / "fc_2-2sigmoids-3.h5", live).ok
