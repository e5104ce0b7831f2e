"""TensorFlow Lite files: converted to torch, they compute what the interpreter computes; damaged ones are refused."""

from __future__ import annotations

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
from layoutx.port import port

pytest.importorskip("tf_keras", reason="the models are those of tf_keras")


def lite(model: Any, path: Path) -> Path:
    import tensorflow as tf

    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return path


def run_lite(path: Path, data: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_path=str(path))
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(given["index"], data.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], data)
    interpreter.invoke()
    found: np.ndarray = interpreter.get_tensor(made["index"])
    return found


@pytest.fixture(scope="module")
def lite_cnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tf_keras

    layers = tf_keras.layers
    stack = [layers.Conv2D(6, (3, 2), groups=2, name="c"), layers.BatchNormalization(), layers.ReLU()]
    stack += [layers.DepthwiseConv2D(2, name="dw"), layers.MaxPool2D((2, 1)), layers.Flatten()]
    model = tf_keras.Sequential([layers.Input((8, 5, 4)), *stack, layers.Dense(11, "relu", name="h")])
    model.add(layers.Dense(7, name="d"))
    return lite(nonzero(model), tmp_path_factory.mktemp("lite") / "cnn.tflite")


def test_a_tflite_cnn_runs_in_torch(lite_cnn: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.safetensors"
    convert(lite_cnn, out, to="torch")
    assert "filter (group×out 6, kh 3, kw 2, in 2)" in inspect(lite_cnn).text()  # the channels of the data tell it
    weights, data = load_file(out), RNG.normal(size=(1, 8, 5, 4)).astype("float32")
    kernel = next(name.removesuffix(".weight") for name, w in weights.items() if tuple(w.shape) == (6, 2, 3, 2))
    conv = filled(torch.nn.Conv2d(4, 6, (3, 2), groups=2), weights, kernel)
    depth = filled(torch.nn.Conv2d(6, 6, 2, groups=6), weights, "dw")
    hidden, last = filled(torch.nn.Linear(36, 11), weights, "h"), filled(torch.nn.Linear(11, 7), weights, "d")
    with torch.no_grad():
        x = depth(torch.relu(conv(torch.from_numpy(data).movedim(-1, 1))))
        y = last(torch.relu(hidden(torch.nn.functional.max_pool2d(x, (2, 1)).flatten(1))))
    np.testing.assert_allclose(y.numpy(), run_lite(lite_cnn, data), rtol=1e-5, atol=1e-4)


def test_a_tflite_lstm_runs_in_torch(tmp_path: Path) -> None:
    import tf_keras

    layers = tf_keras.layers
    both = layers.Bidirectional(layers.LSTM(5, return_sequences=True))
    stack = [
        layers.Input((6,), batch_size=1),
        layers.Embedding(17, 7, name="embedding"),
        both,
        layers.LSTM(3),
        layers.Dense(4, name="d"),
    ]
    path, out = lite(nonzero(tf_keras.Sequential(stack)), tmp_path / "lstm.tflite"), tmp_path / "x.safetensors"
    report = convert(path, out, to="torch")
    weights, data = load_file(out), np.array([[3, 1, 16, 0, 7, 2]], "float32")
    table = filled(torch.nn.Embedding(17, 7), weights, "embedding")
    notes = {layer.name: " ".join(layer.notes) for layer in report.layers}
    backward = next(name for name in ("lstm", "lstm_1") if "reads its data backwards" in notes[name])
    forward = "lstm_1" if backward == "lstm" else "lstm"
    assert all("clips cell states beyond 10" in notes[name] for name in ("lstm", "lstm_1", "lstm_2"))
    one, two = (filled(torch.nn.LSTM(7, 5, batch_first=True), weights, name) for name in (forward, backward))
    three, last = (
        filled(torch.nn.LSTM(10, 3, batch_first=True), weights, "lstm_2"),
        filled(torch.nn.Linear(3, 4), weights, "d"),
    )
    with torch.no_grad():
        x = table(torch.from_numpy(data).long())
        x = torch.cat([one(x)[0], two(x.flip(1))[0].flip(1)], -1)
        y = last(three(x)[0][:, -1])
    np.testing.assert_allclose(y.numpy(), run_lite(path, data), rtol=0, atol=1e-5)


def test_one_dimension_is_what_the_converter_hides(tmp_path: Path) -> None:
    """1D convolutions are 2D ones between reshapes, a dilation lies outside, a bias may be added behind."""
    import tf_keras

    layers = tf_keras.layers
    stack = [layers.Conv1D(5, 3, strides=2, name="a"), layers.Conv1D(7, 2, dilation_rate=2, name="b")]
    stack += [layers.DepthwiseConv1D(2, name="e"), layers.Conv1DTranspose(3, 2, strides=2, name="t")]
    path = lite(nonzero(tf_keras.Sequential([layers.Input((19, 2)), *stack])), tmp_path / "one.tflite")
    out = tmp_path / "x.safetensors"
    convert(path, out, to="torch")
    weights, data = load_file(out), RNG.normal(size=(1, 19, 2)).astype("float32")
    nn = torch.nn
    modules = [nn.Conv1d(2, 5, 3, stride=2), nn.Conv1d(5, 7, 2, dilation=2), nn.Conv1d(7, 7, 2, groups=7)]
    modules.append(nn.ConvTranspose1d(7, 3, 2, stride=2))
    x = torch.from_numpy(data).movedim(-1, 1)
    with torch.no_grad():
        for module, name in zip(modules, "abet", strict=True):
            x = filled(module, weights, name)(x)
    np.testing.assert_allclose(x.movedim(1, -1).numpy(), run_lite(path, data), rtol=1e-5, atol=1e-5)


def test_what_no_form_holds_is_refused_by_name(tmp_path: Path) -> None:
    """Quantised weights, and a normalisation that the converter could not fold into a convolution."""
    import tensorflow as tf
    import tf_keras

    layers = tf_keras.layers
    stack = [layers.Conv2D(5, 3, activation="relu"), layers.BatchNormalization(), layers.Flatten(), layers.Dense(11)]
    model = nonzero(tf_keras.Sequential([layers.Input((9, 9, 3)), *stack]))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path = tmp_path / "q.tflite"
    path.write_bytes(converter.convert())
    with pytest.raises(LayoutxError) as caught:
        convert(path, None, to="torch")
    assert "quantised (filter)" in str(caught.value)
    assert "a constant of MUL" in str(caught.value)


def test_damaged_files_are_errors_of_layoutx(lite_cnn: Path, tmp_path: Path) -> None:
    good, path, outcomes = lite_cnn.read_bytes(), tmp_path / "bad.tflite", []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        bad = bytearray(good)
        for at in rng.integers(8, len(bad), 1 + seed % 7):
            bad[at] = rng.integers(256)
        path.write_bytes(bytes(bad[: rng.integers(16, len(bad))] if seed % 9 == 8 else bad))
        try:
            inspect(path)
            outcomes.append("read")
        except LayoutxError:
            outcomes.append("refused")
    assert set(outcomes) == {"read", "refused"}


def test_a_dense_layer_over_rows_goes_back_into_its_model(tmp_path: Path) -> None:
    """Its bias is added after the Reshape that puts the rows together again."""
    import tf_keras

    layers = tf_keras.layers

    def built() -> Any:
        return tf_keras.Sequential([layers.Input((4, 5)), layers.Dense(7, "relu"), layers.Dense(3)])

    model, fresh = nonzero(built()), built()
    port(lite(model, tmp_path / "rows.tflite"), fresh)
    for one, other in zip(model.get_weights(), fresh.get_weights(), strict=True):
        assert one.tobytes() == other.tobytes()
