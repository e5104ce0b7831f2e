"""What the order of a file's names tells: the model's own order, or only that a writer sorted them."""

from __future__ import annotations

import re

from layoutx.files.notes import KEY
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.words import natural


def keeps_order(keyed: Keyed) -> bool:
    """Whether the names stand in the order in which the model defines its layers.

    The safetensors library sorts by dtype and name (safetensors 0.4, `serialize`: wide dtypes first), and so
    does every index over such files: a sorted file says nothing about its model. layoutx keeps the order.
    """
    store = keyed.store
    if store is not None and store.format in ("tree", "orbax", "dcp", "tf_checkpoint"):
        # jax and TensorFlow sort names; torch deals them out to ranks
        return False
    if store is None or store.format not in ("safetensors", "msgpack", "pickle") or KEY in store.metadata:
        return True
    by_dtype: dict[str, list[str]] = {}
    for tensor in keyed.tensors.values():
        by_dtype.setdefault(tensor.dtype.name, []).append(tensor.name)
    return any(names != sorted(names) for names in by_dtype.values())


def in_order(model: ModelRecord) -> bool:
    """Whether the layers stand in the model's order: HDF5 sorts the groups of a weights file without a config."""
    return model.store.format in ("h5", "live") or any(record.inputs for record in model.layers)


def positions(keyed: Keyed) -> dict[str, int]:
    """Name -> its place in the model's order; in a sorted file that of the numbers in the names."""
    names = list(keyed.tensors) if keeps_order(keyed) else sorted(keyed.tensors, key=natural)
    return {name: at for at, name in enumerate(names)}


def counted(name: str) -> str:
    """A Keras layer's name without its count: `dense`, `dense_1` and `dense_12` are of one series."""
    return re.sub(r"_\d+(?=/|$)", "", name)
