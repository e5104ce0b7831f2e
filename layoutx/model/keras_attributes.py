"""What the user called the layers of a live Keras model: an attribute's name, where Keras made the layer's own.

`self.q = Dense(5)` is a layer called `dense_25`, which says nothing; in a module of another framework it is `q`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from layoutx.model.keras_leaves import snake
from layoutx.model.record import ModelRecord


def with_attributes(found: ModelRecord, model: Any) -> ModelRecord:
    """The records with what their attributes call them, where that says more than their names do."""
    names = _below(model, "", "", set())
    layers = []
    for record in found.layers:
        path, rest = record.name, ""
        while path and path not in names:
            path, _, last = path.rpartition("/")
            rest = f"/{last}{rest}"
        called = f"{names[path]}{rest}" if path else record.name
        layers.append(record if called == record.name else replace(record, called=called))
    return replace(found, layers=tuple(layers))


def _below(holder: Any, path: str, called: str, seen: set[int]) -> dict[str, str]:
    """The path of each layer below one, by the layers' names -> by what people call them."""
    found: dict[str, str] = {}
    own = {id(layer): name for name, layer in _attributes(holder)}
    flat = getattr(holder, "_flatten_layers", None)
    for layer in flat(include_self=False, recursive=False) if flat is not None else ():
        name = layer.name
        if id(layer) in seen or f"{path}{name}" in found:
            continue
        made = re.fullmatch(rf"{re.escape(snake(type(layer).__name__))}(_\d+)?", name) is not None
        says = own.get(id(layer), name) if made else name
        found[f"{path}{name}"] = f"{called}{says}"
        found |= _below(layer, f"{path}{name}/", f"{called}{says}/", {*seen, id(layer)})
    return found


def _attributes(holder: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of each attribute of a class of the user's own; what stands in lists by its number or key."""
    if type(holder).__module__.split(".")[0] in ("keras", "tf_keras"):
        return
    held = vars(holder)
    for name, value in reversed({**held.get("_modules", {}), **held}.items()):  # where Keras' layers are torch's
        if name not in ("_layers", "_modules") and not name.startswith("_self_"):  # all once more, as they are tracked
            yield from _within(name.strip("_"), value)


def _within(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _within(f"{name}/{key}", one)
    elif isinstance(value, (list, tuple)):
        for at, one in enumerate(value):
            yield from _within(f"{name}/{at}", one)
    else:
        yield name, value
