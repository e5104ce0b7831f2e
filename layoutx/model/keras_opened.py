"""Layers and models of the user's own classes in a live Keras model: opened into the layers that they hold."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from layoutx.model.graph import GIVEN, LIVE, MOVED, SAID, VARIABLE
from layoutx.model.keras_called import calls_of, own_graph, untouched
from layoutx.model.keras_moved import moved
from layoutx.model.keras_own import computed
from layoutx.model.keras_wired import wired

KERAS_OWN = {"module": "keras.layers", "registered_name": None}


def opened(model: Any, config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The model's config with each layer of the user's own classes as a model of the layers that it holds.

    No config tells what such a class does with its layers: its `call` is run on symbolic tensors, of which the
    user's layers keep no trace. Where it cannot be, or does what nobody can follow, the graph is marked `unwired`.
    Variables of the layer itself stand beside the layers that it holds, each as an entry of its own.

    Args:
        config: the model's own; None where it gives none (a subclass).
    """
    try:
        with untouched(model):
            if config is None or "layers" not in config.get("config", {}):
                return _model(model, _held(model))
            return _entry(config, model)
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return dict(config) if config is not None else None


def _entry(entry: Mapping[str, Any], layer: Any) -> dict[str, Any]:
    """One entry of a config, its layer at hand."""
    body = entry.get("config")
    if (found := _own_model(layer)) is not None:
        return {**entry, **found}
    if not isinstance(body, Mapping) or not isinstance(body.get("layers"), list) or not hasattr(layer, "layers"):
        said = _said(layer) if _foreign(layer) else {}
        return {**entry, "config": {**body, **said}} if said and isinstance(body, Mapping) else dict(entry)
    inner = [one if held is None else _entry(_called(one, held), held) for one, held in _pairs(body["layers"], layer)]
    return {**entry, "config": {**body, "layers": inner}}


def _pairs(entries: list[Any], layer: Any) -> Iterator[tuple[Any, Any]]:
    """Entries of a config, each with its live layer; None where there is none.

    By name; a layer of the user's own class without a get_config has none in a Sequential, and its place is the same.
    """
    live, before = {one.name: one for one in layer.layers}, len(entries) - len(layer.layers)
    for at, entry in enumerate(entries):
        unnamed = not _name(entry) and before <= at and type(layer).__name__ == "Sequential"
        yield entry, layer.layers[at - before] if unnamed else live.get(_name(entry))


def _called(entry: Mapping[str, Any], layer: Any) -> dict[str, Any]:
    """An entry with the layer's name, where it has none."""
    return {**entry} if _name(entry) else {**entry, "config": {**(entry.get("config") or {}), "name": layer.name}}


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name") or entry.get("config", {}).get("name", ""))


def _own(layer: Any) -> bool:
    return type(layer).__module__.split(".")[0] not in ("keras", "tf_keras")


def _foreign(layer: Any) -> bool:
    """Whether the user's own code tells what a layer does."""
    return _own(layer) or type(layer).__name__ == "Lambda"


def _held(layer: Any) -> list[Any]:
    """The layers that a layer of the user's own class holds, but for those that were made and never called.

    One that lies in another of them as well (a list of layers, and the Sequential made of it) is held there.
    """
    if own_graph(layer) is not None:
        return [*_made(layer.layers), *aside(layer)]
    held = _made(layer._flatten_layers(include_self=False, recursive=False))
    inner = {id(deep) for one in held for deep in one._flatten_layers(include_self=False)}
    return [one for one in held if id(one) not in inner]


def _made(layers: Iterable[Any]) -> list[Any]:
    return [one for one in layers if getattr(one, "built", True) or one.weights]


def aside(model: Any) -> list[Any]:
    """Layers that a functional model of a class of its own keeps beside its graph, for others to call (SAM's decoder).

    Those that are models of the layers in its graph are none.
    """
    if own_graph(model) is None:
        return []
    inside = {id(weight) for one in model.layers for weight in one.weights}
    below = model._flatten_layers(include_self=False, recursive=False)
    return [one for one in below if one.weights and inside.isdisjoint(map(id, one.weights))]


