"""Random inputs of the shapes that a Keras model says, whole numbers where they name rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.plan.plan import Array
from layoutx.verify.left_out import ended, ends_of

LENGTHS = (7, 11, 13)  # of axes that a model leaves open
# of maps and volumes: a deep network halves them five times, and Keras pads those of unknown size as if they were even
WIDE = {4: (64, 96, 32), 5: (16, 32, 8)}


def probes(model: Any, record: Keyed | ModelRecord) -> list[Array]:
    """Random inputs of a Keras model's own shapes; integers below the vocabulary where an Embedding reads them."""
    rng = np.random.default_rng(20261121)
    limits, ends = vocabularies(record), ends_of(model)
    found: list[Array] = []
    for tensor in getattr(model, "inputs", None) or []:
        shape = [3, *sized(tensor.shape[1:])]
        name = names_of(model)[len(found)]
        dtype = str(getattr(tensor.dtype, "name", tensor.dtype))
        limit = limits.get(name) or (limits.get("") if len(model.inputs) == 1 else None)
        if limit or "int" in dtype:
            found.append(rng.integers(0, limit or 2, shape).astype(dtype if "int" in dtype else "int64"))
        else:
            found.append(rng.normal(size=shape).astype(dtype))
        value = ends.get(name, ends.get("") if len(model.inputs) == 1 else None)
        if value is not None and found[-1].ndim > 1 and limit != 1:
            found[-1] = ended(found[-1], value)
    return found


def sized(shape: Sequence[int | None]) -> list[int]:
    """A shape without its batch, with a length for each axis that the model leaves open (None)."""
    lengths = WIDE.get(len(shape) + 1, LENGTHS)
    return [lengths[i % 3] if n is None else int(n) for i, n in enumerate(shape)]


def vocabularies(record: Keyed | ModelRecord) -> dict[str, int]:
    """Input name -> vocabulary of the Embedding that reads it, inside nested layers too; under "" that of any."""
    records = {layer.name: layer for layer in getattr(record, "layers", ())}
    found: dict[str, int] = {}
    for layer in records.values():
        if layer.form.endswith((".Embedding", ".ReversibleEmbedding")):
            size = next(iter(layer.tensors.values())).shape[0]
            names = ["", *layer.inputs]
            for name in names:
                found[name] = min(size, found.get(name, size))
                inner = records.get(name)
                if inner is not None and inner.class_name == "InputLayer":
                    names += [one for one in inner.inputs if one not in names]
    return found


def names_of(model: Any) -> tuple[str, ...]:
    """The names of a Keras model's inputs, in its own order; () where it has none."""
    return tuple(str(tensor.name).split(":")[0] for tensor in getattr(model, "inputs", None) or [])
