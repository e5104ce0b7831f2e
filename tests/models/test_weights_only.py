"""Weights without a config: forms from names and shapes with the reason, from a model's file, or by the user's word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_models
from keras_models import inputs_of, outputs_of, precision, trained
from safetensors.torch import load_file

from layoutx.convert import convert
from layoutx.errors import LayoutxError, UsageError
from layoutx.port import port


def assert_same(name: str, weights: dict[str, torch.Tensor], framework: str = "keras") -> None:
    """The hand-written module with these weights gives what the trained model gives."""
    module = torch_models.MODELS[name]().double()
    module.load_state_dict(weights, strict=True)
    inputs = inputs_of(name)
    expected = outputs_of(trained(name, framework), inputs)
    found = torch_models.outputs_of(module, inputs, name != "stacked_gru")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["stacked_gru", "bilstm", "transformer"])
def test_forms_come_from_names_and_shapes(name: str, saved, tmp_path: Path) -> None:
    source, out = saved(name, ending=".weights.h5"), tmp_path / "out.safetensors"
    report = convert(source, out, to="torch", like=torch_models.MODELS[name]())
    assert_same(name, load_file(out))
    for layer in report.layers:
        assert any("form from" in note for note in layer.notes), layer.name


@pytest.mark.parametrize("name", ["cnn", "nested", "two_inputs", "autoencoder"])
def test_a_models_file_says_what_a_weights_file_does_not(name: str, saved, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    source = saved(name, ending=".weights.h5")
    convert(source, out, to="torch", like=torch_models.MODELS[name](), config=saved(name))
    assert_same(name, load_file(out))


def test_port_takes_the_config_of_a_weights_file(saved, tmp_path: Path) -> None:
    source, module = saved("cnn", ending=".weights.h5"), torch_models.MODELS["cnn"]().double()
    with pytest.raises(LayoutxError, match="--config"):
        port(source, module)
    port(source, module, config=saved("cnn"))
    assert_same("cnn", module.state_dict())
    with pytest.raises(UsageError, match="is not a Keras file: a model config says nothing"):
        port(module, torch_models.MODELS["cnn"](), config=saved("cnn"))


def test_weights_go_into_another_file_of_the_same_model(saved, tmp_path: Path) -> None:
    """With --like model.keras the template's config describes the source too: Keras 3 weights become a .keras."""
    import keras

    out = tmp_path / "out.keras"
    convert(saved("cnn", ending=".weights.h5"), out, to="keras", like=saved("cnn"))
    for old, new in zip(trained("cnn").get_weights(), keras.models.load_model(out).get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_a_map_that_may_have_been_flattened_is_not_guessed(saved, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    with pytest.raises(LayoutxError) as caught:
        convert(saved("cnn", ending=".weights.h5"), out, to="torch", like=torch_models.Cnn())
    text = str(caught.value)
    assert "42 input rows" in text
    assert "--keep-order" in text
    assert not out.exists()


def test_the_map_of_a_convolutional_lstm_may_have_been_flattened_too(tmp_path: Path) -> None:
    import keras

    layers = [keras.layers.ConvLSTM2D(2, 3, name="recurrent"), keras.layers.Flatten(), keras.layers.Dense(3)]
    keras.Sequential([keras.Input((2, 5, 5, 1)), *layers]).save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(LayoutxError, match="18 input rows"):
        convert(tmp_path / "m.weights.h5", None, to="torch", allow={"modules"})


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A kernel of rank 4 with a bias, and a name that does not tell: Conv2D or its transpose?"""
    import keras

    with precision(keras, "float64"):
        layers = [keras.layers.Conv2DTranspose(5, (2, 3), bias_initializer="normal", name="mystery")]
        model = keras.Sequential([keras.Input((7, 7, 5)), *layers, keras.layers.ReLU()])
    path = tmp_path_factory.mktemp("odd") / "odd.h5"
    model.save_weights(path.with_name("odd.weights.h5"))
    return model, path.with_name("odd.weights.h5")


def legacy(model: Any, path: Path) -> Path:
    """Weights alone in the format of Keras 2: names and order, no config."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return path


def test_two_forms_are_told_with_the_option_that_decides(odd, tmp_path: Path) -> None:
    model, _ = odd
    source, out = legacy(model, tmp_path / "odd.h5"), tmp_path / "out.safetensors"
    with pytest.raises(LayoutxError) as caught:
        convert(source, out, to="torch")
    text = str(caught.value)
    assert "keras.Conv2D" in text
    assert "keras.Conv2DTranspose" in text
    assert "--form mystery=" in text
    assert not out.exists()
    convert(source, out, to="torch", forms={"mystery": "keras.Conv2DTranspose"})
    up = torch.nn.ConvTranspose2d(5, 5, (2, 3)).double()
    up.load_state_dict({name.removeprefix("mystery."): value for name, value in load_file(out).items()}, strict=True)
    x = np.random.default_rng(5).normal(size=(2, 7, 7, 5))
    found = torch.relu(up(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))).detach().numpy()
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), np.asarray(model(x)), rtol=0, atol=1e-12)


