"""Keras weights files without Keras: a config, and `layers/<name>/vars/<i>` as keras 3.15.1 writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Layer = tuple[str, str, dict[str, Any], list[tuple[int, ...]], str]


def dense(name: str, inputs: int, units: int) -> Layer:
    return "Dense", name, {"units": units, "use_bias": True}, [(inputs, units), (units,)], "vars"


def conv(name: str, inputs: int, filters: int, kernel: tuple[int, int] = (3, 3)) -> Layer:
    config = {"filters": filters, "kernel_size": list(kernel), "groups": 1, "use_bias": True, "padding": "same"}
    return "Conv2D", name, config, [(*kernel, inputs, filters), (filters,)], "vars"


def lstm(name: str, inputs: int, units: int) -> Layer:
    config = {"units": units, "use_bias": True, "return_sequences": True}
    return "LSTM", name, config, [(inputs, 4 * units), (units, 4 * units), (4 * units,)], "cell/vars"


def write_model(
    path: Path, layers: list[Layer], shape: list[int | None], dtype: Any = np.float32, seed: int = 3, **how: Any
) -> Path:
    """A `.weights.h5` file with numbers of a normal distribution; its config is beside it, ending in `.json`.

    Args:
        shape: of the input, with the batch. how: more for h5py's create_dataset, such as chunks.
    """
    rng = np.random.default_rng(seed)
    listed: list[dict[str, Any]] = [{"class_name": "InputLayer", "config": {"batch_shape": shape, "name": "input"}}]
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        for kind, name, config, shapes, inner in layers:
            listed.append({"class_name": kind, "config": {"name": name, "dtype": "float32", **config}})
            for at, size in enumerate(shapes):
                numbers = rng.standard_normal(size).astype(dtype)
                file.create_dataset(f"layers/{name}/{inner}/{at}", data=numbers, **how)
    model = {"class_name": "Sequential", "config": {"name": "model", "layers": listed}}
    config_of(path).write_text(json.dumps(model))
    return path


def config_of(path: Path) -> Path:
    return path.with_suffix(".json")
