"""A layer that a model holds and a model in it too (a language model's table that is its head as well): one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from layoutx.model.record import LayerRecord, ModelRecord


def once(model: ModelRecord, variables: Mapping[str, int]) -> ModelRecord:
    """The model without records of layers that have one already; who reads from such a one reads from the first.

    What feeds it there is not kept: records say what a layer reads, not which call of it.

    Args:
        variables: tensor name -> what tells the variable itself, which may be listed under several names.
    """
    first: dict[tuple[int, ...], str] = {}
    again: dict[str, str] = {}
    for record in model.layers:
        own = tuple(sorted(variables[tensor.name] for tensor in record.tensors.values() if tensor.name in variables))
        if own and len(own) == len(record.tensors) and (kept := first.setdefault(own, record.name)) != record.name:
            again[record.name] = kept
    if not again:
        return model
    left = {
        tensor.name: f"the same layer once more: {again[record.name]}"
        for record in model.layers
        if record.name in again
        for tensor in record.tensors.values()
    }
    layers = tuple(_read(record, again) for record in model.layers if record.name not in again)
    return replace(model, layers=layers, leftover={**model.leftover, **left})


def _read(record: LayerRecord, again: Mapping[str, str]) -> LayerRecord:
    inputs = tuple(again.get(name, name) for name in record.inputs)
    ways = tuple(replace(way, maker=again.get(way.maker, way.maker)) for way in record.ways)
    return replace(record, inputs=inputs, ways=ways, alone=again.get(record.alone, record.alone))
