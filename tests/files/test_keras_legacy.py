"""Legacy `.h5`: every generation of names, in `weight_names` order."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from tricky import same_bits

from layoutx.errors import FileError
from layoutx.files.open import open_store


@pytest.mark.parametrize(("by", "name"), [("keras3", "m.h5"), ("keras2", "m.h5"), ("keras2", "w.h5")])
def test_groups_hold_each_layers_weights_in_its_order(request, by, name):
    folder, model = request.getfixturevalue(by)
    store = open_store(folder / name)
    assert list(store.groups) == [layer.name for layer in model.layers]
    for layer in model.layers:
        got = [store.tensors[key].read() for key in store.groups[layer.name]]
        assert len(got) == len(layer.get_weights())
        for array, want in zip(got, layer.get_weights(), strict=True):
            same_bits(array, want)
    assert store.backend == "tensorflow"
    assert store.version[0] == {"keras3": "3", "keras2": "2"}[by]
    assert (store.config is not None) == (name == "m.h5")
    assert any(key.startswith("optimizer_weights/") for key in store.tensors) == (name == "m.h5")


def test_keys_of_keras_2_and_3(keras2, keras3):
    assert open_store(keras2[0] / "m.h5").groups["a_last"] == ("a_last/a_last/kernel:0", "a_last/a_last/bias:0")
    assert open_store(keras3[0] / "m.h5").groups["a_last"][0].startswith("a_last/sequential")


def _legacy(path, layers, *, root="", split=False, as_bytes=True, **attributes):
    """A legacy file by hand: layers = {layer: {weight: array}}."""
    code = (lambda s: s.encode()) if as_bytes else (lambda s: s)
    with h5py.File(path, "w") as file:
        for key, value in attributes.items():
            file.attrs[key] = value
        group = file.create_group(root) if root else file
        names = [code(name) for name in layers]
        if split:
            group.attrs["layer_names0"], group.attrs["layer_names1"] = names[:1], names[1:]
        else:
            group.attrs["layer_names"] = names
        for layer, weights in layers.items():
            one = group.create_group(layer)
            if split and weights:
                one.attrs["weight_names0"] = [code(next(iter(weights)))]
                one.attrs["weight_names1"] = [code(name) for name in list(weights)[1:]]
            else:
                one.attrs["weight_names"] = [code(name) for name in weights]
            for name, array in weights.items():
                one[name] = array


@pytest.mark.parametrize("as_bytes", [True, False])
@pytest.mark.parametrize("split", [True, False])
def test_split_attributes_and_keras_1_names(tmp_path, split, as_bytes):
    weights = {"conv_1": {"conv_1_W": np.arange(7.0), "conv_1_b": np.arange(3.0)}, "flat": {}, "a": {"a_W": np.ones(2)}}
    _legacy(
        tmp_path / "x.h5",
        weights,
        root="model_weights",
        split=split,
        as_bytes=as_bytes,
        model_config=b'{"class_name": "Sequential", "config": [], "rate": NaN}',
        keras_version=b"1.2.2",
    )
    store = open_store(tmp_path / "x.h5")
    assert store.groups == {"conv_1": ("conv_1/conv_1_W", "conv_1/conv_1_b"), "flat": (), "a": ("a/a_W",)}
    assert np.isnan(store.config["rate"])
    assert (store.version, store.backend) == ("1.2.2", "")
    same_bits(store.tensors["conv_1/conv_1_b"].read(), np.arange(3.0))


def test_the_oldest_keras_1(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["nb_layers"] = 2
        for k, count in ((0, 2), (1, 0)):
            group = file.create_group(f"layer_{k}")
            group.attrs["nb_params"] = count
            for p in range(count):
                group[f"param_{p}"] = np.full(3 + p, p + 0.5)
    store = open_store(tmp_path / "x.h5")
    assert store.groups == {"layer_0": ("layer_0/param_0", "layer_0/param_1"), "layer_1": ()}
    same_bits(store.tensors["layer_0/param_1"].read(), np.full(4, 1.5))


def test_weights_that_no_layer_owns(tmp_path):
    _legacy(tmp_path / "x.h5", {"a": {"a/kernel:0": np.ones(2)}})
    with h5py.File(tmp_path / "x.h5", "a") as file:
        top = file.create_group("top_level_model_weights")
        top.attrs["weight_names"] = [b"scale:0"]
        top["scale:0"] = np.full(5, 2.0)
    store = open_store(tmp_path / "x.h5")
    assert store.groups["top_level_model_weights"] == ("top_level_model_weights/scale:0",)
    same_bits(store.tensors["top_level_model_weights/scale:0"].read(), np.full(5, 2.0))


def test_same_weight_name_in_two_layers_stays_apart(tmp_path):
    _legacy(tmp_path / "x.h5", {"a": {"w": np.ones(2)}, "b": {"w": np.full(2, 3.0)}})
    store = open_store(tmp_path / "x.h5")
    same_bits(store.tensors["a/w"].read(), np.ones(2))
    same_bits(store.tensors["b/w"].read(), np.full(2, 3.0))


def test_refusals(tmp_path):
    path = tmp_path / "x.h5"
    _legacy(path, {"a": {"w": np.ones(2)}}, model_config=b"{'single': 'quotes'}")
    with pytest.raises(FileError, match="model_config is not valid JSON"):
        open_store(path)
    _legacy(path, {"a": {"w": np.ones(2)}})
    with h5py.File(path, "a") as file:
        del file["a/w"]
    with pytest.raises(FileError, match="has no 'a/w'"):
        open_store(path)
    with h5py.File(path, "a") as file:
        file["a/w"] = h5py.ExternalLink("other.h5", "/w")
    with pytest.raises(FileError, match="holds a link"):
        open_store(path)
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = b"{}"
    with pytest.raises(FileError, match="has no weights"):
        open_store(path)
