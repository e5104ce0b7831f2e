"""Config values that no layer's config says: what wrote a Keras 1 file, and what the user adds to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.files.store import Store
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.spec.bind import UNKNOWN
from layoutx.spec.registry import Registry


def with_values(
    model: ModelRecord,
    registry: Registry,
    values: Mapping[str, Any] = NOTHING,
    config: Mapping[str, Any] | None = None,
) -> ModelRecord:
    """The model, each layer's config with the values that its form reads and that stand beside the layers.

    Args:
        values: the user's, config key -> value, for every layer whose form reads the key.
        config: the model config in use, where it is not the file's own.

    Raises:
        UsageError: a key that no layer of the model reads.
    """
    known = written_by(model.store, config) if model.framework == "keras1" else {}
    layers = tuple(_with(record, registry, known, values) for record in model.layers)
    read = {key for record in model.layers if record.form for key in registry.form(record.form).config}
    unread = [key for key in values if key not in read]
    if unread:
        keys = ", ".join(sorted({key for key in (*known, "backend", "release") if key in read})) or "none of the kind"
        raise UsageError(
            f"--set names no config key that a layer of this model reads: {', '.join(unread)}",
            why=f"keys that files leave out: {keys}",
            do="`layoutx specs show FORM` lists the keys of a form",
        )
    return replace(model, layers=layers)


def _with(record: LayerRecord, registry: Registry, known: Mapping[str, str], values: Mapping[str, Any]) -> LayerRecord:
    if not record.form:
        return record
    keys = registry.form(record.form).config
    said = {key: value for key, value in known.items() if key in keys and record.form.startswith("keras1.")}
    given = {key: value for key, value in values.items() if key in keys}
    if not said and not given:
        return record
    notes = [record.note, *(f"{key}={value} as given by --set" for key, value in given.items())]
    return replace(record, config={**record.config, **said, **given}, note="; ".join(filter(None, notes)))


def written_by(store: Store, config: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The release and the backend of Keras 1 that wrote a file, "unknown" where nothing says it.

    `save` writes keras_version since 1.0.7, `to_json` always did, `save_weights` never (keras@1.0.7 models.py
    save_model; @1.0.4 engine/topology.py). No Keras 1 says its backend; TensorFlow's variables are called `W:0`.
    """
    said = store.version or str((config or store.config or {}).get("keras_version", ""))
    names = [key.rsplit("/", 1)[-1] for keys in store.groups.values() for key in keys]
    backend = store.backend
    if not backend and any(re.search(r":\d+$", name) for name in names):
        backend = "tensorflow"
    elif not backend and any(not re.fullmatch(r"param_\d+", name) for name in names):
        backend = "theano"
    return {"release": said or UNKNOWN, "backend": backend or UNKNOWN}
