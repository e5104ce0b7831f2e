"""Keras' Normalization: into torch modules and ONNX graphs and back; its statistics stored, or given in the config."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from graph_torch import by_kind, from_keras, scrambled
from keras_models import precision
from torch import Tensor, nn

import layoutx
from layoutx.errors import ConsentError, LayoutxError
from layoutx.torch import Normalization

MEAN, VARIANCE = [0.5, -0.25, 2.0], [0.25, 2.0, 3.0]


class Twin(nn.Module):
    """A norm over the channels of a map, and a convolution."""

    def __init__(self, invert: bool = False) -> None:
        super().__init__()
        self.norm = Normalization(3, invert=invert)
        self.conv = nn.Conv2d(3, 5, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, h, w) -> (batch, 5, h, w)."""
        return self.conv(self.norm(x))


def keras_model(given: bool = False, invert: bool = False, seed: int = 1) -> Any:
    """The same in Keras; `given`: mean and variance stand in the config and are not stored."""
    k = keras.layers
    options = {"mean": MEAN, "variance": VARIANCE} if given else {}
    with precision(keras, "float32"):
        norm = k.Normalization(axis=-1, invert=invert, name="norm", **options)
        model = keras.Sequential([keras.Input((7, 6, 3)), norm, k.Conv2D(5, 2, name="conv")])
    rng = np.random.default_rng(seed)
    if not given:
        norm.set_weights([rng.normal(size=3), rng.uniform(0.3, 4, 3), np.array(11)])
        norm.finalize_state()
    model.layers[-1].set_weights([rng.normal(size=w.shape) for w in model.layers[-1].weights])
    return model


def batch() -> np.ndarray[Any, Any]:
    return np.random.default_rng(2).normal(size=(2, 7, 6, 3)).astype("float32")


def first(x: Any) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1))


def exported(module: nn.Module, x: np.ndarray[Any, Any], path: Path, **more: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (torch.from_numpy(x),), path, dynamo=False, opset_version=17, input_names=["x"], **more
        )
    return path


def ran(path: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_into_torch_and_back(given: bool, invert: bool) -> None:
    model, module = keras_model(given, invert), Twin(invert)
    assert layoutx.match(model, module).complete
    assert layoutx.port(model, module, batch()).end_to_end.agrees is True
    if given:
        np.testing.assert_array_equal(module.norm.mean.numpy(), np.float32(MEAN))
        np.testing.assert_array_equal(module.norm.variance.numpy(), np.float32(VARIANCE))
    assert layoutx.validate(model, module, batch()).ok
    other = keras_model(False, invert, seed=5)
    assert not layoutx.validate(model, other, batch()).ok
    assert layoutx.port(module, other, first(batch())).end_to_end.agrees is True
    np.testing.assert_allclose(np.asarray(other(batch())), np.asarray(model(batch())), rtol=0, atol=1e-5)


def test_the_way_back_is_another_function() -> None:
    with pytest.raises(LayoutxError, match="invert"):
        layoutx.port(keras_model(), Twin(invert=True), batch())


@pytest.mark.parametrize("folding", [True, False])
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_into_onnx_and_back(given: bool, invert: bool, folding: bool, tmp_path: Path) -> None:
    model, module = keras_model(given, invert), Twin(invert)
    with torch.no_grad():
        module.norm.mean.copy_(torch.tensor([3.0, 4.0, 5.0]))
        module.norm.variance.copy_(torch.tensor([6.0, 7.0, 8.0]))
    path = exported(module, first(batch()), tmp_path / "t.onnx", do_constant_folding=folding)
    model.save(tmp_path / "m.keras")
    assert layoutx.match(tmp_path / "m.keras", path).complete
    with pytest.raises(ConsentError):
        layoutx.convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=path)
    layoutx.convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=path, allow=["rounds"])
    found, wanted = ran(tmp_path / "m.onnx", first(batch())), first(model(batch()))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)
    assert layoutx.validate(tmp_path / "m.keras", tmp_path / "m.onnx", batch()).ok
    other = Twin(invert)
    layoutx.port(tmp_path / "m.onnx", other, first(batch()), allow=["rounds"])
    np.testing.assert_allclose(other(torch.from_numpy(first(batch()))).detach().numpy(), wanted, rtol=0, atol=2e-5)
    back = keras_model(False, invert, seed=9)
    layoutx.port(tmp_path / "m.onnx", back, compare=False, allow=["rounds"])
    np.testing.assert_allclose(first(back(batch())), wanted, rtol=0, atol=2e-5)


def test_a_scale_of_the_data_is_no_layer(tmp_path: Path) -> None:
    class Scaled(Twin):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward((x - 2.0) / 4.0)

    found = layoutx.inspect(exported(Scaled(), first(batch()), tmp_path / "t.onnx"))
    assert str(found).count("Normalization") == 1


def test_efficient_net(tmp_path: Path) -> None:
    """Keras into torch and into ONNX with nothing left out."""
    build = keras.applications.EfficientNetB0
    with precision(keras, "float32"):
        model = scrambled(build(weights=None, classes=7, classifier_activation=None, input_shape=(32, 32, 3)), 3)
    x = np.random.default_rng(3).uniform(0, 255, (2, 32, 32, 3)).astype("f4")
    module = from_keras(model, by_kind).float()
    with torch.no_grad():
        module.eval()(torch.from_numpy(first(x)))
    preserved = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}
    path = exported(module, first(x), tmp_path / "t.onnx", **preserved)
    model.save(tmp_path / "m.keras")
    layoutx.convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=path, allow=["rounds"])
    wanted = np.asarray(model(x, training=False))
    assert np.abs(ran(tmp_path / "m.onnx", first(x)) - wanted).max() < 1e-4 * np.abs(wanted).max()
    layoutx.port(model, module, x, live=False)
    with torch.no_grad():
        found = module(torch.from_numpy(first(x))).numpy()
    assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