def _beside(layer: Any, held: list[Any]) -> list[dict[str, Any]]:
    """The weights of a layer that belong to none of the layers that it holds, as a config would tell them."""
    theirs = {id(weight) for one in held for weight in one.weights}
    own = [weight for weight in layer.weights if id(weight) not in theirs]
    names = [str(one.name).split(":")[0] for one in own]
    return [{"class_name": VARIABLE, **KERAS_OWN, "config": {"name": name}} for name in names]


def _own_model(layer: Any) -> dict[str, Any] | None:
    """A layer of the user's own class, or a Lambda, as a model; None where nothing is known of it."""
    if not _foreign(layer):
        return None
    if (same := computed(layer)) is not None:
        return {"class_name": same[0], **KERAS_OWN, "config": {**same[1]}}
    held = _held(layer)
    if held:
        found = _model(layer, held)
        inside = _given(found["config"])
        return {**found, "config": {**inside, "layers": [*_beside(layer, held), *inside["layers"]]}}
    body = wired(layer, calls_of(layer, ()), (), ()) if not layer.weights else None
    if (body is None or body.get("unwired") or _turns(body)) and (parts := moved(layer)) is not None:
        body = {"name": layer.name, MOVED: parts}
    return {"class_name": type(layer).__name__, **_whose(layer), "config": _given(body)} if body is not None else None


def _turns(body: Mapping[str, Any]) -> bool:
    """Whether axes are exchanged on the way: cut apart before, they are patches, which a run tells better."""
    return any(one["class_name"] == "Transpose" for one in body.get("layers", ()))


def _given(body: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose inputs say that other layers make them: those made for a symbolic call, which are no layers."""

    def told(entry: dict[str, Any]) -> dict[str, Any]:
        made = entry["class_name"] == "InputLayer" and "registered_name" not in entry
        return {**entry, "config": {**entry["config"], GIVEN: True}} if made else entry

    return {**body, "layers": [told(one) for one in body.get("layers", ())]} if "layers" in body else {**body}


def _model(layer: Any, held: list[Any]) -> dict[str, Any]:
    graph = own_graph(layer)
    calls = graph or calls_of(layer, held)  # before the layers in it are told: theirs are made by it
    held = _held(layer)  # it may be the first that was called of a layer whose holder says its shapes itself
    told = [_told(one) for one in held]
    body = wired(layer, calls, held, told, whole=graph is not None)
    kind = "layer" if graph is None else "model"
    body = body or {"name": layer.name, "layers": told, "unwired": True, LIVE: kind, **_said(layer)}
    return {"class_name": type(layer).__name__, **_whose(layer), "config": body}


def _said(layer: Any) -> dict[str, str]:
    """Where a layer's channels stand, where it says so in an attribute of its own."""
    found = getattr(layer, "data_format", None)
    return {SAID: found} if found in ("channels_last", "channels_first") else {}


def _told(layer: Any) -> dict[str, Any]:
    """A layer as a config tells it; of one whose class gives none its name, since the layers in it are there."""
    try:
        config = layer.get_config()
    except Exception:  # the user's code, which only saving runs
        config = {"name": layer.name}
    return _entry({"class_name": type(layer).__name__, **_whose(layer), "config": config}, layer)


def _whose(layer: Any) -> Mapping[str, Any]:
    """The module and the registered name of a layer's class, as Keras 3 writes them."""
    if not _own(layer):
        return KERAS_OWN
    homes = {c.__module__.split(".")[0] for c in type(layer).__mro__}
    saving = sys.modules["tf_keras" if "tf_keras" in homes else "keras"].saving
    return {"module": type(layer).__module__, "registered_name": saving.get_registered_name(type(layer))}
