"""A Dense of Keras that is several layers in one (a fused qkv), where the other model has them apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError, UsageError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
nn, L, ops = torch.nn, keras.layers, keras.ops
WIDTH, SIZE, LONG, OUTPUTS = 11, 7, 5, 3
SAID = {"attend/qkv.parts": f"query {SIZE}, key {SIZE}, value {SIZE}"}


class Attend(L.Layer):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.qkv = L.Dense(3 * SIZE, name="qkv")

    def build(self, shape: Any) -> None:
        self.qkv.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        q, k, v = ops.split(self.qkv(x), 3, axis=-1)
        return ops.softmax(q @ ops.transpose(k, (0, 2, 1))) @ v


class Apart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, SIZE) for _ in range(3))

    def forward(self, x: Any) -> Any:
        return (self.query(x) @ self.key(x).mT).softmax(-1) @ self.value(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.attend, self.last = nn.Linear(WIDTH, WIDTH), Apart(), nn.Linear(SIZE, OUTPUTS)

    def forward(self, x: Any) -> Any:
        return self.last(self.attend(self.first(x).relu()))


def network() -> Any:
    data = keras.Input((LONG, WIDTH))
    x = Attend(name="attend")(L.Dense(WIDTH, activation="relu", name="first")(data))
    model = keras.Model(data, L.Dense(OUTPUTS, name="last")(x))
    rng = np.random.default_rng(5)
    model.set_weights([rng.normal(0, 0.5, w.shape).astype("float32") for w in model.get_weights()])
    return model


def same(model: Any, module: Any) -> None:
    x = np.random.default_rng(3).normal(size=(2, LONG, WIDTH)).astype("float32")
    with torch.no_grad():
        made = module.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(np.asarray(model(x)), made, rtol=1e-4, atol=1e-5)


def test_the_error_tells_which_option_and_with_it_both_ways_are_right() -> None:
    model, module = network(), Net()
    with pytest.raises(LayoutxError, match=rf"--set 'attend/qkv.parts=query {SIZE}, key {SIZE}, value {SIZE}'"):
        lx.port(model, module)
    assert lx.port(model, module, values=SAID).end_to_end.agrees
    same(model, module)
    kernel = model.get_layer("attend").qkv.kernel.numpy()
    np.testing.assert_array_equal(module.attend.key.weight.detach().numpy(), kernel[:, SIZE : 2 * SIZE].T)
    other = Net()
    assert lx.port(other, model, values=SAID).end_to_end.agrees
    same(model, other)


def test_a_config_tells_the_layers_and_the_user_their_parts(tmp_path: Any) -> None:
    from safetensors.torch import load_file, save_file

    data = keras.Input((LONG, WIDTH))
    qkv = L.Dense(3 * SIZE, name="qkv")(L.Dense(WIDTH, activation="relu", name="first")(data))
    q, k, v = ops.split(qkv, 3, axis=-1)
    made = ops.softmax(q @ ops.transpose(k, (0, 2, 1))) @ v
    model = keras.Model(data, L.Dense(OUTPUTS, name="last")(made))
    said = {"qkv.parts": f"query {SIZE}, key {SIZE}, value {SIZE}"}
    module = Net()
    model.save(tmp_path / "model.keras")
    save_file(module.state_dict(), tmp_path / "like.safetensors")
    lx.convert(
        tmp_path / "model.keras",
        tmp_path / "out.safetensors",
        to="torch",
        like=tmp_path / "like.safetensors",
        values=said,
        keep_order=True,
    )
    module.load_state_dict(load_file(tmp_path / "out.safetensors"))
    same(model, module)


def test_words_that_fit_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="names no layer of a model that has several in one"):
        lx.port(network(), Net(), values={"attend/wkv.parts": "query 7, key 7"})
    with pytest.raises(UsageError, match="21 rows, which 12 do not divide"):
        lx.port(network(), Net(), values={"attend/qkv.parts": "query 7, key 5"})


def test_a_keras_file_is_written_with_the_parts_together(tmp_path: Any) -> None:
    from safetensors.torch import save_file

    data = keras.Input((LONG, WIDTH))
    qkv = L.Dense(3 * SIZE, name="qkv")(L.Dense(WIDTH, activation="relu", name="first")(data))
    q, k, v = ops.split(qkv, 3, axis=-1)
    made = ops.softmax(q @ ops.transpose(k, (0, 2, 1))) @ v
    model, module = keras.Model(data, L.Dense(OUTPUTS, name="last")(made)), Net()
    model.save(tmp_path / "like.keras")
    save_file(module.state_dict(), tmp_path / "net.safetensors")
    out, like = tmp_path / "out.keras", tmp_path / "like.keras"
    said = {"qkv.parts": f"query {SIZE}, key {SIZE}, value {SIZE}"}
    lx.convert(tmp_path / "net.safetensors", out, to="keras", like=like, values=said, keep_order=True)
    same(keras.models.load_model(out), module)
