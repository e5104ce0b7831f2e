"""Trained Keras models become weights of hand-written torch modules: the two compute the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch_models
from keras_models import MODELS, inputs_of, outputs_of, precision, trained
from safetensors.torch import load_file

from layoutx.convert import convert
from layoutx.errors import ConversionError

NAMES = tuple(MODELS)
CHANNELS_FIRST = {name: name != "stacked_gru" for name in NAMES}
RELATIVE = {"float64": 1e-9, "float32": 1e-5}


def assert_same(
    name: str,
    module: torch.nn.Module,
    weights: dict[str, torch.Tensor],
    dtype: str = "float64",
    framework: str = "keras",
) -> None:
    """A module with converted weights gives what the trained model gives, on inputs that nobody trained on."""
    module = module.to(getattr(torch, dtype))
    module.load_state_dict(weights, strict=True)
    inputs = inputs_of(name, dtype)
    expected = outputs_of(trained(name, framework, dtype), inputs)
    found = torch_models.outputs_of(module, inputs, CHANNELS_FIRST[name])
    assert expected.dtype == found.dtype == np.dtype(dtype)
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE[dtype] * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_equal(name: str, dtype: str, saved, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    like = f"torch_models:{torch_models.MODELS[name].__name__}"
    report = convert(saved(name, dtype=dtype), out, to="torch", like=like)
    assert_same(name, torch_models.MODELS[name](), load_file(out), dtype)
    assert report.round_trip == "bit-exact"
    assert report.exactness in ("moves", "fills")
    assert report.keys_written == report.keys_total == len(load_file(out))


@pytest.mark.parametrize("name", NAMES)
def test_a_template_file_says_the_names_and_their_order(name: str, saved, tmp_path: Path) -> None:
    module = torch_models.MODELS[name]()
    template, out = tmp_path / "template.pt", tmp_path / "out.pt"
    torch.save(module.state_dict(), template)
    convert(saved(name), out, to="torch", like=template, live=False)
    weights = torch.load(out)
    assert list(weights) == list(module.state_dict())
    assert_same(name, module, weights)


def test_one_stack_or_two_modules(saved, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    convert(saved("stacked_gru"), out, to="torch", like="torch_models:GruPair")
    assert_same("stacked_gru", torch_models.GruPair(), load_file(out))


OWN_NAMES = {
    "cnn": "conv1.weight conv1.bias bn.weight bn.bias bn.running_mean bn.running_var bn.num_batches_tracked "
    "conv2.weight conv2.bias hidden.weight hidden.bias scores.weight scores.bias",
    "separable": "stem.weight stem.bias deep.weight deep.bias sep.depthwise.weight sep.pointwise.weight "
    "sep.pointwise.bias scores.weight scores.bias",
    "stacked_gru": "gru_a.weight_ih_l0 gru_a.weight_hh_l0 gru_a.bias_ih_l0 gru_a.bias_hh_l0 "
    "gru_b.weight_ih_l0 gru_b.weight_hh_l0 gru_b.bias_ih_l0 gru_b.bias_hh_l0 scores.weight scores.bias",
    "transformer": "embed.weight attention.in_proj_weight attention.in_proj_bias attention.out_proj.weight "
    "attention.out_proj.bias norm1.weight norm1.bias ff1.weight ff1.bias ff2.weight ff2.bias norm2.weight norm2.bias "
    "scores.weight scores.bias",
    "two_inputs": "conv.weight conv.bias side.weight side.bias hidden.weight hidden.bias scores.weight scores.bias",
    "nested": "conv.weight conv.bias head.d1.weight head.d1.bias head.b1.weight head.b1.bias head.b1.running_mean "
    "head.b1.running_var head.b1.num_batches_tracked head.d2.weight head.d2.bias scores.weight scores.bias",
}


@pytest.mark.parametrize("name", OWN_NAMES)
def test_without_a_target_the_layers_give_the_names(name: str, saved, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    convert(saved(name), out, to="torch", live=False)
    with np.load(out) as found:
        assert sorted(n for n in found.files if "layoutx" not in n) == sorted(OWN_NAMES[name].split())


def test_both_directions_have_names_of_their_own(saved, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    convert(saved("bilstm"), out, to="torch", live=False)
    weights = load_file(out)
    lstm = torch.nn.LSTM(5, 7, bidirectional=True).double()
    own = {name.removeprefix("first."): value for name, value in weights.items() if name.startswith("first.")}
    lstm.load_state_dict(own, strict=True)


@pytest.mark.parametrize("name", ["cnn", "nested", "stacked_gru", "two_inputs"])
def test_files_of_keras_2(name: str, saved, tmp_path: Path) -> None:
    pytest.importorskip("tf_keras")
    out = tmp_path / "out.safetensors"
    path = saved(name, "tf_keras", ".h5")
    report = convert(path, out, to="torch", like=torch_models.MODELS[name]())
    assert report.source["version"].startswith("2.")
    assert_same(name, torch_models.MODELS[name](), load_file(out), framework="tf_keras")


def test_keep_order_for_a_target_that_flattens_channels_last(saved, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    convert(saved("cnn"), out, to="torch", like=torch_models.CnnLast(), keep_order=True)
    assert_same("cnn", torch_models.CnnLast(), load_file(out))
    other = tmp_path / "other.safetensors"
    convert(saved("cnn"), other, to="torch", like=torch_models.CnnLast())  # the module's own graph tells it as well
    assert_same("cnn", torch_models.CnnLast(), load_file(other))
    rows = tmp_path / "rows.safetensors"
    convert(saved("cnn"), rows, to="torch", like=torch_models.Cnn())
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_same("cnn", torch_models.CnnLast(), load_file(rows))


def test_the_report_says_what_must_travel(saved, tmp_path: Path) -> None:
    report = convert(saved("cnn"), tmp_path / "out.safetensors", to="torch")
    lines = {layer.name: " | ".join(layer.settings) for layer in report.layers}
    assert "pads (0, 1) (0, 1)" in lines["conv1"]
    assert "eps=0.002" in lines["bn"]
    assert "momentum=0.3" in lines["bn"]
    assert "Flatten" in set(report.weightless.values())
    hidden = next(layer for layer in report.layers if layer.name == "hidden")
    assert any("flatten" in note for note in hidden.notes)


def test_the_certificate_stops_a_second_conversion(saved, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    convert(saved("cnn"), out, to="torch")
    with pytest.raises(ConversionError, match="already holds torch weights"):
        convert(out, tmp_path / "again.safetensors", to="torch")
    assert not (tmp_path / "again.safetensors").exists()


def test_a_network_of_keras_applications(tmp_path: Path) -> None:
    """MobileNetV2: 105 layers with weights, depthwise convolutions and batch norms; every tensor finds a name."""
    import keras

    with precision(keras, "float32"):
        model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=7)
    path, out = tmp_path / "mobilenet.keras", tmp_path / "out.safetensors"
    model.save(path)
    report = convert(path, out, to="torch", live=False)
    weights = load_file(out)
    assert report.tensors_used == len(model.weights) == 262
    assert sum(value.numel() for name, value in weights.items() if "num_batches" not in name) == model.count_params()
    kernel = model.get_layer("block_3_depthwise").get_weights()[0]
    np.testing.assert_array_equal(weights["block_3_depthwise.weight"].numpy(), kernel.transpose(2, 3, 0, 1))
