"""A Keras model in float64: its dtype policies exchanged while it runs (Keras 3), or a clone of it (tf_keras)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from layoutx.model.keras_live import made_array
from layoutx.plan.plan import Array
from layoutx.verify.running.keras_watch import is_model
from layoutx.verify.running.untouched import Change, changed, same_random

STATISTICS = ("mean", "variance")
EXACT = ("_inverse_sqrt_key_dim", "_inverse_sqrt_head_dim")


@contextmanager
def in_float64(model: Any) -> Iterator[None]:
    """A Keras 3 model, or one layer, computes in float64 inside: its numbers are cast when they are read.

    keras 3.15.1 layers/layer.py: `__call__` opens an AutocastScope of the policy's compute dtype where the variable
    dtype is another; models/functional.py casts what goes in to the dtype of the model's own symbolic inputs.
    """
    import keras

    changes: list[Change] = []
    for layer in _layers(model):
        if "int" in layer.compute_dtype or layer.compute_dtype in ("string", "bool"):
            continue
        policy = keras.DTypePolicy("float64")
        policy._variable_dtype = layer.variable_dtype
        changes.append((layer, "_dtype_policy", policy))
        # attention of keras 3.15.1 casts this Python float by way of float32
        changes += [(layer, n, np.float64(getattr(layer, n))) for n in EXACT if isinstance(vars(layer).get(n), float)]
        changes += [(t, "_dtype", "float64") for t in _inputs(layer) if "float" in t.dtype]
        # Normalization of keras 3.15.1 computes with copies of its statistics, in the dtype that it was built with
        copies = STATISTICS if hasattr(layer, "finalize_state") else ()
        held = {n: value for n in copies if (value := getattr(layer, n, None)) is not None}
        changes += [(layer, n, keras.ops.cast(value, "float64")) for n, value in held.items()]
    with changed(changes):
        yield


def _layers(layer: Any) -> list[Any]:
    """A layer and all below it; an operation of Keras 3 is none and has no dtype."""
    return list(layer._flatten_layers()) if hasattr(layer, "_flatten_layers") else []


def _inputs(layer: Any) -> list[Any]:
    inner = getattr(layer, "_functional", None)  # a Sequential's own
    return list(getattr(inner if inner is not None else layer, "_inputs", None) or []) if is_model(layer) else []


def float64_clone(model: Any) -> Any:
    """A clone of a tf_keras model in float64, with its numbers.

    Raises:
        ValueError, NotImplementedError, TypeError: a subclassed model, or a layer without a config.
    """
    import tf_keras

    known = {type(layer).__name__: type(layer) for layer in model._flatten_layers()}
    with same_random(), tf_keras.utils.custom_object_scope(known):
        clone = _cloned(model)
    if clone.built or model.weights:
        clone.set_weights([w.astype(np.float64) if w.dtype.kind == "f" else w for w in model.get_weights()])
    return clone


def _cloned(model: Any) -> Any:
    import tf_keras

    inputs = [
        tf_keras.Input(batch_shape=tuple(t.shape), dtype="float64" if t.dtype.is_floating else t.dtype, name=name)
        for t, name in zip(model.inputs or [], getattr(model, "input_names", ()), strict=True)
    ]
    return tf_keras.models.clone_model(model, input_tensors=inputs or None, clone_function=_doubled)


def _doubled(layer: Any) -> Any:
    if is_model(layer):
        return _cloned(layer)
    found = type(layer).from_config(with_float64(layer.get_config()))
    if type(layer).__name__ == "Lambda":
        found.function = layer.function  # the written bytes of a function lose what it refers to
    return found


def with_float64(config: Any) -> Any:
    """A layer's config with every dtype that is a float (its own, and of the layers inside) turned to float64."""
    if isinstance(config, Mapping):
        return {k: "float64" if k == "dtype" and _is_float(v) else with_float64(v) for k, v in config.items()}
    return [with_float64(v) for v in config] if isinstance(config, list) else config


def _is_float(value: Any) -> bool:
    name = value.get("config", {}).get("name", "") if isinstance(value, Mapping) else value
    return isinstance(name, str) and "float" in name


@contextmanager
def same_state(model: Any) -> Iterator[None]:
    """States of recurrent layers, statistics and random generators are afterwards what they were."""
    variables = [*getattr(model, "non_trainable_variables", ())]
    for layer in _layers(model):
        variables += getattr(layer, "states", None) or [] if getattr(layer, "stateful", False) else []
    before = [(v, _value(v).copy()) for v in variables if hasattr(v, "assign")]
    with same_random():
        try:
            yield
        finally:
            for variable, array in before:
                if not np.array_equal(_value(variable), array):
                    variable.assign(array)


def _value(variable: Any) -> Array:
    return made_array(variable.value if hasattr(variable, "path") else variable)
