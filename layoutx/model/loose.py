"""Numbers, vectors and matrices that belong to no layer: each a record of its own, whoever holds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod

from layoutx.files.store import Tensor
from layoutx.model.bare import MATRICES, NUMBER, NUMBERS, alone, are_matrices, may_be_number
from layoutx.model.graph import VARIABLE
from layoutx.model.keras import NOT_KERAS, UNNAMED
from layoutx.model.keras_uses import UNFOLLOWED
from layoutx.model.keyed import Keyed
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.model.state import NO_FORM
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


def matrixed(
    model: ModelRecord, keyed: Keyed, registry: Registry, keeps: Callable[[str], bool] = lambda name: False
) -> ModelRecord:
    """A model in which each matrix, vector and number that no form is known for is a record, where the other has it so.

    What the class makes of them stays unknown: experts, capsules, the kernel of a graph convolution. Of a layer that is
    given a flattened map the one matrix with as many rows takes its order over. Where there is none, or the order is
    not known, the layer stays whole.

    Args:
        keeps: whether the user says of a part (`caps/W`) that what it is given keeps its order.
    """
    if model.framework not in MATRICES:
        return model
    maps = any("onv" in one.form for one in model.layers)
    found: dict[str, list[LayerRecord]] = {}
    for one in model.layers:
        if one.tensors and not one.form and of_ones_own(one, model.framework, registry):
            parts = [free(one, short, model.framework) for short in one.tensors]
            parts = parts if all(keeps(part.name) for part in parts) else _refined(one, parts, maps)
            if parts and all(part.form for part in parts):
                found[one.name] = parts
    here = Counter(_sides(t) for own in found.values() for part in own for t in part.tensors.values())
    there = Counter(_sides(t) for t in keyed.tensors.values())
    like = {name for name, own in found.items() if all(here[s] <= there[s] for s in _sizes(own)) and any(_sizes(own))}
    apart = {name: own for name, own in found.items() if name in like}
    layers = [part for one in model.layers for part in (apart.get(one.name) or [reading(one, apart)])]
    return replace(model, layers=tuple(layers)) if like else model


def _refined(whole: LayerRecord, parts: list[LayerRecord], maps: bool) -> list[LayerRecord]:
    """The parts, the one that multiplies a flattened map with its order; [] where it cannot be told which that is."""
    if not whole.refine:
        return [] if maps and UNFOLLOWED in whole.note else parts
    size = prod(whole.refine["row"].sizes.values())
    met = [part for part in parts for tensor in part.tensors.values() for n in tensor.shape if n == size]
    rows = [part for part in met for tensor in part.tensors.values() if tensor.shape[-2:-1] == (size,)]
    if len(met) != 1 or len(rows) != 1:
        return []
    return [replace(part, refine=whole.refine) if part is rows[0] else part for part in parts]


def _sizes(parts: Sequence[LayerRecord]) -> list[tuple[int, ...]]:
    return [size for part in parts for tensor in part.tensors.values() if (size := _sides(tensor))]


def _sides(tensor: Tensor) -> tuple[int, ...]:
    """The sizes of matrices, whichever way each of them lies; () of other tensors."""
    shape = tensor.shape
    return (*shape[:-2], *sorted(shape[-2:])) if are_matrices(tensor) else ()


def reading(record: LayerRecord, found: Mapping[str, Sequence[LayerRecord]]) -> LayerRecord:
    """A record that reads what layers make that are several records now."""
    if not any(name in found for name in record.inputs):
        return record
    names = {name: [part.name for part in found[name]] if name in found else [name] for name in record.inputs}
    ways = [replace(way, maker=name) for way in record.ways for name in names.get(way.maker, [way.maker])]
    inputs = tuple(name for own in names.values() for name in own)
    return replace(record, inputs=inputs, ways=tuple(ways), alone="" if record.alone in found else record.alone)


def of_ones_own(record: LayerRecord, framework: str, registry: Registry) -> bool:
    """Whether a class of the user's own holds these, and not one that could not be told."""
    if framework == "keras":
        return bool(record.class_name) and f"keras.{record.class_name}" not in registry.forms and not has_layers(record)
    return record.note.startswith(NO_FORM)


def has_layers(record: LayerRecord) -> bool:
    """Whether a class of the user's own in a file holds layers, of which only the live model tells the classes."""
    return record.note.endswith(NOT_KERAS) and any("/" in name for name in record.tensors)


def free(record: LayerRecord, short: str, framework: str) -> LayerRecord:
    """One of a layer's tensors as a record of its own; without a form where it may not be one."""
    whole = record.class_name == VARIABLE or record.name.rpartition(".")[2] == short
    name = record.name if whole else f"{record.name}{'/' if framework == 'keras' else '.'}{short}".lstrip("./")
    one = LayerRecord(name, "", "", {}, {short: record.tensors[short]})
    said = (MATRICES if are_matrices(record.tensors[short]) else NUMBERS)[framework]
    found = alone(one, framework, said)
    if not found.form:
        return one
    return replace(found, class_name=record.class_name, note=NUMBER, inputs=record.inputs, ways=record.ways)


def _past(record: LayerRecord, whole: Mapping[str, LayerRecord]) -> LayerRecord:
    """A record that reads what a class without layers of its own read, in its place."""
    if not any(name in whole for name in record.inputs):
        return record
    inputs = [own for name in record.inputs for own in (whole[name].inputs if name in whole else (name,))]
    ways = [own for way in record.ways for own in (whole[way.maker].ways if way.maker in whole else (way,))]
    before = whole[record.alone].alone if record.alone in whole else record.alone
    return replace(record, inputs=tuple(dict.fromkeys(inputs)), ways=tuple(ways), alone=before)
