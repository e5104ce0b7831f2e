"""Keras' own ONNX export (`model.export(format="onnx")`, by tf2onnx): back into the model, and new weights into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tf2onnx", reason="Keras exports to ONNX by tf2onnx")
pytest.importorskip("onnxruntime", reason="ONNX models are run by onnxruntime")

from onnx_runs import apart, emptied, run  # noqa: E402

from layoutx.convert import convert  # noqa: E402
from layoutx.port import port  # noqa: E402

L = keras.layers
MAPS, ROWS, TIMES = (9, 8, 3), (4, 5), (11, 3)


def normed(norm: Any) -> list[Any]:
    return [L.Dense(7), norm, L.Dense(3)]


MODELS: dict[str, tuple[tuple[int, ...], Callable[[], list[Any]]]] = {
    "dense": ((5,), lambda: [L.Dense(7, activation="relu"), L.Dense(3)]),
    "dense over rows": (ROWS, lambda: [L.Dense(7, activation="relu"), L.Dense(3, use_bias=False)]),
    "layer norm": (ROWS, lambda: normed(L.LayerNormalization())),
    "layer norm of vectors": ((5,), lambda: normed(L.LayerNormalization())),
    "RMS norm": (ROWS, lambda: normed(L.RMSNormalization())),
    "RMS norm of vectors": ((5,), lambda: normed(L.RMSNormalization())),
    "flattened": (MAPS, lambda: [L.Conv2D(5, 3), L.MaxPool2D(2), L.Flatten(), L.Dense(11)]),
    "group norm": (MAPS, lambda: [L.Conv2D(6, 3), L.GroupNormalization(2), L.ReLU(), L.Conv2D(7, 3)]),
    "group norm, flattened": (MAPS, lambda: [L.Conv2D(6, 3), L.GroupNormalization(2), L.Flatten(), L.Dense(11)]),
    "group norm, activated, flattened": (
        MAPS,
        lambda: [L.Conv2D(6, 3), L.GroupNormalization(3), L.ReLU(), L.Flatten(), L.Dense(11)],
    ),
    "layer norm without a beta": ((5,), lambda: normed(L.LayerNormalization(center=False))),
    "separable": (MAPS, lambda: [L.SeparableConv2D(6, 3), L.DepthwiseConv2D(3), L.Conv2DTranspose(5, 3)]),
    "times": (TIMES, lambda: [L.Conv1D(5, 3, activation="relu"), L.Conv1D(7, 3, padding="causal", dilation_rate=2)]),
    "times flattened": (TIMES, lambda: [L.Conv1D(5, 3, strides=2), L.MaxPool1D(2), L.Flatten(), L.Dense(11)]),
    "LSTM": (ROWS, lambda: [L.LSTM(7, return_sequences=True), L.LSTM(3), L.Dense(2)]),
    "both ways": (ROWS, lambda: [L.Bidirectional(L.LSTM(7)), L.Dense(2)]),
}


def attention() -> Any:
    x = keras.Input((5, 14))
    y = L.LayerNormalization()(L.Add()([x, L.MultiHeadAttention(2, 7)(x, x)]))
    return keras.Model(x, L.Dense(3)(y))


def built(name: str) -> Any:
    if name == "attention":
        return attention()
    shape, layers = MODELS[name]
    return keras.Sequential([keras.Input(shape), *layers()])


def made(name: str) -> tuple[Any, np.ndarray]:
    """A model, trained as it were, and an input."""
    rng = np.random.default_rng(5)
    keras.utils.set_random_seed(5)
    model = built(name)
    for one in model.variables:
        if one.dtype == "float32":
            drawn = (
                rng.uniform(0.5, 1.5, one.shape) if one.path.endswith("variance") else rng.normal(size=one.shape) * 0.4
            )
            one.assign(drawn.astype("float32"))
    return model, rng.normal(size=(2, *model.input_shape[1:])).astype("float32")


def exported(model: Any, x: np.ndarray, path: Path) -> Path:
    model.predict(x, verbose=0)  # it exports what was called
    model.export(path, format="onnx", verbose=False)
    return path


@pytest.mark.parametrize("name", [*MODELS, "attention"])
def test_an_export_goes_back_into_its_model(name: str, tmp_path: Path) -> None:
    model, x = made(name)
    path = exported(model, x, tmp_path / "m.onnx")
    port(path, fresh := built(name))
    for one, other in zip(model.get_weights(), fresh.get_weights(), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    "name",
    ["dense over rows", "layer norm", "RMS norm", "group norm", "separable", "times", "times flattened", "attention"],
)
def test_weights_into_the_export_of_another_training(name: str, tmp_path: Path) -> None:
    model, x = made(name)
    template = emptied(exported(model, x, tmp_path / "m.onnx"), spelled=True)
    model.save(tmp_path / "m.keras")
    convert(tmp_path / "m.keras", tmp_path / "out.onnx", to="onnx", like=template)
    found = run(tmp_path / "out.onnx", x)
    assert apart(found, model.predict(x, verbose=0)) < 1e-5
    assert apart(found, run(tmp_path / "m.onnx", x)) == 0
