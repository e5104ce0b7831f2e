"""Keras 2 files that Theano wrote: kernels of convolutions are stored back to front, whatever wrote the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from layoutx.convert import convert
from layoutx.errors import UsageError
from layoutx.inspect import inspect

TURNED = {"conv": (0, 1), "up": (0, 1)}


def saved(path: Path, backend: str | None) -> Any:
    """A model and its file as a Keras 2 on Theano would have written it: the attribute, and kernels turned round."""
    import tf_keras

    model = tf_keras.Sequential(
        [
            tf_keras.layers.Conv2D(5, (2, 3), input_shape=(7, 11, 3), name="conv"),
            tf_keras.layers.Conv2DTranspose(2, (3, 2), name="up"),
            tf_keras.layers.Flatten(),
            tf_keras.layers.Dense(3, name="dense"),
        ]
    )
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    model.save(path)
    with h5py.File(path, "a") as file:
        for name in TURNED:
            kernel = file[f"model_weights/{name}/{name}/kernel:0"]
            kernel[...] = kernel[...][::-1, ::-1]
        for group in (file, file["model_weights"]):
            if backend is None:
                group.attrs.pop("backend", None)
            else:
                group.attrs["backend"] = backend
    return model


def torch_kernels(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {name: array for name, array in load_file(path).items() if name.endswith("weight")}


@pytest.mark.parametrize(("backend", "values"), [("theano", {}), (None, {"backend": "theano"})])
def test_kernels_are_turned(tmp_path: Path, backend: str | None, values: dict[str, str]) -> None:
    source, out = tmp_path / "model.h5", tmp_path / "out.safetensors"
    model = saved(source, backend)
    convert(source, out, to="torch", values=values)
    found = torch_kernels(out)
    kernel = model.get_layer("conv").get_weights()[0]
    np.testing.assert_array_equal(found["conv.weight"], kernel.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(found["up.weight"], model.get_layer("up").get_weights()[0].transpose(3, 2, 0, 1))
    assert "Theano" in str(inspect(source, values=values))


def test_a_file_of_tensorflow_stays(tmp_path: Path) -> None:
    source, out = tmp_path / "model.h5", tmp_path / "out.safetensors"
    model = saved(source, "tensorflow")
    convert(source, out, to="torch")
    kernel = model.get_layer("conv").get_weights()[0][::-1, ::-1]
    np.testing.assert_array_equal(torch_kernels(out)["conv.weight"], kernel.transpose(3, 2, 0, 1))


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "model.h5"
    saved(source, None)
    with pytest.raises(UsageError, match="no Keras ran on 'caffe'"):
        inspect(source, values={"backend": "caffe"})


@pytest.mark.parametrize(("backend", "warned"), [(None, True), ("tensorflow", False), ("theano", False)])
def test_a_file_that_says_no_backend_warns(tmp_path: Path, backend: str | None, warned: bool) -> None:
    source = tmp_path / "model.h5"
    saved(source, backend)
    text = " ".join(str(convert(source, to="torch")).split())
    assert ("conv, up: it is taken for TensorFlow's, since the file says no backend" in text) is warned
    assert ("if that is wrong: --backend theano" in text) is warned
    if backend == "theano":
        with pytest.raises(UsageError, match="is no file of tensorflow"):
            convert(source, to="torch", values={"backend": "tensorflow"})
    else:
        assert "if that is wrong" not in str(convert(source, to="torch", values={"backend": "tensorflow"}))
