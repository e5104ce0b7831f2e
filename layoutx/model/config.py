"""A model config that is given beside a weights file, and an input shape that one lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layoutx.errors import UsageError
from layoutx.files.open import open_store


def config_of(source: str | Path | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A model config: itself, that of a Keras file, or the text that `model.to_json()` gave.

    Raises:
        UsageError: a file that holds no model config.
    """
    import json

    if source is None or isinstance(source, Mapping):
        return source
    if not isinstance(source, (str, Path)):
        raise UsageError(
            f"a {type(source).__name__} is not a model config", do="give a Keras file, a JSON file or a mapping"
        )
    path = Path(source)
    if path.suffix == ".json" and path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{path.name} is not JSON", why=str(error)) from error
        return found if isinstance(found, Mapping) else {"config": found}
    store = open_store(path)
    if store.config is None:
        raise UsageError(
            f"{path.name} holds no model config", do="give a .keras or full .h5 file, or model.to_json() text"
        )
    return store.config


def with_input_shape(config: Mapping[str, Any] | None, shape: Sequence[int]) -> Mapping[str, Any]:
    """A model config whose one input has this shape (without batch).

    Raises:
        UsageError: the model has no config, several inputs, or one of another shape; a number is no shape.
    """
    if isinstance(shape, int):
        raise UsageError("the input shape is one number", do=f"write input_shape=({shape},)")
    body = (config or {}).get("config")
    layers = body if isinstance(body, list) else (body or {}).get("layers") if isinstance(body, Mapping) else None
    if not layers:
        raise UsageError("an input shape says nothing about a file without a model config")
    inputs = [layer for layer in layers if layer.get("class_name") == "InputLayer"]
    if len(inputs) > 1:
        raise UsageError("the model has several inputs", why="one input shape cannot say which it is")
    first = inputs[0] if inputs else layers[0]
    key = "batch_shape" if "batch_shape" in first.get("config", {}) else "batch_input_shape"
    said = first.get("config", {}).get(key)
    if said and (len(said) - 1 != len(shape) or any(a not in (None, b) for a, b in zip(said[1:], shape, strict=True))):
        dims = ", ".join("any" if n is None else str(n) for n in said[1:])
        raise UsageError(
            f"the input shape {tuple(shape)} contradicts the file",
            why=f"its model is built for ({dims}), without the batch",
            do="leave --input-shape out: it is for files that do not say it",
        )
    changed = {**first, "config": {**first.get("config", {}), key: [None, *shape]}}
    layers = [changed if layer is first else layer for layer in layers]
    found = layers if isinstance(body, list) else {**dict(body or {}), "layers": layers}
    return {**dict(config or {}), "config": found}
