"""Hostile configs: numbers of Keras' and ONNX' layers that are none, wirings that lead nowhere, forged certificates."""

from __future__ import annotations

import copy
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError

ODD = {"a text": "x", "a list": ["x"], "an object": {"a": 1}, "null": None, "NaN": float("nan")}


def _layer(kind: str, name: str, feeds: str | None, **config: Any) -> dict[str, Any]:
    history = {"shape": [None, 8, 8, 4], "dtype": "float32", "keras_history": [feeds, 0, 0]}
    call = {"args": [{"class_name": "__keras_tensor__", "config": history}], "kwargs": {}}
    inbound = [call] if feeds else []
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": name, **config},
        "registered_name": None,
        "name": name,
        "inbound_nodes": inbound,
    }


def _config() -> dict[str, Any]:
    layers = [
        _layer("InputLayer", "i", None, batch_shape=[None, 8, 8, 4], dtype="float32"),
        _layer("ZeroPadding2D", "pad", "i", padding=[[1, 1], [1, 1]]),
        _layer("Cropping2D", "crop", "pad", cropping=[[1, 1], [1, 1]]),
        _layer("UpSampling2D", "up", "crop", size=[2, 2]),
        _layer("Conv2D", "conv", "up", filters=5, kernel_size=[3, 3], strides=[1, 1], dilation_rate=[1, 1]),
        _layer("BatchNormalization", "norm", "conv", axis=-1, epsilon=0.001),
        _layer("MaxPooling2D", "pool", "norm", pool_size=[2, 2], strides=[2, 2]),
        _layer("Flatten", "flat", "pool"),
        _layer("Dense", "out", "flat", units=3),
    ]
    config = {"name": "m", "layers": layers, "input_layers": [["i", 0, 0]], "output_layers": [["out", 0, 0]]}
    return {"module": "keras", "class_name": "Functional", "config": config, "registered_name": "Functional"}


def _with(place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    config = copy.deepcopy(_config())
    inner: Any = config["config"]["layers"]
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return config


def _saved(path: Path, config: dict[str, Any]) -> Path:
    rng = np.random.default_rng(3)
    shapes = {
        "conv2d": [(3, 3, 4, 5), (5,)],
        "batch_normalization": [(5,)] * 4,
        "dense": [(7 * 7 * 5, 3), (3,)],
    }
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        for name, own in shapes.items():
            for at, shape in enumerate(own):
                file[f"layers/{name}/vars/{at}"] = rng.standard_normal(shape).astype("f4")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.write(path.with_suffix(".h5"), "model.weights.h5")
    return path


def test_the_file_without_its_attack_is_followed(refused: Any, tmp_path: Path) -> None:
    assert refused(_saved(tmp_path / "m.keras", _config()), fine=True, deed="model") == "9 layers"


WIRE = ("inbound_nodes", 0, "args", 0, "config", "keras_history")


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("at", [1, 2])
def test_a_call_that_names_no_output(refused: Any, tmp_path: Path, odd: str, at: int) -> None:
    path = _saved(tmp_path / "m.keras", _with((4, *WIRE, at), ODD[odd]))
    refused(path, "The wiring names no output of a layer", deed="model")


@pytest.mark.parametrize("odd", ["a text", "an object", "null", "NaN"])
@pytest.mark.parametrize("number", [(1, "padding"), (2, "cropping")])
def test_borders_that_are_no_numbers(refused: Any, tmp_path: Path, odd: str, number: tuple[int, str]) -> None:
    path = _saved(tmp_path / "m.keras", _with((number[0], "config", number[1], 0, 0), ODD[odd]))
    refused(path, "cannot be followed", deed="model")


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("place", [(3, "config", "size", 1), (5, "config", "axis")])
def test_numbers_of_layers_that_are_none(refused: Any, tmp_path: Path, odd: str, place: tuple[Any, ...]) -> None:
    path = _saved(tmp_path / "m.keras", _with(place, ODD[odd]))
    refused(path, "cannot be followed", deed="model")


@pytest.mark.parametrize("odd", ODD)
def test_a_kernel_size_that_is_none(refused: Any, tmp_path: Path, odd: str) -> None:
    path = _saved(tmp_path / "m.keras", _with((4, "config", "kernel_size", 1), ODD[odd]))
    refused(path, "kernel_size", deed="convert")


@pytest.mark.parametrize("odd", ["a text", "a list"])
@pytest.mark.parametrize("place", [(4, "config", "dilation_rate", 0), (5, "config", "epsilon")])
def test_numbers_that_only_the_proof_reads(refused: Any, tmp_path: Path, odd: str, place: tuple[Any, ...]) -> None:
    refused(_saved(tmp_path / "m.keras", _with(place, ODD[odd])), deed="convert")


def _gemm(path: Path, beta: float) -> Path:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Gemm", ["x", "w", "b"], ["y"], beta=beta)
    rng = np.random.default_rng(3)
    own = [("w", rng.standard_normal((5, 3)).astype("f4")), ("b", rng.standard_normal(3).astype("f4"))]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [value("x", 1, [2, 5])],
        [value("y", 1, [2, 3])],
        [onnx.numpy_helper.from_array(array, name) for name, array in own],
    )
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return path


@pytest.mark.parametrize("beta", [float("nan"), float("inf"), -float("inf")])
def test_a_factor_that_is_no_number(refused: Any, tmp_path: Path, beta: float) -> None:
    refused(_gemm(tmp_path / "m.onnx", beta), "beta", deed="convert")


def test_a_factor_of_zero_where_its_numbers_have_no_place(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    like = torch.nn.Sequential(torch.nn.Linear(5, 3, bias=False))
    with pytest.raises(LayoutxError, match=r"onnx.Gemm multiplies it by zero"):
        lx.convert(_gemm(tmp_path / "m.onnx", 0.0), None, to="torch", like=like)


@pytest.mark.parametrize("form", [[], ["torch.Linear"], {"a": 1}, 7, None, True, "torch.\u202eLinear"])
def test_a_certificate_whose_forms_are_none(refused: Any, tmp_path: Path, form: object) -> None:
    """Odd and harmless: what it does not say is not known."""
    from safetensors.numpy import save_file

    layers = [{"name": "fc", "target": form, "tensors": {"fc.weight": "moves"}}]
    text = json.dumps({"layoutx": "0.1.0", "target": "torch", "layers": layers})
    save_file({"fc.weight": np.ones((3, 5), "f4")}, tmp_path / "m.safetensors", metadata={"layoutx": text})
    refused(tmp_path / "m.safetensors", fine=True, deed="inspect")
