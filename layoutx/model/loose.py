"""Numbers and vectors that belong to no layer: each a record of its own, whoever holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from layoutx.model.bare import NUMBER, NUMBERS, alone, may_be_number
from layoutx.model.graph import VARIABLE
from layoutx.model.keras import UNNAMED
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.spec.registry import Registry

NORM = {"gamma", "beta"}  # two vectors so called are a norm of the user's own, which no code tells here


def numbered(model: ModelRecord) -> ModelRecord:
    """The model whose bare vectors that nothing else speaks for are numbers, one for each channel."""
    form = NUMBERS.get(model.framework, "")
    if not form:
        return model

    def told(one: LayerRecord) -> LayerRecord:
        if one.form or one.class_name or len(one.tensors) != 1 or not may_be_number(one.name):
            return one
        found = alone(one, model.framework, form)
        return one if found is one else replace(found, note=NUMBER)

    layers = tuple(told(one) for one in model.layers)
    return model if layers == model.layers else replace(model, layers=layers)


def taken_apart(model: ModelRecord, known: Sequence[LayerRecord], registry: Registry) -> ModelRecord:
    """A Keras model with each class of the user's own that holds numbers and vectors alone as these, one record each.

    What such a class reads is what those read that it feeds, as with all that has no weights.

    Args:
        known: the records before they had forms, with their tensors' own names.
    """
    if model.framework != "keras":
        return model
    pairs = zip(model.layers, known, strict=True)
    found = {one.name: parts for one, own in pairs if (parts := _parts(one, own, registry))}
    if not found:
        return model
    whole = {one.name: one for one in model.layers if one.name in found}
    layers: list[LayerRecord] = []
    for one in model.layers:
        layers += found.get(one.name) or [_past(one, whole)]
    return replace(model, layers=tuple(layers))


def _parts(record: LayerRecord, known: LayerRecord, registry: Registry) -> list[LayerRecord]:
    """A record for each of its tensors; [] where it is a layer, or one of them may be anything."""
    start = f"{record.name}/"
    if record.form:
        (short,) = known.tensors if record.note == NUMBER else ("",)
        apart = short and not known.form and known.class_name != VARIABLE
        return [replace(record, name=start + short, inputs=(), ways=(), alone="")] if apart else []
    beside = known.note == UNNAMED and not known.class_name
    own = known.class_name and f"keras.{known.class_name}" not in registry.forms
    if len(known.tensors) < 2 or not (beside or own):
        return []
    if all(len(one.shape) == 1 for one in known.tensors.values()) and known.tensors.keys() == NORM:
        return []
    each = [LayerRecord(start + short, "", "", {}, {short: one}) for short, one in known.tensors.items()]
    formed = [alone(one, "keras") for one in each]
    whole = all(one.form for one in formed)
    return [replace(one, class_name=known.class_name or one.class_name) for one in formed] if whole else []


def _past(record: LayerRecord, whole: Mapping[str, LayerRecord]) -> LayerRecord:
    """A record that reads what a class without layers of its own read, in its place."""
    if not any(name in whole for name in record.inputs):
        return record
    inputs = [own for name in record.inputs for own in (whole[name].inputs if name in whole else (name,))]
    ways = [own for way in record.ways for own in (whole[way.maker].ways if way.maker in whole else (way,))]
    before = whole[record.alone].alone if record.alone in whole else record.alone
    return replace(record, inputs=tuple(dict.fromkeys(inputs)), ways=tuple(ways), alone=before)
