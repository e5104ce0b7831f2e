"""Steps that a model's mask leaves out: what stands there does not count, also in the layers after it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.compare.apart import apart
from layoutx.verify.compare.flow import Side
from layoutx.verify.compare.limits import OK, coarsest, verdict
from layoutx.verify.made import names_of
from layoutx.verify.recording import Recording

NOTE = "steps that the source's mask leaves out hold other numbers in the target: they are not compared"
NAMES = ("mask", "query_mask")


def masks_of(source: Recording, run: Recording, model: Any) -> tuple[Array, ...]:
    """The masks (batch, time) that leave out something, each once: those that layers of a Keras run were handed, and
    those that a Keras model has among its inputs by that name.

    Args:
        source: the source's run. run, model: those of the model whose inputs they are.
    """
    handed = source.calls if source.framework in ("keras", "tf_keras") else ()
    masks = [(name in NAMES, array) for call in handed for name, array in zip(call.names, call.inputs, strict=False)]
    named = names_of(model)
    masks += [("mask" in name, array) for name, array in zip(named, run.inputs, strict=False)]
    found: dict[bytes, Array] = {}
    for is_mask, array in masks:
        if is_mask and array.ndim == 2 and np.isin(array, (0, 1)).all() and not array.all():
            found.setdefault(array.astype(bool).tobytes(), array.astype(bool))
    return tuple(found.values())


def counting(side: Side, masks: Sequence[Array], dtypes: Sequence[str], tolerance: float) -> Side:
    """The side, with the steps that a mask leaves out not compared where only these differ."""
    if side.verdict == OK or side.apart.odd:
        return side
    for where in _left_out(side.expected, masks):
        left, right = (np.where(where, 0, array) for array in (side.expected, side.found))
        found = apart(left, right)
        if verdict(found, coarsest((left, right), dtypes), flow=True, tolerance=tolerance) == OK:
            return replace(side, expected=left, found=right, apart=found, verdict=OK, hint=NOTE)
    return side


def _left_out(array: Array, masks: Sequence[Array]) -> Iterator[Array]:
    """Where an array has a step that does not count: of (batch, time, ...), or of steps that are one with the batch."""
    for mask in masks:
        if array.ndim > 2 and array.shape[:2] == mask.shape:
            yield ~mask.reshape(*mask.shape, *[1] * (array.ndim - 2))
        elif array.ndim > 1 and len(array) == mask.size:
            yield ~mask.reshape(-1, *[1] * (array.ndim - 1))
