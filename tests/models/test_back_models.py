"""torch weights go back into Keras files that Keras itself loads, with every bit where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch_models
from keras_models import MODELS, built, inputs_of, outputs_of, precision, trained
from safetensors.torch import load_file, save_file

from layoutx.convert import convert
from layoutx.errors import Problems, UsageError

NAMES = tuple(MODELS)


def assert_same_weights(model: Any, name: str, framework: str = "keras") -> None:
    """Bit for bit those of the trained model."""
    wanted = trained(name, framework).get_weights()
    found = model.get_weights()
    assert len(found) == len(wanted)
    for old, new in zip(wanted, found, strict=True):
        assert new.dtype == old.dtype
        assert new.tobytes() == old.tobytes()


def to_torch(path: Path, out: Path, name: str) -> Path:
    """The model's weights under the hand-written module's names, in its order and without a certificate."""
    convert(path, out.with_suffix(".safetensors"), to="torch", like=torch_models.MODELS[name](), live=False)
    module = torch_models.MODELS[name]().double()
    module.load_state_dict(load_file(out.with_suffix(".safetensors")), strict=True)
    torch.save(module.state_dict(), out)
    return out


@pytest.mark.parametrize("name", NAMES)
def test_weights_files_are_loaded_by_a_fresh_model(name: str, saved, tmp_path: Path) -> None:
    weights = to_torch(saved(name), tmp_path / "module.pt", name)
    back = tmp_path / "back.weights.h5"
    report = convert(weights, back, to="keras", like=saved(name))
    assert report.source["framework"] == "torch"
    fresh = built(name)
    assert not np.array_equal(fresh.get_weights()[0], trained(name).get_weights()[0])
    fresh.load_weights(back)
    assert_same_weights(fresh, name)


@pytest.mark.parametrize("name", ["cnn", "bilstm", "transformer", "nested"])
def test_whole_models_are_loaded_with_load_model(name: str, saved, tmp_path: Path) -> None:
    import keras

    weights = to_torch(saved(name), tmp_path / "module.pt", name)
    back = tmp_path / "back.keras"
    convert(weights, back, to="keras", like=saved(name), live=False)
    assert_same_weights(keras.models.load_model(back), name)


@pytest.mark.parametrize("name", ["cnn", "separable", "stacked_gru", "nested"])
def test_legacy_files_of_keras_3(name: str, saved, tmp_path: Path) -> None:
    like = saved(name, ending=".h5")
    weights = to_torch(like, tmp_path / "module.pt", name)
    back = tmp_path / "back.h5"
    convert(weights, back, to="keras", like=like, live=False)
    fresh = built(name)
    fresh.load_weights(back)
    assert_same_weights(fresh, name)


@pytest.mark.parametrize("name", ["cnn", "bilstm", "nested"])
def test_files_of_keras_2(name: str, saved, tmp_path: Path) -> None:
    keras = pytest.importorskip("tf_keras")
    like = saved(name, "tf_keras", ".h5")
    weights = to_torch(like, tmp_path / "module.pt", name)
    back = tmp_path / "back.h5"
    convert(weights, back, to="keras", like=like, live=False)
    assert_same_weights(keras.models.load_model(back, compile=False), name, "tf_keras")


def test_the_names_of_the_layers_alone_lead_back(saved, tmp_path: Path) -> None:
    """What a conversion without a target wrote carries the layers' names, and they are found again."""
    out, back = tmp_path / "out.pt", tmp_path / "back.weights.h5"
    convert(saved("two_inputs"), out, to="torch")
    convert(out, back, to="keras", like=saved("two_inputs"))
    fresh = built("two_inputs")
    fresh.load_weights(back)
    assert_same_weights(fresh, "two_inputs")


def sharded(weights: dict[str, torch.Tensor], folder: Path) -> Path:
    """The weights in two files with an index."""
    names = list(weights)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, own in shards.items():
        save_file({name: weights[name].contiguous() for name in own}, folder / file)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": {n: f for f, own in shards.items() for n in own}}))
    return path


@pytest.mark.parametrize("kind", ["pt", "pt of 2019", "shards", "npz"])
def test_other_sources(kind: str, saved, tmp_path: Path) -> None:
    weights = torch.load(to_torch(saved("cnn"), tmp_path / "module.pt", "cnn"))
    source = tmp_path / "source.pt"
    if kind == "shards":
        source = sharded(weights, tmp_path)
    elif kind == "npz":
        source = tmp_path / "source.npz"
        np.savez(source, **{name: value.numpy() for name, value in weights.items()})
    else:
        torch.save(weights, source, _use_new_zipfile_serialization=kind == "pt")
    back = tmp_path / "back.weights.h5"
    convert(source, back, to="keras", like=saved("cnn"), live=False)
    fresh = built("cnn")
    fresh.load_weights(back)
    assert_same_weights(fresh, "cnn")


