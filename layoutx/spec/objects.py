"""What a serialised Keras object says as a config value: a function's name, an activation layer by what it computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SLOPES = ("negative_slope", "alpha")  # Keras 3, Keras 1 and 2
SLOPE = 0.3  # Keras' default of LeakyReLU


def spelled(value: Mapping[str, Any]) -> Any:
    """The name of `{"class_name": ..., "config": ...}`; `leaky_relu_0.1` for a layer LeakyReLU with that slope.

    A layer with options that no name says keeps its class name.
    """
    config, name = value.get("config"), value.get("class_name")
    if isinstance(config, str):
        return config
    config = config if isinstance(config, Mapping) else {}
    if ">" in str(value.get("registered_name")):  # a class of the user's own, whatever it is called
        return name
    match name:
        case "LeakyReLU":
            slope = next((config[key] for key in SLOPES if key in config), SLOPE)
            return f"leaky_relu_{slope:.6g}" if isinstance(slope, (int, float)) else name  # Keras 2 rounds to float32
        case "ReLU" if not config.get("negative_slope") and not config.get("threshold"):
            return {None: "relu", 6.0: "relu6"}.get(config.get("max_value"), name)
        case "ELU" if config.get("alpha", 1.0) == 1.0:
            return "elu"
        case "Softmax" if config.get("axis", -1) == -1:
            return "softmax"
        case _:
            return name
