"""Layers and models of the user's own classes in a live Keras model: opened into the layers that they hold."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def opened(model: Any, config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The model's config with each layer of the user's own classes as a model of the layers that it holds.

    No config tells what such a class does with its layers: the graph is marked `unwired`.

    Args:
        config: the model's own; None where it gives none (a subclass).
    """
    try:
        if config is None or "layers" not in config.get("config", {}):
            return _model(model, model.layers)
        return _entry(config, model)
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return dict(config) if config is not None else None


def _entry(entry: Mapping[str, Any], layer: Any) -> dict[str, Any]:
    """One entry of a config, its layer at hand."""
    body = entry.get("config")
    if _own(layer) and (held := _held(layer)):
        return {**entry, **_model(layer, held)}
    if not isinstance(body, Mapping) or not isinstance(body.get("layers"), list) or not hasattr(layer, "layers"):
        return dict(entry)
    live = {one.name: one for one in layer.layers}
    inner = [_entry(one, live[name]) if (name := _name(one)) in live else one for one in body["layers"]]
    return {**entry, "config": {**body, "layers": inner}}


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name") or entry.get("config", {}).get("name", ""))


def _own(layer: Any) -> bool:
    return type(layer).__module__.split(".")[0] not in ("keras", "tf_keras")


def _held(layer: Any) -> list[Any]:
    """The layers that a layer of the user's own class holds; [] where it has weights beside theirs."""
    held = list(layer._flatten_layers(include_self=False, recursive=False))
    theirs = {id(weight) for one in held for weight in one.weights}
    return held if all(id(weight) in theirs for weight in layer.weights) else []


def _model(layer: Any, held: list[Any]) -> dict[str, Any]:
    body = {"name": layer.name, "layers": [_told(one) for one in held], "unwired": True}
    return {"class_name": type(layer).__name__, **_whose(layer), "config": body}


def _told(layer: Any) -> dict[str, Any]:
    """A layer as a config tells it."""
    if _own(layer) and (held := _held(layer)):
        return _model(layer, held)
    return _entry({"class_name": type(layer).__name__, **_whose(layer), "config": layer.get_config()}, layer)


def _whose(layer: Any) -> dict[str, Any]:
    """The module and the registered name of a layer's class, as Keras 3 writes them."""
    if not _own(layer):
        return {"module": "keras.layers", "registered_name": None}
    homes = {c.__module__.split(".")[0] for c in type(layer).__mro__}
    saving = sys.modules["tf_keras" if "tf_keras" in homes else "keras"].saving
    return {"module": type(layer).__module__, "registered_name": saving.get_registered_name(type(layer))}
