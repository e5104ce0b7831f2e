"""A live Keras model as records: its config as text, its variables as lazy tensors; nothing is copied."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.files.store import Store, Tensor
from layoutx.model.alone import alone
from layoutx.model.keras import records
from layoutx.model.keras_attributes import with_attributes
from layoutx.model.keras_once import once
from layoutx.model.keras_opened import aside, opened
from layoutx.model.keyed import torch_tensor
from layoutx.model.record import ModelRecord


@alone()
def live_records(model: Any, known: Callable[[str], bool]) -> ModelRecord:
    """The layers of a live Keras model (keras 3 or tf_keras 2); reads its variables only when asked to."""
    found = with_attributes(records(live_store(model), known), model)
    return once(found, {name: id(value) for name, value in variables(model).items()})


def is_keras(model: Any) -> bool:
    """Whether a live model is one of Keras: with the torch backend it is a torch module as well."""
    return hasattr(model, "layers") and hasattr(model, "get_weights")


def live_store(model: Any) -> Store:
    """A live model in the form of a legacy file: one group a layer, its weights in the legacy order."""
    tensors: dict[str, Tensor] = {}
    groups: dict[str, tuple[str, ...]] = {layer.name: () for layer in _layers(model)}
    for group, name, variable in _named(model):
        tensors[name] = _tensor(name, variable)
        groups[group] = (*groups.get(group, ()), name)
    return Store(Path(f"<{model.name}>"), "h5", tensors, config=_config(model), version=_version(model), groups=groups)


def variables(model: Any) -> dict[str, Any]:
    """Tensor name in `live_store` -> the model's own variable."""
    return {name: variable for _, name, variable in _named(model)}


def live_tensors(model: Any) -> dict[str, Tensor]:
    """The tensors of `live_store`, without the config."""
    return {name: _tensor(name, variable) for _, name, variable in _named(model)}


def _named(model: Any) -> Iterator[tuple[str, str, Any]]:
    """(layer, name, variable) of each variable in the legacy order; every name is given once."""
    seen: set[str] = set()
    for layer in _layers(model):
        for variable in [*layer.trainable_weights, *layer.non_trainable_weights]:
            name = f"{layer.name}/{_path(variable)}"
            while name in seen:
                name += "'"
            seen.add(name)
            yield layer.name, name, variable
    held = {id(variable) for layer in _layers(model) for variable in layer.weights}
    for variable in model.weights:
        if id(variable) not in held:  # a subclass may have weights of its own
            yield model.name, f"{model.name}/{_path(variable)}", variable


def _layers(model: Any) -> list[Any]:
    return [*model.layers, *aside(model)]


def _path(variable: Any) -> str:
    return str(getattr(variable, "path", "") or variable.name)


def _tensor(name: str, variable: Any) -> Tensor:
    dtype = dtype_of(variable)
    return Tensor(name, dtype, tuple(variable.shape), partial(array_of, variable))


def array_of(variable: Any) -> np.ndarray[Any, Any]:
    """The values of a variable: TensorFlow's own memory where it lies on the CPU, which is then not to be written."""
    value = getattr(variable, "_value", variable)
    if type(value).__name__ == "ResourceVariable":
        try:
            return np.asarray(memoryview(value.value()))
        except (TypeError, ValueError, BufferError):  # on a device, or a dtype that has no letter among buffers
            pass
    return np.asarray(variable)


def made_array(made: Any) -> np.ndarray[Any, Any]:
    """What a layer gives; on the torch backend these are tensors that keep a gradient, which NumPy refuses."""
    return torch_tensor("an output", made).read() if hasattr(made, "detach") else np.asarray(made)


def dtype_of(variable: Any) -> np.dtype[Any]:
    """The NumPy dtype of a Keras variable."""
    dtype = variable.dtype
    name = dtype if isinstance(dtype, str) else dtype.name
    if name == "bfloat16":
        import ml_dtypes

        name = ml_dtypes.bfloat16
    return np.dtype(name)


def _config(model: Any) -> dict[str, Any] | None:
    """The model's own config, layers of other classes opened; for a subclass without one the layers that it holds."""
    try:
        found = json.loads(model.to_json())
    except Exception:  # the user's code, which only saving runs
        found = None
    whole = opened(model, found if isinstance(found, dict) else None)
    return json.loads(json.dumps(whole, default=str)) if whole is not None else None


def _version(model: Any) -> str:
    module = type(model).__module__.split(".")[0]
    import sys

    package = sys.modules.get("tf_keras" if module == "tf_keras" else "keras")
    return str(getattr(package, "__version__", "")) if package is not None else ""
