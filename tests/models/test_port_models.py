"""Live Keras models into live torch modules and back, in place, proved by running both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch_models
from keras_models import MODELS, built, inputs_of, outputs_of, precision, trained

from layoutx.errors import ConsentError, ConversionError, LayoutxError, Problems, UsageError, VerificationError
from layoutx.port import port

NAMES = tuple(MODELS)
SUMMED = ("bilstm",)  # two biases in torch, one in Keras


def state(module: torch.nn.Module) -> dict[str, np.ndarray]:
    """Copies of all weights."""
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def stirred(module: torch.nn.Module) -> torch.nn.Module:
    """A module with random weights; running variances stay positive, counters count."""
    torch.manual_seed(7)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if "var" in name else torch.randn_like(value) * 0.5)
    return module.double()


@pytest.mark.parametrize("name", NAMES)
def test_keras_to_torch(name: str) -> None:
    module = torch_models.MODELS[name]().double()
    report = port(trained(name), module)
    end = report.end_to_end
    assert end.agrees is True
    assert end.dtype == "float64"
    assert end.largest <= 1e-9 * end.scale
    inputs = inputs_of(name)
    found = torch_models.outputs_of(module, inputs, name != "stacked_gru")
    np.testing.assert_allclose(found, outputs_of(trained(name), inputs), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_torch_to_keras(name: str) -> None:
    """Random torch weights: two biases of an LSTM become one, which has to be allowed."""
    module, model = stirred(torch_models.MODELS[name]()), built(name)
    allow = {"rounds"} if name in SUMMED else set()
    if allow:
        before = [np.array(w) for w in model.get_weights()]
        with pytest.raises((ConsentError, Problems), match="rounds"):
            port(module, model)
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(new, old)
    report = port(module, model, allow=allow)
    assert report.end_to_end.agrees is True
    assert report.end_to_end.largest <= 1e-9 * report.end_to_end.scale


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(name: str) -> None:
    module, fresh = torch_models.MODELS[name]().double(), built(name)
    port(trained(name), module, live=False)
    report = port(module, fresh, live=False)
    assert report.end_to_end.agrees is True
    for old, new in zip(trained(name).get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize("name", ["cnn", "bilstm", "nested"])
def test_keras_2(name: str) -> None:
    pytest.importorskip("tf_keras")
    module = torch_models.MODELS[name]().double()
    assert port(trained(name, "tf_keras"), module).end_to_end.agrees is True
    fresh = built(name, "tf_keras")
    assert port(module, fresh).end_to_end.agrees is True
    for old, new in zip(trained(name, "tf_keras").get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_two_gru_modules() -> None:
    module = torch_models.GruPair().double()
    assert port(trained("stacked_gru"), module).end_to_end.agrees is True


def test_given_inputs_are_in_the_order_of_the_source() -> None:
    module = torch_models.Cnn().double()
    end = port(trained("cnn"), module, inputs_of("cnn")[0]).end_to_end
    assert end.agrees is True
    assert end.note == "channels turned to the front"


def test_float32_into_float64_widens_and_the_other_way_needs_consent() -> None:
    wide = torch_models.Cnn().double()
    assert port(trained("cnn", dtype="float32"), wide).end_to_end.agrees is True
    narrow = torch_models.Cnn()
    before = state(narrow)
    with pytest.raises(ConsentError, match="narrower"):
        port(trained("cnn"), narrow)
    for name, old in before.items():
        np.testing.assert_array_equal(state(narrow)[name], old)
    assert port(trained("cnn"), narrow, allow={"rounds"}).end_to_end.agrees is True


class Swapped(torch_models.GruPair):
    """The planted mistake: reset and update gates change places when the module runs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, time, 3) -> (batch, 2)."""
        twin = torch.nn.GRU(3, 7, batch_first=True).to(x.dtype)
        order = [*range(7, 14), *range(7), *range(14, 21)]
        twin.load_state_dict({name: value[order] for name, value in self.lower.state_dict().items()})
        return self.out(self.upper(twin(x)[0])[0][:, -1])


PLANTED: dict[str, tuple[str, Any]] = {
    "gates swapped": ("stacked_gru", Swapped),
    "directions swapped": ("bilstm", torch_models.BiLstmSwapped),
}


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_mistake_between_the_layers_is_caught(mistake: str) -> None:
    name, module_class = PLANTED[mistake]
    module = stirred(module_class())
    before = state(module)
    with pytest.raises(VerificationError, match="do not compute the same") as caught:
        port(trained(name), module)
    assert "largest difference" in str(caught.value)
    for key, old in before.items():
        np.testing.assert_array_equal(state(module)[key], old)


def test_a_module_that_flattens_channels_last_is_ported_so() -> None:
    """Its own graph tells the order of the rows: they stay as Keras has them."""
    module = stirred(torch_models.CnnLast())
    assert port(trained("cnn"), module).end_to_end.agrees is True
    kernel = np.asarray(trained("cnn").get_layer("hidden").kernel)
    np.testing.assert_array_equal(state(module)["head.0.weight"], kernel.T)


def test_a_forgotten_eps_is_caught() -> None:
    module = stirred(torch_models.Cnn())
    module.norm.eps = 1e-5
    before = state(module)
    with pytest.raises(VerificationError, match="do not compute the same"):
        port(trained("cnn"), module)
    np.testing.assert_array_equal(state(module)["norm.weight"], before["norm.weight"])


def test_a_function_that_torch_does_not_have_is_refused() -> None:
    import keras

    with precision(keras, "float64"):
        layers = [keras.Input((5, 3)), keras.layers.GRU(7, reset_after=False, name="old")]
        model = keras.Sequential([*layers, keras.layers.Dense(2, name="out")])
    module = torch.nn.ModuleDict({"rnn": torch.nn.GRU(3, 7), "out": torch.nn.Linear(7, 2)}).double()
    before = state(module)
    with pytest.raises(ConversionError, match="reset") as caught:
        port(model, module)
    assert "layer old (GRU)" in str(caught.value)
    for key, old in before.items():
        np.testing.assert_array_equal(state(module)[key], old)


def test_a_number_that_the_target_cannot_hold_is_refused_with_its_name() -> None:
    """float16 ends at 65504: consent to rounding is none to infinity."""
    import keras

    source = keras.models.clone_model(trained("cnn"))  # the trained one serves every test
    weights = trained("cnn").get_weights()
    weights[0].flat[3] = 1e5
    source.set_weights(weights)
    half = torch_models.Cnn().half()
    before = state(half)
    with pytest.raises(LayoutxError, match=r"does not fit into float16(.|\n)*largest value 1e\+05"):
        port(source, half, allow={"rounds"}, compare=False)
    for name, old in before.items():
        np.testing.assert_array_equal(state(half)[name], old)


def exported(module: Any, batch: int) -> Any:
    """The program of a module at inference, exported with a fixed batch."""
    return torch.export.export(module.eval(), (torch.randn(batch, 1, 8, 8, dtype=torch.float64),))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_torch_export_program_is_a_target(batch: int, tmp_path: Any) -> None:
    """Its weights are set in place; a program runs in batches of the one size that it was exported with."""
    source, program = trained("cnn"), exported(torch_models.Cnn().double(), batch)
    report = port(source, program)
    assert report.end_to_end.agrees is True
    x = np.random.default_rng(5).normal(size=(batch, 8, 8, 1))
    given = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    expected = np.asarray(source(x))
    np.testing.assert_allclose(program.module()(given).detach().numpy(), expected, atol=1e-12)
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(UsageError, match=r"torch\.export\.load"):
        port(source, tmp_path / "m.pt2")


def test_a_program_gets_its_old_weights_again_where_the_outputs_differ() -> None:
    class Sharp(torch_models.Cnn):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    program = exported(Sharp().double(), 2)
    before = {name: value.clone() for name, value in program.state_dict.items()}
    with pytest.raises(VerificationError, match="do not compute the same"):
        port(trained("cnn"), program)
    assert all(torch.equal(before[name], value) for name, value in program.state_dict.items())