def test_weights_that_torch_trained(saved, tmp_path: Path) -> None:
    """Not only the way back: weights that no Keras model ever had, in a shuffled file."""
    torch.manual_seed(3)
    module = torch_models.Transformer().double()
    with torch.no_grad():
        for value in module.parameters():
            value.add_(torch.randn_like(value) * 0.3)
    weights = dict(sorted(module.state_dict().items(), reverse=True))
    source, back = tmp_path / "torch.pt", tmp_path / "back.weights.h5"
    torch.save(weights, source)
    fixed = {"ff1": "wide", "ff2": "narrow", "norm1": "ln_a", "norm2": "ln_b"}
    convert(source, back, to="keras", like=saved("transformer"), pairs=fixed)
    fresh = built("transformer")
    fresh.load_weights(back)
    inputs = inputs_of("transformer")
    expected = torch_models.outputs_of(module, inputs)
    np.testing.assert_allclose(outputs_of(fresh, inputs), expected, rtol=0, atol=1e-9)


def test_a_keras_target_without_its_model_is_refused(saved, tmp_path: Path) -> None:
    weights = to_torch(saved("cnn"), tmp_path / "module.pt", "cnn")
    back = tmp_path / "back.weights.h5"
    with pytest.raises(UsageError, match="needs"):
        convert(weights, back, to="keras")
    assert not back.exists()


def test_a_sorted_file_does_not_decide_by_its_order(saved, tmp_path: Path) -> None:
    """The safetensors library sorts by name: two norms of one size then need to be told apart by the user.

    Unless the target already holds the same numbers.
    """
    weights = torch.load(to_torch(saved("transformer"), tmp_path / "module.pt", "transformer"))
    renamed = {name.replace("ln_a", "zz").replace("ln_b", "aa"): value for name, value in weights.items()}
    source, back = tmp_path / "sorted.safetensors", tmp_path / "back.weights.h5"
    save_file(renamed, source)
    fresh = tmp_path / "fresh.keras"
    built("transformer").save(fresh)
    with pytest.raises(Problems, match="sorted by name") as caught:
        convert(source, back, to="keras", like=fresh, live=False)
    assert "--pair norm1=" in str(caught.value)
    assert not back.exists()
    given = convert(source, back, to="keras", like=fresh, live=False, pairs={"norm1": "zz", "norm2": "aa"})
    assert {layer.name: layer.reason for layer in given.layers}["norm1"] == "zz (paired by the user)"
    found = convert(source, None, to="keras", like=saved("transformer"), live=False)
    assert {layer.name: layer.reason for layer in found.layers}["norm1"] == "zz (the same numbers)"
    fresh = built("transformer")
    fresh.load_weights(back)
    assert_same_weights(fresh, "transformer")


def test_numbers_in_names_decide_where_a_file_is_sorted(tmp_path: Path) -> None:
    """Twelve alike layers: "10" comes before "2" in a sorted file, and after it in the model."""
    import keras

    with precision(keras, "float64"):
        layers = [keras.layers.Dense(5, activation="tanh", bias_initializer="normal") for _ in range(12)]
        model = keras.Sequential([keras.Input((5,)), *layers])
    path, out, back = tmp_path / "alike.keras", tmp_path / "out.safetensors", tmp_path / "back.weights.h5"
    model.save(path)
    steps = [part for _ in range(12) for part in (torch.nn.Linear(5, 5), torch.nn.Tanh())]
    module = torch.nn.Sequential(*steps).double()
    save_file(module.state_dict(), out)
    convert(path, tmp_path / "torch.pt", to="torch", like=out, live=False)
    module.load_state_dict(torch.load(tmp_path / "torch.pt"))
    x = np.linspace(-1, 1, 15).reshape(3, 5)
    np.testing.assert_allclose(module(torch.from_numpy(x)).detach().numpy(), np.asarray(model(x)), rtol=0, atol=1e-12)
    save_file(module.state_dict(), out)
    convert(out, back, to="keras", like=path, live=False)
    wanted = [w.copy() for w in model.get_weights()]
    model.set_weights([w * 0 for w in wanted])
    model.load_weights(back)
    for old, new in zip(wanted, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
