"""TensorFlow checkpoints, of names and of objects: converted to torch, they compute what TensorFlow computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tf_parts import RNG, filled, nonzero

from layoutx.convert import convert
from layoutx.errors import LayoutxError
from layoutx.inspect import inspect

pytest.importorskip("tf_keras", reason="the models are those of tf_keras")

# TensorFlow 1


@pytest.fixture(scope="module")
def tf1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A graph with a BasicLSTMCell, two cells that read both ways and a dense layer; its checkpoint and outputs."""
    import tensorflow as tf
    from tf_keras.src.layers.rnn import legacy_cells as cells

    v1, path = tf.compat.v1, tmp_path_factory.mktemp("tf1") / "model.ckpt"
    data = RNG.normal(size=(2, 3, 7)).astype("float32")
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, (None, 3, 7))
        y, _ = v1.nn.dynamic_rnn(cells.BasicLSTMCell(5), x, dtype=tf.float32)
        pair, _ = v1.nn.bidirectional_dynamic_rnn(cells.LSTMCell(3), cells.LSTMCell(3), y, dtype=tf.float32)
        both = tf.concat(pair, -1)
        kernel, bias = v1.get_variable("out/kernel", (6, 2)), v1.get_variable("out/bias", (2,))
        z = tf.tensordot(both, kernel, 1) + bias
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            for variable in v1.global_variables():
                session.run(variable.assign(RNG.normal(size=variable.shape).astype("float32")))
            v1.train.Saver().save(session, str(path), write_meta_graph=False)
            expected = session.run(z, {x: data})
    return {"path": path.with_name("model.ckpt.index"), "x": data, "y": expected}


def tf1_outputs(weights: dict[str, torch.Tensor], data: np.ndarray) -> np.ndarray:
    first = filled(torch.nn.LSTM(7, 5, batch_first=True), weights, "rnn.basic_lstm_cell")
    second = torch.nn.LSTM(5, 3, batch_first=True, bidirectional=True)
    second = filled(second, weights, "bidirectional_rnn.lstm_cell")
    last = filled(torch.nn.Linear(6, 2), weights, "out")
    with torch.no_grad():
        found: np.ndarray = last(second(first(torch.from_numpy(data))[0])[0]).numpy()
    return found


