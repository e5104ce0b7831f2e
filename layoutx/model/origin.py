"""Config values that no layer's config says: what wrote a Keras 1 file, and what the user adds to it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.files.store import Store
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.model.said import check_values, values_said
from layoutx.spec.bind import UNKNOWN
from layoutx.spec.registry import Registry

BACKENDS = ("tensorflow", "theano", "cntk", "jax", "torch", "numpy")
SPELLED = {"tensorflow": "TensorFlow", "theano": "Theano"}
KEPT = {"std": "1.0.5", "variance": "1.0.8"}  # a release of Keras 1 whose running_std holds that


def with_values(
    model: ModelRecord,
    registry: Registry,
    values: Mapping[str, Any] = NOTHING,
    config: Mapping[str, Any] | None = None,
    elsewhere: Collection[str] = (),
) -> ModelRecord:
    """The model, each layer's config with the values that its form reads and that stand beside the layers.

    Args:
        values: the user's, config key -> value, for every layer whose form reads the key; `layer.key` for one layer.
        config: the model config in use, where it is not the file's own.
        elsewhere: keys that may be meant for another model.

    Raises:
        UsageError: a key that no layer of the model reads.
    """
    known = written_by(model.store, config) if model.framework == "keras1" else {}
    model = _on_theano(model, registry, values)
    layers = tuple(_with(record, registry, known, values_said(values, record.name)) for record in model.layers)
    layers = tuple(_evident(record, registry, model.store, known, values) for record in layers)
    own = {said: value for said, value in values.items() if said.rpartition(".")[2] not in elsewhere}
    if model.framework == "keras":
        own.pop("backend", None)  # said of the whole file; a model without convolutions reads nothing of it
    check_values(own, model, registry, known)
    return replace(model, layers=layers)


def _on_theano(model: ModelRecord, registry: Registry, values: Mapping[str, Any]) -> ModelRecord:
    """A Keras 2 model that ran on Theano: its convolutions are true ones (keras 2.3.1 engine/saving.py).

    Raises:
        UsageError: no backend of Keras, or the file says another one.
    """
    said = values.get("backend", "")
    if said and said not in BACKENDS:
        raise UsageError(f"no Keras ran on {said!r}", do=f"the backends are {', '.join(BACKENDS)}")
    own = model.store.backend or "another backend" * model.version.startswith(("3", "4"))
    if model.framework == "keras" and said and own and "theano" in (said, own) and said != own:
        why = f"Keras {model.version or 2} wrote it with {SPELLED.get(own, own)}"
        raise UsageError(f"{model.store.path.name} is no file of {said}", why=why, do="leave --backend out")
    if model.framework != "keras" or (said or own) != "theano":
        return model
    why = "its kernel is back to front, since Theano convolves truly"
    return replace(model, layers=tuple(_turned(record, registry, why) for record in model.layers))


def _evident(
    record: LayerRecord, registry: Registry, store: Store, known: Mapping[str, str], values: Mapping[str, Any]
) -> LayerRecord:
    """The layer with a note that says why it was taken for that backend's, where nobody said the backend."""
    if "backend" in values or store.backend or not record.form:
        return record
    why, other = "", "theano"
    if known.get("backend", UNKNOWN) != UNKNOWN and "backend" in registry.form(record.form).config:
        name = next((key.rsplit("/", 1)[-1] for keys in store.groups.values() for key in keys), "")
        why = f"taken for {SPELLED[known['backend']]}'s, since the file's weights are called {name}"
        other = "tensorflow" if known["backend"] == "theano" else other
    elif store.format == "h5" and _turned_form(record) in registry.forms:
        why = "taken for TensorFlow's, since the file says no backend"
    note = f"it is {why}; if that is wrong: --backend {other}" if why else ""
    return replace(record, note="; ".join(filter(None, (record.note, note)))) if note else record


def _turned_form(record: LayerRecord) -> str:
    """What Theano would have stored of a layer of Keras 2; "" for another framework's, Keras 1 among them."""
    return record.form.replace("keras.", "keras.theano.", 1) if record.form.startswith("keras.") else ""


def _turned(record: LayerRecord, registry: Registry, why: str) -> LayerRecord:
    form = _turned_form(record)
    if form not in registry.forms:
        return record
    return replace(record, form=form, note="; ".join(filter(None, (record.note, why))))


def _with(record: LayerRecord, registry: Registry, known: Mapping[str, str], values: Mapping[str, Any]) -> LayerRecord:
    if not record.form:
        return record
    keys = registry.form(record.form).config
    said = {key: value for key, value in known.items() if key in keys and record.form.startswith("keras1.")}
    given = {key: value for key, value in values.items() if key in keys}
    if "running_std" in given and "release" not in given:
        given["release"] = _release(given["running_std"], {**record.config, **said}.get("release", UNKNOWN))
    if not said and not given:
        return record
    notes = [record.note, *(f"{key}={value} as given by --set" for key, value in given.items())]
    return replace(record, config={**record.config, **said, **given}, note="; ".join(filter(None, notes)))


def _release(kept: Any, said: Any) -> str:
    """The release that a file is read as, since the user says what its running_std holds.

    Raises:
        UsageError: neither of the two; or the file says its release.
    """
    if kept not in KEPT:
        raise UsageError(f"running_std holds no {kept!r}", do="say std (before Keras 1.0.6) or variance")
    if said != UNKNOWN and (str(said) < "1.0.6") != (kept == "std"):
        raise UsageError(f"Keras {said} wrote the file: its running_std is no {kept}", do="leave --running-std out")
    return KEPT[str(kept)] if said == UNKNOWN else str(said)


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
