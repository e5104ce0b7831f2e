"""Layers of a live model whose config names none (a subclassed Keras model): each says itself what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.spec.registry import Registry


def told(model: ModelRecord, layers: Mapping[str, Any], known: Registry) -> ModelRecord:
    """The model with forms and configs for the layers that had none.

    Args:
        layers: name -> live Keras layer.
    """
    if all(record.form or not record.tensors for record in model.layers):
        return model
    return replace(model, layers=tuple(_told(record, layers.get(record.name), known, model) for record in model.layers))


def _told(record: LayerRecord, layer: Any, known: Registry, model: ModelRecord) -> LayerRecord:
    form = known.forms.get(f"keras.{type(layer).__name__}")
    if record.form or not record.tensors or layer is None or form is None or not hasattr(layer, "get_config"):
        return record
    stored = {spec.name for spec in form.tensors}
    if not set(record.tensors) <= stored:
        return record
    config = {key: value for key, value in layer.get_config().items() if key in form.config}
    version = 2 if model.version.startswith("2") else 3
    note = "form and config from the live layer"
    return replace(
        record,
        class_name=type(layer).__name__,
        form=form.name,
        config={**config, "version": version},
        note=note,
    )