def test_a_graph_of_tensorflow_1_runs_in_torch(tf1: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    report = convert(tf1["path"], out, to="torch", allow=["rounds"])
    np.testing.assert_allclose(tf1_outputs(load_file(out), tf1["x"]), tf1["y"], rtol=0, atol=1e-5)
    notes = {layer.name: " ".join(layer.notes) for layer in report.layers}
    assert "the scope 'basic_lstm_cell'" in notes["rnn.basic_lstm_cell"]
    assert "forget_bias=1.0 is the default" in notes["rnn.basic_lstm_cell"]
    assert "no scope of 'out' speaks of a recurrent cell" in notes["out"]


def test_the_forget_bias_is_what_the_user_says(tf1: dict[str, Any], tmp_path: Path) -> None:
    out, other = tmp_path / "x.safetensors", tmp_path / "y.safetensors"
    convert(tf1["path"], out, to="torch", allow=["rounds"])
    report = convert(tf1["path"], other, to="torch", allow=["rounds"], values={"forget_bias": 0.25})
    name = "rnn.basic_lstm_cell.bias_ih_l0"
    gap = (load_file(out)[name] - load_file(other)[name]).reshape(4, 5)
    assert [round(float(g), 5) for g in gap.mean(1)] == [0, 0.75, 0, 0]
    assert np.abs(tf1_outputs(load_file(other), tf1["x"]) - tf1["y"]).max() > 1e-3
    assert all("is the default" not in note for layer in report.layers for note in layer.notes)


# TensorFlow 2


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A CNN of tf_keras whose flattened map has another order in torch; its checkpoint, config and outputs."""
    import tensorflow as tf
    import tf_keras

    layers, folder = tf_keras.layers, tmp_path_factory.mktemp("tf2")
    inner = tf_keras.Sequential([layers.Input((2, 3, 5)), layers.Flatten(), layers.Dense(11, "tanh")], name="head")
    stack = [layers.Conv2D(5, (3, 2), name="c"), layers.BatchNormalization(name="bn"), layers.ReLU()]
    model = nonzero(tf_keras.Sequential([layers.Input((4, 4, 3)), *stack, inner, layers.Dense(7, name="d")]))
    path = tf.train.Checkpoint(model=model, optimizer=tf_keras.optimizers.Adam()).save(str(folder / "ck"))
    (folder / "model.json").write_text(model.to_json())
    data = RNG.normal(size=(2, 4, 4, 3)).astype("float32")
    y = model(data).numpy()
    return {"path": Path(f"{path}.index"), "config": folder / "model.json", "x": data, "y": y, "model": model}


def cnn_outputs(weights: dict[str, torch.Tensor], data: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    conv, norm, hidden, last = (
        filled(module, weights, name)
        for module, name in zip(
            (
                torch.nn.Conv2d(3, 5, (3, 2)),
                torch.nn.BatchNorm2d(5, eps=1e-3),
                torch.nn.Linear(30, 11),
                torch.nn.Linear(11, 7),
            ),
            names,
            strict=True,
        )
    )
    with torch.no_grad():
        found = torch.relu(norm(conv(torch.from_numpy(data).movedim(-1, 1))))
        result: np.ndarray = last(torch.tanh(hidden(found.flatten(1)))).numpy()
    return result


def test_a_checkpoint_of_objects_with_its_config(cnn: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    report = convert(cnn["path"], out, to="torch", config=cnn["config"])
    names = ("c", "bn", "head.dense", "d")
    assert {layer.name.replace("/", ".").rstrip("_0123456789") for layer in report.layers} == set(names)
    weights = {
        key.replace(next(k for k in load_file(out) if "head" in k).split(".")[1], "dense"): value
        for key, value in load_file(out).items()
    }
    np.testing.assert_allclose(cnn_outputs(weights, cnn["x"], names), cnn["y"], rtol=0, atol=1e-5)


def test_without_a_config_the_paths_are_the_names_and_no_order_is_guessed(cnn: dict[str, Any], tmp_path: Path) -> None:
    view = inspect(cnn["path"])
    assert view.framework == "keras"
    names = [f"model/layer_with_weights-{n}" for n in ("0", "1", "2/layer_with_weights-0", "3")]
    assert [layer.name for layer in view.layers] == names
    assert [layer.form for layer in view.layers] == ["keras.Conv2D", "keras.BatchNormalization", *["keras.Dense"] * 2]
    out = tmp_path / "x.safetensors"
    with pytest.raises(LayoutxError, match="30 input rows"):
        convert(cnn["path"], out, to="torch")
    convert(cnn["path"], out, to="torch", keep_order=["*"])
    weights = load_file(out)
    paths = tuple(name.replace("/", ".") for name in names)
    kept = weights[f"{paths[2]}.weight"]
    weights[f"{paths[2]}.weight"] = kept.reshape(11, 2, 3, 5).movedim(-1, 1).reshape(11, 30)
    np.testing.assert_allclose(cnn_outputs(weights, cnn["x"], paths), cnn["y"], rtol=0, atol=1e-5)


def test_a_config_of_another_model_is_refused(cnn: dict[str, Any]) -> None:
    import tf_keras

    other = tf_keras.Sequential([tf_keras.layers.Input((3,)), tf_keras.layers.Dense(2)])
    with pytest.raises(LayoutxError, match="does not explain"):
        convert(cnn["path"], None, to="torch", config=json.loads(other.to_json()))


@pytest.mark.parametrize("major", [2, 3])
def test_layers_with_parts_are_found_in_both_versions(major: int, tmp_path: Path) -> None:
    """Attention, both directions, wrapped layers and cells: each tensor goes where get_weights has it."""
    import keras
    import tensorflow as tf
    import tf_keras

    lib = keras if major == 3 else tf_keras
    layers = lib.layers
    given = layers.Input((4,), name="given")
    x = layers.Embedding(17, 7)(given)
    x = layers.MultiHeadAttention(3, 5)(x, x)
    x = layers.LayerNormalization()(x)
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(3))(x)
    cells = [layers.LSTMCell(2), layers.GRUCell(11)]
    x = layers.RNN(cells)(x) if major == 2 else layers.RNN(cells[0])(x)  # Keras 3.15 saves no list of cells
    model = nonzero(lib.Model(given, x))
    path = Path(tf.train.Checkpoint(model=model).save(str(tmp_path / "ck")) + ".index")
    (tmp_path / "model.json").write_text(model.to_json())
    report = convert(path, tmp_path / "x.safetensors", to="torch", config=tmp_path / "model.json")
    kinds = ["Embedding", "MultiHeadAttention", "LayerNormalization", "Bidirectional.LSTM", "Dense", "LSTM"]
    assert [layer.source.removeprefix("keras.") for layer in report.layers] == [*kinds, *["GRU"] * (major == 2)]
    (folder := tmp_path / "folder").mkdir()
    model.save(folder / "model.keras")
    convert(folder / "model.keras", folder / "x.safetensors", to="torch")
    found, expected = load_file(tmp_path / "x.safetensors"), load_file(folder / "x.safetensors")
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
