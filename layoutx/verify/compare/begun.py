"""What a recurrent layer is given besides its data: the states that it begins with, and the steps that count."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.verify.compare.states import states_of
from layoutx.verify.recording import Call

STEPS = ("lstm", "gru", "simple_rnn", "mgu")
FIRST: Mapping[str, str] = {"h": "h0", "c": "c0"}
MASK = "mask"
BESIDE = (*FIRST.values(), MASK)


def begun(bound: BoundForm, call: Call, turned: bool) -> dict[str, Array]:
    """First states, (batch, direction, hidden), and the mask (batch, time), False where a step is left out.

    Args:
        turned: the canonical data is in the order in which the layer reads it, from the end.
    """
    if bound.kind.name not in STEPS or bound.form.framework not in ("keras", "tf_keras", "torch"):
        return {}
    names = call.names or ("",) * len(call.inputs)
    rest = list(zip(names, call.inputs, strict=True))[1:]
    found: dict[str, Array] = {}
    states = [a for name, a in rest if name != MASK and a.dtype.kind == "f" and a.ndim in (2, 3)]
    if (states and bound.form.framework != "torch") or all(a.ndim == 3 for a in states):
        for name, array in states_of(bound, states).items():
            found[FIRST[name]] = np.moveaxis(array if array.ndim == 3 else array[None], 0, 1)
    mask = next((a for name, a in rest if name == MASK and a.ndim == 2), None)
    if mask is not None and not mask.all():
        found[MASK] = mask[:, ::-1].astype(bool) if turned else mask.astype(bool)
    return found


def counted(outputs: Mapping[str, Array], mask: Array | None) -> dict[str, Array]:
    """Outputs of all steps with zeros where a step is left out: frameworks repeat a number there, or give zeros."""
    if mask is None:
        return dict(outputs)
    return {name: _counted(a, mask) if name in ("y", "merged") and a.ndim == 3 else a for name, a in outputs.items()}


def _counted(array: Array, mask: Array) -> Array:
    """The array with zeros, as long as the mask: what is cut off, or was never computed, does not count."""
    steps = min(array.shape[1], mask.shape[1])
    if array.shape[0] != mask.shape[0] or mask[:, steps:].any():
        return array
    found = np.zeros((*mask.shape, array.shape[2]), array.dtype)
    found[:, :steps] = np.where(mask[:, :steps, None], array[:, :steps], 0)
    return found
