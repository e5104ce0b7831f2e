"""What a recurrent layer is given besides its data: the states that it begins with, and the steps that count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.verify.compare.states import states_of
from layoutx.verify.recording import Call

STEPS = ("lstm", "gru", "simple_rnn", "mgu")
FIRST: Mapping[str, str] = {"h": "h0", "c": "c0"}
MASK = "mask"
BESIDE = (*FIRST.values(), MASK)
ATTENTION = ("attention", "attention_scale", "additive_attention")


def begun(bound: BoundForm, call: Call, turned: bool) -> dict[str, Array]:
    """First states, (batch, direction, hidden), and the mask (batch, time), False where a step is left out.

    Of attention the mask (batch, tq or 1, tk), False where a query does not see a key.

    Args:
        turned: the canonical data is in the order in which the layer reads it, from the end.
    """
    if bound.kind.name in ATTENTION:
        mask = _attended(bound, call)
        return {} if mask is None or mask.all() else {MASK: mask}
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


def _attended(bound: BoundForm, call: Call) -> Array | None:
    """What attention sees, of all masks together; None where there are none, or where heads have masks of their own."""
    names = call.names or ("",) * len(call.inputs)
    own = list(zip(names, call.inputs, strict=True))
    masks: list[Array] = []
    if bound.form.framework in ("keras", "tf_keras"):
        masks += [a.astype(bool)[:, :, None] for name, a in own if name == "query_mask"]
        masks += [a.astype(bool)[:, None, :] for name, a in own if name in ("key_mask", "value_mask")]
        masks += [a.astype(bool) for name, a in own if name == "attention_mask" and a.ndim == 3]
        pair = [a.astype(bool) for name, a in own if name == MASK and a.ndim == 2]
        masks += [pair[0][:, :, None], pair[1][:, None, :]] if len(pair) == 2 else []
        return _all(masks) if any(name.endswith(MASK) for name in names) else None
    if bound.form.framework == "torch":
        padding = [a for name, a in own if name == "key_padding_mask" or (not name and a.dtype.kind == "b")]
        causal = [a for name, a in own if name == "attn_mask" and a.dtype.kind == "b" and a.ndim == 2]
        if len(padding) == 1 and padding[0].ndim == 2 and padding[0].dtype.kind == "b":
            return _all([~padding[0][:, None, :], *(~a[None] for a in causal)])
    return None


def _all(masks: Sequence[Array]) -> Array | None:
    return np.asarray(np.logical_and.reduce(np.broadcast_arrays(*masks))) if masks else None


def counted(outputs: Mapping[str, Array], mask: Array | None) -> dict[str, Array]:
    """Outputs of all steps with zeros where a step is left out: frameworks repeat a number there, or give zeros.

    Of attention: of a query that sees nothing.
    """
    if mask is None or (mask.ndim == 3 and mask.shape[1] == 1):
        return dict(outputs)
    mask = np.asarray(mask.any(axis=-1)) if mask.ndim == 3 else mask
    return {name: _counted(a, mask) if name in ("y", "merged") and a.ndim == 3 else a for name, a in outputs.items()}


def _counted(array: Array, mask: Array) -> Array:
    """The array with zeros, as long as the mask: what is cut off, or was never computed, does not count."""
    steps = min(array.shape[1], mask.shape[1])
    if array.shape[0] != mask.shape[0] or mask[:, steps:].any():
        return array
    found = np.zeros((*mask.shape, array.shape[2]), array.dtype)
    found[:, :steps] = np.where(mask[:, :steps, None], array[:, :steps], 0)
    return found
