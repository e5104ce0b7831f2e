"""What a target may be: its framework, its dtype, its layers; and consent that is spelled as it is meant."""

from __future__ import annotations

import numpy as np
import pytest

from layoutx.convert import convert
from layoutx.errors import ConsentError, LayoutxError, MatchError, UsageError
from layoutx.files.open import open_store

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")


def dense(units: int, dtype: str = "float32", extra: bool = False):
    layers = [keras.layers.Dense(units, name="a", dtype=dtype)]
    layers += [keras.layers.Dense(3, name="more", dtype=dtype)] if extra else []
    model = keras.Sequential([keras.Input((7,), dtype=dtype), *layers])
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    return model


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "m.keras"
    dense(5).save(path)
    return path


def test_a_torch_module_is_no_target_for_onnx(source, tmp_path):
    target = torch.nn.Sequential()
    target.add_module("a", torch.nn.Linear(7, 5))
    with pytest.raises(UsageError, match="the target is a torch model, the conversion one to onnx"):
        convert(source, tmp_path / "o.safetensors", to="onnx", like=target)
    assert not (tmp_path / "o.safetensors").exists()


def test_a_live_keras_model_lends_no_file_structure(source, tmp_path):
    with pytest.raises(UsageError, match="not of a live model"):
        convert(source, tmp_path / "o.weights.h5", to="keras", like=dense(5))


def test_alike_layers_under_other_names_are_paired_by_their_wiring(tmp_path):
    def parts(names):
        x = keras.Input((5,), name="x")
        a, b, c = (keras.layers.Dense(5, name=name, bias_initializer="normal") for name in names)
        return keras.Model(x, keras.layers.Add()([c(b(a(x))), a(x)]))

    first, second = parts(["one", "two", "three"]), parts(["red", "green", "blue"])
    first.save(tmp_path / "a.keras")
    second.save(tmp_path / "b.keras")
    convert(tmp_path / "a.keras", tmp_path / "o.keras", to="keras", like=tmp_path / "b.keras")
    x = np.random.default_rng(3).normal(size=(4, 5)).astype("float32")
    found = keras.models.load_model(tmp_path / "o.keras")
    np.testing.assert_array_equal(np.asarray(found(x)), np.asarray(first(x)))


def test_a_template_with_one_layer_more_is_refused(source, tmp_path):
    dense(5, extra=True).save(tmp_path / "t.keras")
    with pytest.raises(MatchError, match="2 tensors of the keras model have no layer") as caught:
        convert(source, tmp_path / "o.keras", to="keras", like=tmp_path / "t.keras")
    assert "more.kernel, more.bias" in str(caught.value)
    assert not (tmp_path / "o.keras").exists()


def test_a_narrower_template_needs_consent(source, tmp_path):
    dense(5, dtype="float16").save(tmp_path / "t.keras")
    with pytest.raises(ConsentError, match="narrower for 2 tensors"):
        convert(source, tmp_path / "o.keras", to="keras", like=tmp_path / "t.keras")
    report = convert(source, tmp_path / "o.keras", to="keras", like=tmp_path / "t.keras", allow=["rounds"])
    assert "rounds" in str(report)
    assert {t.dtype for t in open_store(tmp_path / "o.keras").tensors.values()} == {np.dtype("float16")}


def test_nothing_left_to_convert_is_no_success(source, tmp_path):
    with pytest.raises(UsageError, match=r"nothing of m\.keras is left to convert"):
        convert(source, tmp_path / "o.safetensors", to="torch", skip=["*"])


@pytest.mark.parametrize("wrong", [{"allow": "rounds"}, {"skip": "a"}, {"allow": ["round"]}])
def test_options_are_lists_of_known_words(source, wrong):
    with pytest.raises(UsageError):
        convert(source, None, to="torch", **wrong)


def test_a_config_for_a_file_without_keras_is_refused(source, tmp_path):
    convert(source, tmp_path / "o.safetensors", to="torch")
    with pytest.raises(LayoutxError, match="is not a Keras file"):
        convert(tmp_path / "o.safetensors", None, to="onnx", config=source)


def test_a_buffer_of_the_target_may_stay(tmp_path):
    model = dense(5)
    target = torch.nn.Module()
    target.a = torch.nn.Linear(7, 5)
    target.register_buffer("positions", torch.arange(3.0))
    model.save(tmp_path / "m.keras")
    with pytest.raises(MatchError, match="1 tensors of the torch model have no layer") as caught:
        convert(tmp_path / "m.keras", tmp_path / "o.safetensors", to="torch", like=target)
    assert "--skip positions" in str(caught.value)
    convert(tmp_path / "m.keras", tmp_path / "o.safetensors", to="torch", like=target, skip=["positions"])
    written = open_store(tmp_path / "o.safetensors").tensors
    np.testing.assert_array_equal(written["positions"].read(), np.arange(3.0))
    np.testing.assert_array_equal(written["a.weight"].read(), model.get_weights()[0].T)


def test_onnx_names_come_back(source, tmp_path):
    convert(source, tmp_path / "o.npz", to="onnx")
    convert(tmp_path / "o.npz", tmp_path / "back.keras", to="keras", like=source)
    before, after = open_store(source).tensors, open_store(tmp_path / "back.keras").tensors
    for name in ("layers/dense/vars/0", "layers/dense/vars/1"):
        np.testing.assert_array_equal(after[name].read(), before[name].read())


def test_a_value_that_a_narrower_dtype_cannot_hold(tmp_path):
    model = dense(5)
    model.set_weights([w * 1e6 for w in model.get_weights()])
    model.save(tmp_path / "m.keras")
    dense(5, dtype="float16").save(tmp_path / "t.keras")
    with pytest.raises(LayoutxError, match="would become infinite"):
        convert(tmp_path / "m.keras", tmp_path / "o.keras", to="keras", like=tmp_path / "t.keras", allow=["rounds"])
    assert not (tmp_path / "o.keras").exists()
