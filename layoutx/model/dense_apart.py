"""Dense layers of Keras that are several in one (a fused qkv), as these, where the user says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

from layoutx.files.stacked import rows_of
from layoutx.files.store import Tensor
from layoutx.model.fused import shares
from layoutx.model.loose import reading
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.model.said import PARTS

DENSE = "keras.Dense"


def dense_apart(model: ModelRecord, values: Mapping[str, Any]) -> ModelRecord:
    """The model with the layers apart of which the user says so; itself where there are none.

    Args:
        values: `{"*/attention_qkv.parts": "query 6, key 6, value 6"}`, as for `said_apart`.

    Raises:
        UsageError: no such text, or units that do not come out even.
    """
    said = {key.rpartition(".")[0]: text for key, text in values.items() if key.rpartition(".")[2] == PARTS}
    found = {
        one.name: _parts(one, text)
        for one in (model.layers if said else ())
        for path, text in said.items()
        if one.form == DENSE and fnmatchcase(one.name.replace("/", "."), path.replace("/", "."))
    }
    if not found:
        return model
    layers = [part for one in model.layers for part in (found.get(one.name) or [reading(one, found)])]
    return stored_apart(replace(model, layers=tuple(layers)))


def stored_apart(model: ModelRecord) -> ModelRecord:
    """The model whose store has, in the place of a tensor of which layers hold parts, these."""
    own: dict[str, list[Tensor]] = {}
    for tensor in (tensor for one in model.layers for tensor in one.tensors.values()):
        if tensor.part is not None:
            own.setdefault(tensor.part.whole.name, []).append(tensor)
    tensors = {t.name: t for name, one in model.store.tensors.items() for t in own.get(name, [one])}
    return replace(model, store=replace(model.store, tensors=tensors))


def _parts(record: LayerRecord, text: Any) -> list[LayerRecord]:
    kernel = record.tensors["kernel"]
    runs = shares(record.name, kernel.shape[-1], text)
    rows = [(one.groups, one.start, one.stop) for one in runs]
    cut = {name: rows_of(tensor, len(tensor.shape) - 1, rows) for name, tensor in record.tensors.items()}
    return [
        replace(
            record,
            name=f"{record.name}/{one.name}",
            config={**record.config, "units": cut["kernel"][at].shape[-1]},
            tensors={name: own[at] for name, own in cut.items()},
            called="",
            alone="",
        )
        for at, one in enumerate(runs)
    ]
