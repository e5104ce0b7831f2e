"""SavedModel folders: variables by object names or their own, Keras 2 configs, what is no weight, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError
from layoutx.files.open import open_store

tf = pytest.importorskip("tensorflow")


def filled(variables: Any) -> list[np.ndarray[Any, Any]]:
    """Every variable at values of its own; the values."""
    values = []
    for at, one in enumerate(variables):
        values.append(np.random.default_rng(at).random(tuple(one.shape)).astype("float32") + 0.5)
        one.assign(values[-1])
    return values


def layers(library: Any) -> list[Any]:
    k = library.layers
    return [k.Conv2D(5, 3, name="c"), k.BatchNormalization(name="bn"), k.Flatten(), k.Dense(7, name="d")]


def test_a_keras_2_model_has_its_config_and_leaves_its_optimizer_out(tmp_path: Path) -> None:
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.layers.InputLayer((6, 5, 3)), *layers(tf_keras)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    values = filled(model.get_layer("d").weights)
    model.save(tmp_path / "sm", save_format="tf")
    view = lx.inspect(tmp_path / "sm")
    assert [layer.form for layer in view.layers if layer.form] == [
        "keras.Conv2D",
        "keras.BatchNormalization",
        "keras.Dense",
    ]
    assert any(why == "optimizer state" for why in view.leftover.values())
    report = lx.convert(tmp_path / "sm", tmp_path / "out.npz", to="torch")
    assert len(report.layers) == 3
    weight = np.load(tmp_path / "out.npz")["d.weight"]
    rows = values[0].reshape(4, 3, 5, 7).transpose(3, 2, 0, 1).reshape(7, 60)
    assert np.array_equal(weight, rows)
    assert not np.array_equal(weight, values[0].T)


def test_a_cell_is_known_by_its_layer_and_not_by_a_list_of_variables(tmp_path: Path) -> None:
    """The lists of variables that a SavedModel keeps are the shortest way to what lies in a cell."""
    tf_keras = pytest.importorskip("tf_keras")
    k = tf_keras.layers
    own = [k.Bidirectional(k.LSTM(3, return_sequences=True), name="b"), k.GRU(4, name="g"), k.Dense(2, name="d")]
    model = tf_keras.Sequential([k.InputLayer((6, 5)), *own])
    values = filled(model.weights)
    model.save(tmp_path / "sm", save_format="tf")
    view = lx.inspect(tmp_path / "sm")
    assert [layer.form for layer in view.layers if layer.form] == [
        "keras.Bidirectional.LSTM",
        "keras.GRU",
        "keras.Dense",
    ]
    lx.convert(tmp_path / "sm", tmp_path / "out.npz", to="torch")
    found = np.load(tmp_path / "out.npz")
    assert np.array_equal(found["b.weight_hh_l0_reverse"], values[4].T)
    z, r, h = np.split(values[6].T, 3)
    assert np.array_equal(found["g.weight_ih_l0"], np.concatenate([r, z, h]))


def test_an_export_of_keras_3_keeps_the_variables_own_names(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Input((6, 5, 3)), *layers(keras)], name="net")
    values = filled(model.weights)
    model.export(tmp_path / "sm", verbose=False)
    store = open_store(tmp_path / "sm")
    named = {variable.path: value for variable, value in zip(model.weights, values, strict=True)}
    assert set(store.tensors) == set(named)
    assert "net/bn/moving_variance" in named
    assert all(np.array_equal(store.tensors[name].read(), value) for name, value in named.items())
    with pytest.raises(LayoutxError, match="order of the 60 input rows"):
        lx.convert(tmp_path / "sm", None, to="torch")
    report = lx.convert(tmp_path / "sm", None, to="torch", keep_order=["net/d"])
    assert len(report.layers) == 3


def test_a_module_is_known_by_its_attributes(tmp_path: Path) -> None:
    module = tf.Module()
    module.head = tf.Module()
    module.head.kernel, module.head.bias = tf.Variable(np.ones((3, 5), "f4")), tf.Variable(np.zeros(5, "f4"))
    tf.saved_model.save(module, str(tmp_path / "sm"))
    store = open_store(tmp_path / "sm")
    assert {name: tensor.shape for name, tensor in store.tensors.items()} == {"head/kernel": (3, 5), "head/bias": (5,)}
    assert [layer.name for layer in lx.inspect(tmp_path / "sm").layers] == ["head"]


def test_a_saved_model_without_variables_is_refused(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(LayoutxError, match="without variables"):
        open_store(tmp_path)
