"""Statistics that a Keras Normalization was given in its config: nothing is stored, and yet others need the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from layoutx.files.dtypes import Array
from layoutx.files.store import Store, Tensor
from layoutx.model.record import LayerRecord

WHY = "given in the layer's config"
NAMES = ("mean", "variance")


def with_given(records: Sequence[LayerRecord]) -> list[LayerRecord]:
    """The records, with tensors for a mean and a variance that stand in the config.

    One number for all channels stays in the config: how many channels there are is not said there.
    """
    return [_given(r) if r.class_name.rpartition(">")[2] == "Normalization" and not r.tensors else r for r in records]


def with_made(store: Store, records: Sequence[LayerRecord]) -> Store:
    """The store with the tensors that stand in the config, for whoever counts them."""
    made = {t.name: t for record in records for t in record.tensors.values() if t.derived == WHY}
    return replace(store, tensors={**store.tensors, **made}) if made else store


def _given(record: LayerRecord) -> LayerRecord:
    config = record.config
    arrays = {name: _array(config.get(name)) for name in NAMES}
    mean, variance = arrays.values()
    if mean is None or variance is None or mean.shape != variance.shape:
        return record
    whole = config.get("axis", -1) in (None, [], ())
    if mean.ndim > 1 or (mean.ndim == 0) != whole:
        return record
    dtype = np.dtype("float64" if config.get("dtype") == "float64" else "float32")
    tensors = {
        name: Tensor(f"{record.name}/{name}", dtype, mean.shape, partial(array.astype, dtype), WHY)
        for name, array in arrays.items()
        if array is not None
    }
    count = Tensor(f"{record.name}/count", np.dtype("int64"), (), partial(np.zeros, (), np.int64), WHY)
    note = "; ".join(filter(None, [record.note, "its mean and variance are those of its config"]))
    left = {**config, **dict.fromkeys(NAMES)}
    return replace(record, form="keras.Normalization", config=left, tensors={**tensors, "count": count}, note=note)


def _array(value: Any) -> Array | None:
    """The numbers as float64; channels in a shape that is spread over the data become a vector."""
    if value is None or isinstance(value, (str, bytes)):
        return None
    if isinstance(value, dict):  # as Keras 3 serialises an array
        value = value.get("config", {}).get("value")
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None
    return found.reshape(-1) if found.ndim > 1 and max(found.shape) == found.size else found
