"""A made model as Keras 3 writes it into config.json."""

from __future__ import annotations

from typing import Any

from benching.kinds import Model


def config_of(model: Model) -> dict[str, Any]:
    """The config of a Functional model, a chain."""
    last = ("input_layer", model.input, "float32")
    layers: list[dict[str, Any]] = [_layer("InputLayer", last[0], {"batch_shape": [None, *model.input]}, [])]
    for layer in model.layers:
        tensor = {"shape": [None, *last[1]], "dtype": last[2], "keras_history": [last[0], 0, 0]}
        given = [{"class_name": "__keras_tensor__", "config": tensor} for _ in range(layer.calls)]
        built = {"input_shape": [None, *last[1]]}
        if layer.calls == 2:
            shape = [None, *last[1]]
            built = {"shapes_dict": {"query_shape": shape, "value_shape": shape}}  # type: ignore[dict-item]
        made = _layer(layer.kind, layer.name, layer.config, [{"args": given, "kwargs": {}}])
        layers.append({**made, "build_config": built})
        last = (layer.name, layer.out, layer.config.get("dtype", last[2]))
    ends = {"input_layers": [["input_layer", 0, 0]], "output_layers": [[last[0], 0, 0]]}
    return {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {"name": model.name.replace("-", "_"), "trainable": True, "layers": layers, **ends},
        "registered_name": "Functional",
        "build_config": {"input_shape": None},
    }


def _layer(kind: str, name: str, config: dict[str, Any], calls: list[dict[str, Any]]) -> dict[str, Any]:
    inner = {"name": name, "dtype": "float32", **config}
    about = {"module": "keras.layers", "class_name": kind, "registered_name": None, "name": name}
    return {**about, "config": inner, "inbound_nodes": calls}
