"""Steps that a Keras model leaves out: what marks them, and sequences that end with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from layoutx.plan.plan import Array


def ends_of(model: Any) -> dict[str, float]:
    """Input name -> what a left-out step of it holds (mask_zero of an Embedding, Masking); under "" of any."""
    found: dict[str, float] = {}
    flattened = getattr(model, "_flatten_layers", None)
    for layer in flattened() if flattened is not None else ():
        value = 0.0 if getattr(layer, "mask_zero", False) else getattr(layer, "mask_value", None)
        if isinstance(value, (int, float)):
            before = [getattr(node, "input_tensors", ()) for node in getattr(layer, "_inbound_nodes", ())]
            tensors = [t for some in before for t in (some if isinstance(some, (list, tuple)) else [some])]
            histories = [getattr(t, "_keras_history", None) for t in tensors]
            found.update(dict.fromkeys((*(str(h[0].name) for h in histories if h), ""), float(value)))
    return found


def ended(array: Array, value: float) -> Array:
    """Sequences of several lengths: what is left out stands behind each end, as padding puts it, and nowhere else."""
    found = np.where(array == value, 1, array).astype(array.dtype)
    for sample in range(1, min(len(found), found.shape[1])):
        found[sample, -sample:] = value
    return found
