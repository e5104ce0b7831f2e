"""Random inputs for a model of which nobody gave any: of the shapes that it tells, ids below the vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.model.entry import shape_of
from layoutx.model.graph import NUMBERS
from layoutx.model.keras_live import is_keras, live_records
from layoutx.model.keyed import Keyed
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.plan.plan import Array
from layoutx.verify.left_out import ended, ends_of

SEED = 20261121
FAR = 16.0  # how much larger inputs are made to see what cuts off large numbers alone (ReLU6, a clip)
LARGER = f"compute the same on plain inputs, and not on {FAR:g} times as large ones"
LENGTHS = (7, 11, 13)  # of axes that a model leaves open
# of maps and volumes: a deep network halves them five times, and Keras pads those of unknown size as if they were even
WIDE = {4: (64, 96, 32), 5: (16, 32, 8)}
# where windows leave nothing of these: sound is cut by hundreds before anything reads it
LONG, VAST = (448, 704, 832), {4: (192, 288, 96), 5: (32, 64, 16)}


def record_of(keras: Any, model: Keyed | ModelRecord) -> Keyed | ModelRecord:
    """The record of the live Keras model: `model` where that is a record with layers, else its own."""
    if isinstance(model, ModelRecord) and model.framework.startswith("keras"):
        return model
    try:
        return live_records(keras, lambda name: True)
    except LayoutxError:  # what it is made of is then not known: it is run on plain numbers
        return model


def probes(model: Any, record: Keyed | ModelRecord, low: int = 0, long: bool = False) -> list[Array]:
    """Random inputs of a Keras model's own shapes; integers below the vocabulary where an Embedding reads them.

    Of a subclass the shapes are those that its `call` was run on, as the record's config tells them.

    Args:
        low: ids below it are padding, and left out where the vocabulary has others.
        long: axes that the model leaves open are long ones.
    """
    if not getattr(model, "inputs", None):
        return list(told_inputs(record).values()) if isinstance(record, ModelRecord) else []
    rng = np.random.default_rng(SEED)
    limits, ends = vocabularies(record), ends_of(model)
    found: list[Array] = []
    for tensor in model.inputs:
        shape = [tensor.shape[0] or 3, *sized(tensor.shape[1:], long)]
        name = names_of(model)[len(found)]
        dtype = str(getattr(tensor.dtype, "name", tensor.dtype))
        limit = limits.get(name) or (limits.get("") if len(model.inputs) == 1 else None)
        if limit or "int" in dtype:
            found.append(_whole(rng, limit, shape, low).astype(dtype if "int" in dtype else "int64"))
        else:
            found.append(rng.normal(size=shape).astype(dtype))
        value = ends.get(name, ends.get("") if len(model.inputs) == 1 else None)
        if value is not None and found[-1].ndim > 1 and limit != 1:
            found[-1] = ended(found[-1], value)
    return found


def enlarged(arrays: Iterable[Array], far: float = FAR) -> list[Array]:
    """Numbers as many times as large; ids and masks stay."""
    if far == 1.0:
        return list(arrays)
    return [(array * far).astype(array.dtype) if array.dtype.kind == "f" else array for array in arrays]


def sized(shape: Sequence[int | None], long: bool = False) -> list[int]:
    """A shape without its batch, with a length for each axis that the model leaves open (None)."""
    lengths = (VAST if long else WIDE).get(len(shape) + 1, LONG if long else LENGTHS)
    return [lengths[i % 3] if n is None else int(n) for i, n in enumerate(shape)]


def _whole(rng: np.random.Generator, limit: int | None, shape: Sequence[int], low: int = 0) -> Array:
    """Ids below a vocabulary; of an input that no Embedding reads ones and then zeros, as masks of padding are.

    A first position that is masked would have nothing to attend to, of which each framework makes something else.
    """
    if limit is not None:
        return rng.integers(low if limit > low else 0, limit, shape)
    made = -np.sort(-rng.integers(0, 2, shape), axis=-1)
    made[..., : int(shape[-1] > 1)] = 1
    return made


def vocabularies(record: Keyed | ModelRecord) -> dict[str, int]:
    """Input name -> vocabulary of the Embedding that reads it, inside nested layers too; under "" that of any."""
    records = {layer.name: layer for layer in getattr(record, "layers", ())}
    found: dict[str, int] = {}
    for layer in records.values():
        made = bool(layer.inputs) and all(n in records and NUMBERS in records[n].config for n in layer.inputs)
        if layer.form.endswith((".Embedding", ".ReversibleEmbedding")) and not made:
            size = next(iter(layer.tensors.values())).shape[0]
            names = ["", *layer.inputs]
            for name in names:
                found[name] = min(size, found.get(name, size))
                inner = records.get(name)
                if inner is not None and inner.class_name == "InputLayer":
                    names += [one for one in inner.inputs if one not in names]
    return found


def names_of(model: Any) -> tuple[str, ...]:
    """The names of a Keras model's input layers, in its own order; () where it has none, and of any other model."""
    found = []
    for tensor in (getattr(model, "inputs", None) or []) if is_keras(model) else []:
        made = getattr(tensor, "_keras_history", None)  # an unnamed Input of Keras 3 makes `keras_tensor_3`
        found.append(str(made[0].name if made else tensor.name).split(":")[0])
    return tuple(found)


def told_inputs(model: ModelRecord) -> dict[str, Array]:
    """Random inputs of the shapes that a Keras config tells, in the model's order; {} where it tells none."""
    rng = np.random.default_rng(SEED)
    limits, own = vocabularies(model), _inputs(model)
    found: dict[str, Array] = {}
    for record in own:
        shape = shape_of(record.config, {})
        if shape is None:
            return {}
        sizes = [3, *sized(shape)]
        limit = limits.get(record.name) or (limits.get("") if len(own) == 1 else None)
        whole = limit or "int" in str(record.config.get("dtype", ""))
        made = _whole(rng, limit, sizes) if whole else rng.normal(size=sizes).astype("float32")
        found[record.name] = made
    return found


def _called(said: Any) -> Iterator[str]:
    """The names in `input_layers` in Keras' order: the only one stands without a list, a mapping goes by its keys."""
    if isinstance(said, Mapping):
        said = [said[key] for key in sorted(said)]
    if isinstance(said, (list, tuple)) and said and isinstance(said[0], str):
        yield said[0]
    elif isinstance(said, (list, tuple)):
        for one in said:
            yield from _called(one)


def _inputs(model: ModelRecord) -> list[LayerRecord]:
    """The model's input layers in the order in which it takes them; of an old Sequential its first layer."""
    body = (model.store.config or {}).get("config")
    said = body.get("input_layers", ()) if isinstance(body, Mapping) else ()
    names = list(_called(said))
    own = {record.name: record for record in model.layers if record.class_name == "InputLayer"}
    if names and all(name in own for name in names):
        return [own[name] for name in names]
    top = [record for name, record in own.items() if "/" not in name]
    return top or [record for record in model.layers[:1] if not record.inputs]
