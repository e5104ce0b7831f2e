"""Looking at a model: named axes, indices, gates as views, and files that do not fit their forms."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited import DIGITS, edited, layer
from safetensors.numpy import save_file

import layoutx as lx
from layoutx.model import load
from layoutx.show.views import ModelView

inspecting = importlib.import_module("layoutx.inspect")  # the package's own `inspect` is the function


@pytest.fixture(scope="module")
def digits() -> ModelView:
    return lx.inspect(DIGITS)


def test_layers_and_tensors(digits: ModelView) -> None:
    assert (digits.framework, digits.version, digits.format) == ("keras", "3.15.1", "keras")
    assert digits.parameters == 6726
    bn1 = digits["bn1"]
    assert [(t.name, t.index, t.position, t.role) for t in bn1.tensors] == [
        ("gamma", 0, 2, "trainable"),
        ("beta", 1, 3, "trainable"),
        ("moving_mean", 2, 4, "state"),
        ("moving_variance", 3, 5, "state"),
    ]
    assert digits["dense1"].tensors[0].text == "kernel (h×w×c 80, output 48)"
    assert digits["dense1"].notes == ("input axis: flatten(conv2), in the order (h w c)",)
    assert digits["conv2"].config == {"strides": 2, "padding": "same", "activation": "relu"}
    assert "22 more tensors, optimizer state" in str(digits)


def test_get_weights_has_the_stated_order(digits: ModelView) -> None:
    keras = pytest.importorskip("keras")
    weights = keras.saving.load_model(DIGITS).get_weights()
    for view in digits:
        for tensor in view.tensors:
            assert tensor.position is not None
            np.testing.assert_array_equal(view.sources[tensor.name].read(), weights[tensor.position])


def test_an_unknown_layer_is_named(digits: ModelView) -> None:
    with pytest.raises(lx.UsageError, match="no layer is called 'dense9'"):
        digits["dense9"]


LSTM = {
    "rnn.weight_ih_l0": (4 * 5, 7),
    "rnn.weight_hh_l0": (4 * 5, 5),
    "rnn.bias_ih_l0": (4 * 5,),
    "rnn.bias_hh_l0": (4 * 5,),
}


@pytest.fixture
def torch_lstm(tmp_path: Path) -> tuple[ModelView, dict[str, Any]]:
    rng = np.random.default_rng(3)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in LSTM.items()}
    save_file(arrays, tmp_path / "lstm.safetensors")
    return lx.inspect(tmp_path / "lstm.safetensors"), arrays


def test_a_gate_is_a_view(torch_lstm: tuple[ModelView, dict[str, Any]]) -> None:
    view, arrays = torch_lstm
    assert view["rnn"].form == "torch.LSTM"
    gate = view["rnn"].part("w_input.f")
    np.testing.assert_array_equal(gate, arrays["rnn.weight_ih_l0"][5:10].T)  # torch: i f g o
    np.testing.assert_array_equal(view["rnn"].part("w_input.f", axes="stored"), arrays["rnn.weight_ih_l0"][5:10])
    np.testing.assert_array_equal(view["rnn"].part("w_input.c"), arrays["rnn.weight_ih_l0"][10:15].T)
    assert not gate.flags.writeable
    assert gate.base is not None


def test_a_gate_of_keras_is_input_by_hidden(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((3, 7)), keras.layers.LSTM(5, name="lstm_1")])
    model.save(tmp_path / "m.keras")
    kernel = model.get_weights()[0]
    view = lx.inspect(tmp_path / "m.keras")["lstm_1"]
    np.testing.assert_array_equal(view.part("w_input.f"), kernel[:, 5:10])
    np.testing.assert_array_equal(view.part("w_input"), kernel)
    assert view.roles()["w_input"].shape == (1, 4, 5, 7)
    live = lx.inspect(model)["lstm_1"]
    np.testing.assert_array_equal(live.part("w_input.f"), kernel[:, 5:10])


def test_a_part_that_is_not_there(torch_lstm: tuple[ModelView, dict[str, Any]]) -> None:
    with pytest.raises(lx.UsageError) as error:
        torch_lstm[0]["rnn"].part("w_input.q")
    assert "rnn has no part 'w_input.q'" in str(error.value)
    assert "w_input.f" in str(error.value)


def test_a_whole_role_is_its_tensor(digits: ModelView) -> None:
    kernel = digits["dense1"].part("kernel")
    assert kernel.shape == (80, 48)
    assert set(digits["bn1"].roles()) >= {"gamma", "beta", "mean", "variance"}


def test_a_misfit_is_shown_not_raised(tmp_path: Path) -> None:
    def weights(file: Any) -> None:
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = np.ones((80, 48, 2), np.float32)

    view = lx.inspect(edited(tmp_path / "bad.keras", weights=weights))
    assert view["dense1"].problem == "kernel has shape (80, 48, 2), 3 dimensions"
    assert "does not fit keras.Dense: kernel has shape (80, 48, 2), 3 dimensions" in str(view)
    assert view["dense1"].tensors[0].text == "kernel (80, 48, 2)"
    with pytest.raises(lx.UsageError, match="the form of dense1 is not known"):
        view["dense1"].part("kernel")
    json.dumps(view.to_dict(), allow_nan=False)


def test_an_unknown_class_is_shown_with_its_tensors(tmp_path: Path) -> None:
    def config(found: dict[str, Any]) -> None:
        layer(found, "output").update(class_name="Mystery", module="pkg", registered_name="pkg>Mystery")

    source = edited(tmp_path / "odd.keras", config, lambda file: file.move("layers/dense_1", "layers/mystery"))
    text = str(lx.inspect(source))
    assert "output  Mystery (unknown class)" in text
    assert "(48, 10)" in text
    assert "--form LAYER=FORM" in text
    named = lx.inspect(source, forms={"output": "keras.Dense"})
    assert named["output"].tensors[0].text == "kernel (input 48, output 10)"


def test_a_certificate_says_the_forms(tmp_path: Path) -> None:
    out = tmp_path / "d.safetensors"
    lx.convert(DIGITS, out, to="torch", live=False)
    view = lx.inspect(out)
    assert view["conv1"].form == "torch.Conv2d"
    assert view["bn1"].notes == ("form from the file's certificate",)
    assert "Made by layoutx 0.1.0 from digits.keras (keras 3.15.1) for torch: fills, round trip bit-exact." in str(view)


def test_a_file_with_a_certificate_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, plain, read = tmp_path / "d.safetensors", load.state_records, list[int]()
    lx.convert(DIGITS, out, to="torch", live=False)
    monkeypatch.setattr(load, "state_records", lambda *given: read.append(1) or plain(*given))
    view = lx.inspect(out)
    assert len(read) == 1
    forms = {layer.name: layer.form for layer in view.layers}
    monkeypatch.setattr(inspecting, "_formed", None)  # nor is anything looked at again
    again = lx.inspect(out, values={"conv1.groups": 1})
    assert len(read) == 2
    assert {layer.name: layer.form for layer in again.layers} == forms


def test_colours_are_only_added(digits: ModelView) -> None:
    import re

    coloured = digits.text(99, color=True)
    assert "\x1b[" in coloured
    plain = "\n".join(line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", coloured).split("\n"))
    assert plain == digits.text(99)
