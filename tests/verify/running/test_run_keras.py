"""Keras models run: float64 without touching the model, nested and shared layers, wrappers, both Keras versions."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.errors import ModelError, UsageError
from layoutx.model.keras_live import live_records
from layoutx.verify.recording import Recording
from layoutx.verify.running import Runner, opened

Array = np.ndarray[Any, Any]


@pytest.fixture(params=["keras", "tf_keras"])
def keras(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


def trained(model: Any) -> Any:
    """The model with weights, biases and statistics that are not at their first values."""
    rng = np.random.default_rng(11)
    model.set_weights([rng.uniform(0.1, 0.9, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def joined(keras: Any) -> Any:
    """Two inputs and two outputs, a layer called twice, a nested model called twice, a Flatten."""
    k = keras.layers
    image, aux = keras.Input((5, 7, 2), name="image"), keras.Input((3,), name="aux")
    inner = keras.Sequential(
        [keras.Input((11,)), k.Dense(13, activation="tanh", name="d"), k.Dropout(0.4)], name="head"
    )
    shared = k.Dense(11, activation="relu", name="shared")
    x = k.Flatten(name="flat")(k.BatchNormalization(name="bn")(k.Conv2D(3, 3, padding="same", name="conv")(image)))
    left, right = shared(k.Dense(17, name="one")(x)), shared(k.Dense(17, name="two")(aux))
    ends = k.Add(name="add")([inner(left), inner(right)])
    return trained(keras.Model([image, aux], [k.Dense(2, name="out")(ends), right]))


def wrapped(keras: Any) -> Any:
    """TimeDistributed over a layer and over a model, Bidirectional, a stack of cells, masked tokens."""
    k = keras.layers
    inner = keras.Sequential([keras.Input((5,)), k.Dense(7, name="d1"), k.Dense(3, name="d2")], name="inner")
    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = k.Embedding(17, 5, mask_zero=True, name="embed")(tokens)
    x = k.Bidirectional(k.LSTM(4, return_sequences=True, name="lstm"), name="bi")(x)
    x = k.TimeDistributed(k.Dense(5, name="plain"), name="td")(x)
    x = k.TimeDistributed(inner, name="tm")(x)
    x = k.RNN([k.LSTMCell(4), k.GRUCell(3)], return_sequences=True, name="stack")(x)
    return trained(keras.Model(tokens, k.Dense(2, name="out")(x)))


def inputs_of(model: Any) -> list[Array]:
    rng = np.random.default_rng(5)
    found = []
    for tensor in model.inputs:
        shape = (3, *tensor.shape[1:])
        integer = "int" in str(getattr(tensor.dtype, "name", tensor.dtype))
        found.append(rng.integers(1, 17, shape).astype("int32") if integer else rng.normal(size=shape))
    return found


def alone_as_recorded(runner: Runner, found: Recording) -> None:
    """Every layer alone gives what it gave in the run."""
    assert found.calls
    for call in found.calls:
        again = runner.layer(call.layer, call.inputs, call.names)
        assert len(again) == len(call.outputs), call.layer
        for left, right in zip(again, call.outputs, strict=True):
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-13, err_msg=call.layer)


def test_a_functional_model_is_recorded_in_float64(keras: Any) -> None:
    model = joined(keras)
    runner = opened(model)
    x = inputs_of(model)
    found = runner.record(x)
    assert (found.framework, found.dtype, found.note) == ("keras", "float64", "")
    calls = [(call.layer, call.number) for call in found.calls]
    for wanted in (("shared", 0), ("shared", 1), ("head/d", 0), ("head/d", 1), ("head", 1), ("flat", 0), ("add", 0)):
        assert wanted in calls
    assert all(a.dtype == np.float64 for call in found.calls for a in (*call.inputs, *call.outputs))
    add = found.of("add")
    assert add is not None
    assert len(add.inputs) == 2
    conv, norm = found.of("conv"), found.of("bn")
    assert conv is not None
    assert norm is not None
    assert conv.outputs[0] is norm.inputs[0]
    plain = model([a.astype("float32") for a in x], training=False)
    for left, right in zip(found.outputs, plain, strict=True):
        assert 0 < np.abs(left - np.asarray(right)).max() < 1e-3 * np.abs(left).max()
    alone_as_recorded(runner, found)


def test_the_numbers_are_those_of_a_float64_model(keras: Any) -> None:
    """Not only dtypes: one Dense and one BatchNormalization by NumPy."""
    model = joined(keras)
    found = opened(model).record(inputs_of(model))
    one, norm = found.of("one"), found.of("bn")
    assert one is not None
    assert norm is not None
    kernel, bias = (w.astype(np.float64) for w in model.get_layer("one").get_weights())
    np.testing.assert_allclose(one.outputs[0], one.inputs[0] @ kernel + bias, rtol=1e-14)
    layer = model.get_layer("bn")
    gamma, beta, mean, variance = (w.astype(np.float64) for w in layer.get_weights())
    by_hand = (norm.inputs[0] - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta
    np.testing.assert_allclose(norm.outputs[0], by_hand, rtol=1e-12)


def test_records_find_their_calls(keras: Any) -> None:
    for build in (joined, wrapped):
        model = build(keras)
        found = opened(model).record(inputs_of(model))
        for record in live_records(model, lambda name: True).layers:
            if record.tensors:
                call = found.of(record.name)
                assert call is not None, record.name
                assert found.of(record.name.replace("/", ".")) is call


def test_wrappers_and_what_they_hold(keras: Any) -> None:
    model = wrapped(keras)
    runner = opened(model)
    found = runner.record(inputs_of(model))
    shapes = {c.layer: (c.inputs[0].shape, c.outputs[0].shape) for c in found.calls}
    assert shapes["td"] == ((3, 6, 8), (3, 6, 5))
    assert shapes["tm/d1"] == ((3, 6, 5), (3, 6, 7))
    assert shapes["tm/d2"] == ((3, 6, 7), (3, 6, 3))
    assert shapes["stack/cell_0"] == ((3, 6, 3), (3, 6, 4))
    assert shapes["stack/cell_1"] == ((3, 6, 4), (3, 6, 3))
    second, whole, inner = found.of("stack/cell_1"), found.of("stack"), found.of("tm/d2")
    outer = found.of("tm")
    assert second is not None
    assert whole is not None
    assert inner is not None
    assert outer is not None
    np.testing.assert_array_equal(second.outputs[0], whole.outputs[0])
    np.testing.assert_array_equal(inner.outputs[0], outer.outputs[0])
    order = [call.layer for call in found.calls]
    assert order.index("tm/d2") < order.index("tm")
    alone_as_recorded(runner, found)


def test_masks_are_inputs(keras: Any) -> None:
    model = wrapped(keras)
    runner = opened(model)
    (tokens,) = inputs_of(model)
    tokens[1, 2:] = 0
    found = runner.record(tokens)
    call = found.of("bi")
    assert call is not None
    assert call.names == ("", "mask")
    np.testing.assert_array_equal(call.inputs[1], tokens != 0)
    alone_as_recorded(runner, found)


def subclassed(keras: Any) -> Any:
    """A subclass with a layer of its own that holds layers, and a list of them."""

    class Block(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self, units: int, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.inner = keras.layers.Dense(units, activation="tanh", name="inner")
            self.gate = self.add_weight(shape=(units,), initializer="ones", name="gate")

        def call(self, x: Any) -> Any:
            return self.inner(x) * self.gate

    class Net(keras.Model):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(name="net")
            self.blocks = [Block(5, name="a"), Block(7, name="b")]
            self.head = keras.layers.Dense(2, name="head")
            self.drop = keras.layers.Dropout(0.5, name="drop")

        def call(self, x: Any, training: bool = False) -> Any:
            for block in self.blocks:
                x = block(x)
            return self.head(self.drop(x, training=training))

    model = Net()
    model(np.ones((1, 3), "float32"))
    return trained(model)


def test_a_subclassed_model(keras: Any) -> None:
    model = subclassed(keras)
    runner = opened(model)
    x = np.random.default_rng(2).normal(size=(4, 3))
    found = runner.record(x)
    assert [c.layer for c in found.calls] == ["a/inner", "a", "b/inner", "b", "drop", "head"]
    assert runner.layers()["a/inner"] == "Dense"
    if keras.__name__ == "keras":
        assert (found.dtype, found.note) == ("float64", "")
    else:
        assert found.dtype == "float32"
        assert "not in float64" in found.note
    for call in found.calls:
        (again,) = runner.layer(call.layer, call.inputs, call.names)
        np.testing.assert_allclose(again, call.outputs[0], rtol=0, atol=1e-5 if found.dtype == "float32" else 1e-14)
    shapes = [x.shape for x in opened(model).inputs()]  # what it was built with, where its call can be followed
    assert shapes == ([(3, 3)] if keras.__name__ == "keras" else [])


def test_the_model_stays_as_it_is(keras: Any) -> None:
    for build in (joined, wrapped):
        model = build(keras)
        layers = [*model._flatten_layers()]
        policies = [layer.dtype_policy if keras.__name__ == "keras" else layer.dtype for layer in layers]
        calls = vars(keras.layers.Layer)["__call__"]
        weights, x = model.get_weights(), inputs_of(model)
        data = [a.astype("float32") if a.dtype.kind == "f" else a for a in x]
        before = model(data if len(data) > 1 else data[0], training=False)
        runner = opened(model)
        runner.record(x)
        runner.layer("out", [np.ones((2, runner.record(x).of("out").inputs[0].shape[-1]))])  # type: ignore[union-attr]
        runner.repeat(x)
        assert all(
            np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(weights, model.get_weights(), strict=True)
        )
        after = [layer.dtype_policy if keras.__name__ == "keras" else layer.dtype for layer in layers]
        assert all(a is b or a == b for a, b in zip(policies, after, strict=True))
        assert vars(keras.layers.Layer)["__call__"] is calls
        again = model(data if len(data) > 1 else data[0], training=False)
        for left, right in zip(before, again, strict=True):
            assert np.array_equal(np.asarray(left), np.asarray(right))


def test_states_and_random_generators_stay(keras: Any) -> None:
    inputs = keras.Input(batch_shape=(3, 4, 5))
    x = keras.layers.LSTM(7, stateful=True, return_sequences=True)(inputs)
    model = trained(keras.Model(inputs, keras.layers.Dropout(0.5)(x, training=True)))
    data = np.random.default_rng(1).normal(size=(3, 4, 5)).astype("float32")
    runner = opened(model)
    first = runner.record(data)
    lstm = first.of(model.layers[1].name)
    assert lstm is not None
    again = runner.record(data).of(model.layers[1].name)
    assert again is not None
    np.testing.assert_array_equal(lstm.outputs[0], again.outputs[0])
    seen = runner.repeat(data)
    assert seen is not None
    assert np.abs(seen[0][0] - seen[1][0]).max() > 0, "dropout wired in as training"
    assert all(not np.any(np.asarray(state)) for state in model.layers[1].states)


def test_inputs_by_name_and_probes(keras: Any) -> None:
    model = joined(keras)
    runner = opened(model)
    image, aux = inputs_of(model)
    names = [str(name) for name in getattr(model, "input_names", ("image", "aux"))]
    found = runner.record({"aux": aux, "image": image})
    assert names == ["image", "aux"]
    np.testing.assert_array_equal(found.inputs[0], image)
    assert [a.shape for a in runner.inputs()] == [(3, 5, 7, 2), (3, 3)]
    with pytest.raises(UsageError) as caught:
        runner.record({"aux": aux, "picture": image})
    assert "picture" in str(caught.value)
    (tokens,) = opened(wrapped(keras)).inputs()
    assert tokens.dtype.kind == "i"
    assert tokens.max() < 17


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_are_loaded_by_their_own_keras(keras: Any, suffix: str, tmp_path: Path) -> None:
    model = joined(keras)
    path = tmp_path / f"model{suffix}"
    model.save(path)
    runner = opened(path)
    assert type(runner.model).__module__.split(".")[0] == keras.__name__
    x = inputs_of(model)
    for left, right in zip(runner.record(x).outputs, opened(model).record(x).outputs, strict=True):
        np.testing.assert_array_equal(left, right)


def test_files_that_hold_no_model_are_told(keras: Any, tmp_path: Path) -> None:
    model = joined(keras)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    with pytest.raises(UsageError) as caught:
        opened(path)
    assert "package.module:callable" in str(caught.value)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_file_is_never_run(keras: Any, suffix: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5), keras.layers.Lambda(lambda x: x * 2.0)])
    model.save(tmp_path / f"m{suffix}")
    with pytest.raises(UsageError, match="holds Python code"):
        opened(tmp_path / f"m{suffix}")
    assert opened(model).record(np.ones((2, 3))).dtype == "float64"


def test_a_class_that_keras_does_not_know_is_told(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")

    class Strange(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return x + 1

    model = keras.Sequential([keras.Input((3,)), Strange()])
    model.save(tmp_path / "m.keras")
    with pytest.raises(ModelError) as caught:
        opened(tmp_path / "m.keras")
    assert "Strange" in str(caught.value)
    assert "layoutx record" in str(caught.value)


def test_a_layer_that_cannot_do_float64_is_named() -> None:
    keras = pytest.importorskip("keras")
    tf = importlib.import_module("tensorflow")

    class Old(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return tf.cast(x, "float32") * 2.0

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(5, name="d"), Old(name="old")])
    found = opened(model).record(np.ones((2, 3)))
    call = found.of("d")
    assert call is not None
    assert call.outputs[0].dtype == np.float64
    assert found.note == "not in float64: old"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda runner: runner.record(np.ones((2, 4))), "does not run on these inputs"),
        (lambda runner: runner.layer("sahred", [np.ones((2, 17))]), "near it are shared"),
    ],
)
def test_wrong_calls_are_told(keras: Any, call: Callable[[Runner], Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        call(opened(joined(keras)))
    assert said in str(caught.value)