def test_a_form_that_does_not_fit_is_refused(odd, tmp_path: Path) -> None:
    model, _ = odd
    source = legacy(model, tmp_path / "odd.h5")
    with pytest.raises(LayoutxError, match=r"mystery does not hold what keras\.Dense stores"):
        convert(source, None, to="torch", forms={"mystery": "keras.Dense"})
    with pytest.raises(LayoutxError, match="--form names no layer: mistery"):
        convert(source, None, to="torch", forms={"mistery": "keras.Conv2D"})


def test_the_file_of_keras_3_numbers_its_layers_and_names_their_classes(odd, tmp_path: Path) -> None:
    """`layers/conv2d_transpose/vars/0`: the name of the class is what tells the transpose apart."""
    _, source = odd
    report = convert(source, tmp_path / "out.safetensors", to="torch")
    assert [layer.source for layer in report.layers] == ["keras.Conv2DTranspose"]


@pytest.mark.parametrize("name", ["stacked_gru", "bilstm"])
def test_weights_of_keras_2(name: str, saved, tmp_path: Path) -> None:
    pytest.importorskip("tf_keras")
    source, out = tmp_path / "weights.h5", tmp_path / "out.safetensors"
    trained(name, "tf_keras").save_weights(source, save_format="h5")
    convert(source, out, to="torch", like=torch_models.MODELS[name]())
    assert_same(name, load_file(out), "tf_keras")


def test_ten_comes_after_two(tmp_path: Path) -> None:
    """Twelve alike layers: HDF5 lists dense_10 before dense_2, and without a config nothing else tells the order."""
    import keras

    with precision(keras, "float64"):
        layers = [keras.layers.Dense(5, activation="tanh", bias_initializer="normal") for _ in range(12)]
        model = keras.Sequential([keras.Input((5,)), *layers])
    source, out = tmp_path / "alike.weights.h5", tmp_path / "out.safetensors"
    model.save_weights(source)
    module = torch.nn.Sequential(*(part for _ in range(12) for part in (torch.nn.Linear(5, 5), torch.nn.Tanh())))
    convert(source, out, to="torch", like=module, live=False)
    module.double().load_state_dict(load_file(out))
    x = np.linspace(-1, 1, 15).reshape(3, 5)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), np.asarray(model(x)), rtol=0, atol=1e-12)


class Coded(torch.nn.Module):
    """Two heads of one shape, and two tables, defined in another order than Keras' layers."""

    def __init__(self) -> None:
        super().__init__()
        self.item, self.user = torch.nn.Embedding(11, 3), torch.nn.Embedding(11, 3)
        self.logvar, self.mu = torch.nn.Linear(3, 5), torch.nn.Linear(3, 5)


@pytest.mark.parametrize("numbers", [("", ""), ("_1", "_2"), ("_2", "_1")], ids=["words", "in order", "against it"])
def test_what_the_user_called_a_layer_tells_what_the_file_only_counts(numbers: tuple[str, str], tmp_path: Path) -> None:
    """The file calls them dense, dense_1 and embedding, embedding_1, and keeps the users' names beside that."""
    import keras

    layers = keras.layers
    first, second = (f"head{n}" for n in numbers) if numbers[0] else ("mu", "logvar")
    ids = keras.Input((), dtype="int32")
    tables = [layers.Embedding(11, 3, name=name)(ids) for name in ("user", "item")]
    heads = [layers.Dense(5, name=name)(x) for name, x in zip((first, second), tables, strict=True)]
    model = keras.Model(ids, heads)
    rng = np.random.default_rng(2)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    model.save_weights(tmp_path / "w.weights.h5")
    target = Coded()
    if numbers[0]:
        target.head_1, target.head_2 = target.logvar, target.mu
        del target.logvar, target.mu
    report = convert(tmp_path / "w.weights.h5", tmp_path / "o.safetensors", to="torch", like=target)
    found = load_file(tmp_path / "o.safetensors")
    for name in ("user", "item", first, second):
        layer = model.get_layer(name)
        stored = layer.weights[0].numpy()
        np.testing.assert_array_equal(found[f"{name}.weight"], stored if name in ("user", "item") else stored.T)
    assert all("same name" in layer.reason for layer in report.layers), [layer.reason for layer in report.layers]


def test_inspect_shows_what_the_user_called_a_layer(tmp_path: Path) -> None:
    import keras

    import layoutx as lx

    made, layers = keras.Input((4,)), keras.layers
    hidden = layers.Dense(3, name="hidden")(made)
    heads = [layers.Dense(5)(hidden), layers.Dense(5, name="logvar")(hidden)]
    keras.Model(made, heads).save_weights(tmp_path / "m.weights.h5")
    view = lx.inspect(tmp_path / "m.weights.h5")
    assert {layer.name: layer.called for layer in view} == {"dense": "hidden", "dense_1": "", "dense_2": "logvar"}
    assert "dense_2 (called logvar)  Dense" in str(view)
    assert view["logvar"].name == view.to_dict()["layers"][2]["name"] == "dense_2"
    assert ">logvar<" in lx.report(view, tmp_path / "page.html").read_text(encoding="utf-8")
