"""Functions of the source that show in no tensor are told, wherever the target has to be built with them."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest

from layoutx.convert import convert

pytestmark = pytest.mark.models


def words(result: object) -> str:
    return " ".join(str(result).split())


def rnn(tmp_path: Path, activation: str) -> tuple[Path, object]:
    keras = pytest.importorskip("keras")
    layers = [keras.Input((7, 3)), keras.layers.SimpleRNN(5, activation=activation, name="rnn")]
    model = keras.Sequential(layers)
    model.set_weights([np.random.default_rng(3).normal(size=w.shape) for w in model.get_weights()])
    path = tmp_path / "model.keras"
    model.save(path)
    return path, model


def test_what_torch_is_told_is_what_keras_computes(tmp_path: Path) -> None:
    """A state dict loads into any torch.nn.RNN: without the word, its tanh gave another function in silence."""
    torch = pytest.importorskip("torch")
    path, model = rnn(tmp_path, "relu")
    text = str(convert(path, tmp_path / "out.pt", to="torch"))
    (told,) = re.findall(r'nonlinearity="(\w+)"; torch\'s default is "tanh"', text)
    module = torch.nn.Sequential()
    module.rnn = torch.nn.RNN(3, 5, nonlinearity=told, batch_first=True)
    module.load_state_dict(torch.load(tmp_path / "out.pt"), strict=True)
    x = np.random.default_rng(5).normal(size=(2, 7, 3)).astype("float32")
    y = module.rnn(torch.from_numpy(x))[0][:, -1].detach().numpy()
    np.testing.assert_allclose(y, model(x), rtol=1e-5)


def test_the_default_is_not_told_nor_what_the_target_has(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    assert "nonlinearity" not in str(convert(rnn(tmp_path, "tanh")[0], to="torch"))
    path, _ = rnn(tmp_path, "relu")
    built = torch.nn.Sequential(torch.nn.RNN(3, 5, nonlinearity="relu", batch_first=True))
    assert "nonlinearity" not in str(convert(path, to="torch", like=built))
    torch.save(built.state_dict(), tmp_path / "theirs.pt")  # names alone do not tell it
    assert 'nonlinearity="relu"' in str(convert(path, to="torch", like=tmp_path / "theirs.pt"))


def test_an_old_file_of_hard_gates(tmp_path: Path) -> None:
    """Keras 2.3 and before: LSTMs had hard sigmoids, jax.nn.hard_sigmoid is another function."""
    tf_keras = pytest.importorskip("tf_keras")
    layers = [tf_keras.Input((7, 3)), tf_keras.layers.LSTM(5, recurrent_activation="hard_sigmoid", activation="elu")]
    path = tmp_path / "model.h5"
    tf_keras.Sequential(layers).save(path, save_format="h5")
    text = words(convert(path, to="flax"))
    assert 'gate_fn="hard_sigmoid_0.2" (clip(0.2 x + 0.5, 0, 1)); flax\'s default is "sigmoid"' in text
    assert 'activation_fn="elu"; flax\'s default is "tanh"' in text


def test_only_layers_that_theano_turns_ask_for_the_backend(tmp_path: Path) -> None:
    """A Keras 1 file's LSTM and Dense were "taken for TensorFlow's; if that is wrong: --backend tensorflow"."""
    path = tmp_path / "weights.h5"
    rng = np.random.default_rng(7)
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["layer_names"] = b"1.2.2", [b"dense_1"]
        group = file.create_group("dense_1")
        group.attrs["weight_names"] = [b"dense_1_W", b"dense_1_b"]
        group["dense_1_W"], group["dense_1_b"] = rng.normal(size=(3, 5)), rng.normal(size=5)
    text = words(convert(path, to="flax"))
    assert "backend" not in text
