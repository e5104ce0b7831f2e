"""Outputs of recurrent layers by name: all steps or only the last one, states in each framework's own arrangement."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm

RECURRENT: Mapping[str, tuple[str, ...]] = {
    "lstm": ("h", "c"),
    "gru": ("h",),
    "simple_rnn": ("h",),
    "mgu": ("h",),
    "conv_lstm": ("h", "c"),
}


def directions(bound: BoundForm) -> tuple[str, ...]:
    """The directions that a recurrent layer has, forward first."""
    told = bound.labels.get("direction")
    if told:
        return tuple(told)
    found = {label for _, labels in bound.places for _, label in labels}
    return tuple(way for way in ("forward", "backward") if way in found) or ("forward",)


def stack_place(bound: BoundForm) -> tuple[int, int]:
    """Which layer of a stack (torch num_layers) this is, and how many there are."""
    if not bound.form.each:
        return 0, 1
    found = re.search(r"_l(\d+)", bound.tensors[0].name)
    return int(found.group(1)) if found else 0, int(bound.config.get("num_layers") or 1)


def states_of(bound: BoundForm, arrays: Sequence[Array]) -> dict[str, Array]:
    """States by name, (direction, batch, hidden) as the form's own `data` says; those of a stack's own layer.

    arrays: one (batch, hidden) array for each direction and state, as Keras gives them (all states of the first
    direction, then those of the next), or one array a state with the directions inside.
    """
    names, ways = RECURRENT[bound.kind.name], directions(bound)
    if bound.kind.name == "conv_lstm":
        return dict(zip(names, arrays, strict=False))
    if arrays and arrays[0].ndim == 2 and len(arrays) == len(names) * len(ways) and bound.form.framework != "torch":
        split = [arrays[i :: len(names)] for i in range(len(names))]
        return {name: np.stack(own) for name, own in zip(names, split, strict=True)}
    at, many = stack_place(bound)
    found = {}
    for name, array in zip(names, arrays, strict=False):
        own = array[at * len(ways) : (at + 1) * len(ways)] if many > 1 else array
        found[name] = own
    return found


def outputs_of(bound: BoundForm, arrays: Sequence[Array], steps: int) -> dict[str, Array]:
    """Outputs by name: `y` of all steps, the states, and `end`, the merged last outputs of two directions.

    Args:
        arrays: what one call gave, in order; steps: ndim of the layer's input, with time.
    """
    if not arrays:
        return {}
    first, rest = arrays[0], arrays[1:]
    if bound.form.framework == "onnx":
        return _onnx(bound, arrays)
    at, many = stack_place(bound)
    found = states_of(bound, rest)
    if at < many - 1:
        return found  # the stack shows only its last layer's outputs
    if first.ndim == steps:
        return {"y": first, **found}
    return {**found, **_last(bound, first)}


def _onnx(bound: BoundForm, arrays: Sequence[Array]) -> dict[str, Array]:
    """Y has four axes, Y_h and Y_c have three; unused ones may be left out."""
    states = [a for a in arrays if a.ndim == 3]
    steps = [("y", a) for a in arrays if a.ndim == 4]
    return {**dict(steps), **dict(zip(RECURRENT[bound.kind.name], states, strict=False))}


def _last(bound: BoundForm, array: Array) -> dict[str, Array]:
    """The output of a layer that gives its last step only: Keras return_sequences=False."""
    many = len(directions(bound))
    if bound.kind.name == "conv_lstm" or many == 1:
        return {"h": array if bound.kind.name == "conv_lstm" else array[None]}
    if bound.settings.get("merge_mode") in (None, "concat"):
        return {"h": np.stack(np.split(array, many, axis=-1))}
    return {"end": array}


def derived(outputs: Mapping[str, Array], ways: Sequence[str], reversed_: bool) -> dict[str, Array]:
    """Canonical outputs with h made from y, where the layer gave no states: each direction's own last step.

    reversed_: y stands in the order in which a backward layer read its input (Keras go_backwards).
    """
    if "h" in outputs or "y" not in outputs or outputs["y"].ndim != 3:
        return dict(outputs)
    y = outputs["y"]
    if y.shape[-1] % len(ways):
        return dict(outputs)
    parts = np.split(y, len(ways), axis=-1)
    ends = [p[:, 0] if way == "backward" and not reversed_ else p[:, -1] for p, way in zip(parts, ways, strict=True)]
    return {**outputs, "h": np.stack(ends)}
