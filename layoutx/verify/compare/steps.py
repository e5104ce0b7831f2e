"""One call on all time steps (TimeDistributed), and one a step (a loop over frames): the same data, compared so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.compare.named import Named


def as_called(here: Named, many: int, number: int, there: Sequence[Named]) -> Named | None:
    """The target's calls as the source calls the layer.

    Args:
        here: the source's call `number` of `many`.
        there: all of the target's calls. That of the same number is given back where they are not each other's steps,
            None where there is none.
    """
    plain = there[number] if number < len(there) else None
    if many == 1 and len(there) > 1:
        return _all(here, there) or plain
    if many > 1 and len(there) == 1:
        one = there[0]
        inputs, outputs = (
            _step(a, b, many, number) for a, b in ((here.inputs, one.inputs), (here.outputs, one.outputs))
        )
        return Named(inputs, outputs, here.lead, one.roles) if inputs and outputs else plain
    return plain


def _all(here: Named, there: Sequence[Named]) -> Named | None:
    """The calls laid together, step by step, where they are as many samples as the one call has."""
    inputs = _laid(here.inputs, [one.inputs for one in there])
    outputs = _laid(here.outputs, [one.outputs for one in there])
    return Named(inputs, outputs, here.lead, there[0].roles) if inputs and outputs else None


def _laid(wanted: Mapping[str, Array], each: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Time is one with the batch, or an axis of its own where the layer has nothing to do with it (a norm)."""
    found = {}
    for name in wanted.keys() & each[0].keys():
        own = [one[name] for one in each if name in one and one[name].shape == each[0][name].shape]
        laid = np.stack(own, axis=1)
        if laid.ndim > wanted[name].ndim:
            laid = laid.reshape(-1, *own[0].shape[1:])
        if len(own) < len(each) or laid.shape[:2] != wanted[name].shape[:2]:
            return {}
        found[name] = laid
    return found


def _step(wanted: Mapping[str, Array], given: Mapping[str, Array], many: int, number: int) -> dict[str, Array]:
    """One step of each array of a call on all of them; {} where they are not as many."""
    found = {}
    for name in wanted.keys() & given.keys():
        array, batch = given[name], wanted[name].shape[0]
        apart = array.ndim > wanted[name].ndim
        if array.shape[: 1 + apart] != ((batch, many) if apart else (batch * many,)):
            return {}
        found[name] = array[:, number] if apart else array[number::many]
    return found
