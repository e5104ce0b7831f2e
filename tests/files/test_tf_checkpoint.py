"""Checkpoints that TensorFlow 1 savers, TensorFlow 2, tf_keras and Keras 3 wrote."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import numpy as np
import pytest

from layoutx.errors import FileError, UsageError
from layoutx.files.magic import TABLE as MAGIC
from layoutx.files.open import open_store
from layoutx.files.tf_checkpoint import SKIPPED, STYLE, read_checkpoint


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def one(tf, tmp_path_factory):
    """A TF 1 checkpoint of two stacked cells after training with three optimizers, and its variables' values."""
    cells = pytest.importorskip("tf_keras.src.layers.rnn.legacy_cells")
    v1, prefix = tf.compat.v1, str(tmp_path_factory.mktemp("tf1") / "m.ckpt")
    with tf.Graph().as_default() as graph:
        stack = cells.MultiRNNCell([cells.BasicLSTMCell(3), cells.LSTMCell(5, use_peepholes=True)])
        y, _ = v1.nn.dynamic_rnn(stack, tf.ones([2, 3, 7]), dtype=tf.float32)
        parts = v1.get_variable("parts", (4, 3), partitioner=v1.fixed_size_partitioner(2))
        weights = v1.trainable_variables()
        loss = tf.reduce_sum(y) + tf.reduce_sum(parts)
        step = v1.train.get_or_create_global_step()
        optimizers = [v1.train.AdamOptimizer(0.1), v1.train.MomentumOptimizer(0.1, 0.9), v1.train.FtrlOptimizer(0.1)]
        train = [optimizer.minimize(loss, step) for optimizer in optimizers]
        averages = tf.train.ExponentialMovingAverage(0.9).apply(weights[:-2])
        with v1.Session(graph=graph) as session:
            session.run(v1.global_variables_initializer())
            session.run([train, averages])
            v1.train.Saver().save(session, prefix)
            values = {v.op.name: session.run(v) for v in weights[:-2]}
            values["parts"] = np.concatenate([session.run(v) for v in weights[-2:]])
    return Path(prefix + ".index"), values


def test_names_of_tensorflow_1(one):
    path, values = one
    assert path.read_bytes().endswith(MAGIC)
    store = read_checkpoint(path)
    assert (store.format, store.metadata[STYLE]) == ("tf_checkpoint", "names")
    assert store.tensors.keys() == values.keys()
    assert "rnn/multi_rnn_cell/cell_1/lstm_cell/w_o_diag" in store.tensors
    for name, value in values.items():
        found = store.tensors[name].read()
        assert (found.shape, found.dtype) == (store.tensors[name].shape, store.tensors[name].dtype)
        np.testing.assert_array_equal(found, value)
    skipped = json.loads(store.metadata[SKIPPED])
    kernel = "rnn/multi_rnn_cell/cell_0/basic_lstm_cell/kernel"
    assert skipped[f"{kernel}/Adam_1"] == "optimizer state (Adam_1)"
    assert skipped[f"{kernel}/Ftrl"] == "optimizer state (Ftrl)"
    assert skipped[f"{kernel}/ExponentialMovingAverage"] == "moving averages (ExponentialMovingAverage)"
    assert {name for name in skipped if "/" not in name} == {"beta1_power", "beta2_power", "global_step"}


def test_whatever_file_of_a_checkpoint_is_named(one, tmp_path):
    """People give what TensorFlow prints, the largest file, or the folder."""
    path, values = one
    for name in ("m.ckpt", "m.ckpt.data-00000-of-00001", "m.ckpt.meta", "."):
        assert open_store(path.parent / name).tensors.keys() == values.keys()
    for name in ("a.index", "b.index"):
        (tmp_path / name).write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match=r"name a file in it: a\.index, b\.index"):
        open_store(tmp_path)


@pytest.mark.parametrize("library", ["tf_keras", "keras"])
def test_objects_of_tensorflow_2(tf, tmp_path, library):
    """Every weight is there once, under a name that leads through the model, whatever way TensorFlow took."""
    keras = pytest.importorskip(library)
    layers = keras.layers
    own = [layers.Bidirectional(layers.LSTM(3)), layers.BatchNormalization(), layers.Dense(2)]
    model = keras.Sequential([layers.Input((5, 7)), *own])
    model.compile("adam", "mse", metrics=["mae"])
    rng = np.random.default_rng(3)
    model.fit(rng.normal(size=(4, 5, 7)), rng.normal(size=(4, 2)), verbose=0)
    prefix = tf.train.Checkpoint(net=model, opt=model.optimizer).save(str(tmp_path / "m"))
    store = read_checkpoint(tmp_path / (prefix.rpartition("/")[2] + ".index"))
    assert store.metadata[STYLE] == "objects"
    kept = {name: tensor.read() for name, tensor in store.tensors.items()}
    assert len(kept) == len(model.weights) == 12
    assert all(name.startswith("net/") for name in kept)
    for value in model.get_weights():
        assert sum(np.array_equal(value, other) for other in kept.values()) == 1
    assert {"moving_mean", "moving_variance"} <= {name.rpartition("/")[2] for name in kept}
    skipped = json.loads(store.metadata[SKIPPED])
    assert skipped["save_counter"] == "counts what was saved"
    assert skipped["opt/_iterations"] == "optimizer state"
    assert len(skipped) > 20
    if library == "keras":  # TensorFlow itself calls a trained weight so
        reader = tf.train.load_checkpoint(prefix)
        assert reader.has_tensor("opt/_trainable_variables/0/.ATTRIBUTES/VARIABLE_VALUE")


def test_without_tensorflow(one, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name.split(".")[0] == "tensorflow":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UsageError, match="needs TensorFlow"):
        read_checkpoint(one[0])


def test_damaged_checkpoints(one, tmp_path):
    path, _ = one
    index = tmp_path / "m.index"
    index.write_bytes(path.read_bytes())
    with pytest.raises(FileError, match="has no data files"):
        read_checkpoint(index)
    data = tmp_path / "m.data-00000-of-00001"
    whole = path.with_suffix(".data-00000-of-00001").read_bytes()
    data.write_bytes(whole[:100])
    with pytest.raises(FileError, match="cut short"):
        read_checkpoint(index)
    data.write_bytes(whole)
    index.write_bytes(path.read_bytes()[:-20] + MAGIC)
    with pytest.raises(FileError, match=r"cannot read m\.index as a TensorFlow checkpoint"):
        read_checkpoint(index)
