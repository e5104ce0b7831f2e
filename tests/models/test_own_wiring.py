"""Wiring through classes of one's own: read alike however often the model ran, and silent where one side shows less."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.model.keras_live import live_records

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn = keras.layers, torch.nn
RNG = np.random.default_rng(3)


class Affine(L.Layer):
    """A learned scale and shift behind a norm, one number each (HGNetV2)."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(), name="scale", initializer="ones")
        self.bias = self.add_weight(shape=(), name="bias", initializer="zeros")

    def call(self, x: Any) -> Any:
        return x * self.scale + self.bias


class Step(L.Layer):
    """A block that builds its layers itself and says its own shapes: Keras never calls what it holds."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pad, self.conv = L.ZeroPadding2D(1, name="pad"), L.Conv2D(5, 3, use_bias=False, name="conv")
        self.norm, self.affine = L.BatchNormalization(epsilon=1e-5, name="norm"), Affine(name="affine")

    def build(self, shape: Any) -> None:
        self.conv.build(shape)
        self.norm.build((*shape[:-1], 5))
        self.affine.build((*shape[:-1], 5))

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], 5)

    def call(self, x: Any) -> Any:
        return keras.ops.tanh(self.affine(self.norm(self.conv(self.pad(x)))))


class TorchAffine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def forward(self, x: Any) -> Any:
        return self.scale * x + self.bias


class TorchStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(5, 5, 3, padding=1, bias=False)
        self.normalization, self.lab = nn.BatchNorm2d(5), TorchAffine()

    def forward(self, x: Any) -> Any:
        return torch.tanh(self.lab(self.normalization(self.convolution(x))))


def _keras() -> Any:
    x = inputs = keras.Input((7, 7, 5))
    for number in range(3):
        x = Step(name=f"step_{number}")(x)
    model = keras.Model(inputs, x)
    for weight in model.weights:
        weight.assign(RNG.uniform(0.5, 1.5, tuple(weight.shape)) * (0.3 if len(weight.shape) > 1 else 1.0))
    return model


def test_a_record_is_the_same_before_and_after_the_model_has_run() -> None:
    model = _keras()

    def wires() -> list[tuple[str, tuple[str, ...]]]:
        return [(one.name, one.inputs) for one in live_records(model, lambda name: True).layers]

    first = wires()
    assert ("step_1/conv", ("step_1/pad",)) in first
    assert wires() == first
    model(np.zeros((1, 7, 7, 5), "float32"))
    assert wires() == first


@pytest.mark.parametrize("back", [False, True])
def test_numbers_that_one_side_does_not_wire_do_not_speak_against_their_neighbours(back: bool) -> None:
    model, net = _keras(), nn.Sequential(*(TorchStep() for _ in range(3))).eval()
    lx.port(net, model) if back else lx.port(model, net)
    x = RNG.normal(size=(2, 7, 7, 5)).astype("float32")
    with torch.no_grad():
        found = net(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
    np.testing.assert_allclose(np.moveaxis(found, 1, -1), np.asarray(model(x)), atol=2e-5)


class Pictures(keras.Model):
    """A subclass: its config names none of its layers."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv, self.flat, self.fc = L.Conv2D(5, 3, name="conv"), L.Flatten(), L.Dense(7, name="fc")

    def call(self, x: Any) -> Any:
        return self.fc(self.flat(self.conv(x)))


@pytest.mark.parametrize(
    ("ending", "why", "do"),
    [
        (".keras", "the model is a subclass, its config names no layers", "load the file with its classes"),
        (".weights.h5", "the file holds no model config", "give the model's config"),
    ],
)
def test_a_file_without_wiring_says_what_would_tell_it(ending: str, why: str, do: str, tmp_path: Any) -> None:
    model, path = Pictures(), tmp_path / f"model{ending}"
    model(np.zeros((1, 9, 8, 3)))
    model.save(path) if ending == ".keras" else model.save_weights(path)
    forms = {"conv": "keras.Conv2D", "fc": "keras.Dense"}
    with pytest.raises(lx.ConversionError, match=f"{why}(.|\n)*{do}"):
        lx.convert(path, tmp_path / "out.safetensors", to="torch", forms=forms, live=False)
