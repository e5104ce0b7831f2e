"""The same inputs for two models: given or made, and arranged for the second, whose axes may stand in another order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.errors import UsageError
from layoutx.plan.plan import Array
from layoutx.verify.keywords import keywords_for
from layoutx.verify.made import enlarged, names_of
from layoutx.verify.models import arrangements as by_channels
from layoutx.verify.plain import is_torch
from layoutx.verify.running.opened import Runner
from layoutx.verify.spare import left, opened, spare_masks, told

SAMPLES = 2


def inputs_for(first: Runner, second: Runner, inputs: Any, far: float = 1.0, long: bool = False) -> tuple[Any, bool]:
    """The inputs, and whether they are in the axis order of the second model; float64 as float32, which models take.

    Args:
        far: how many times as large those are that are made. long: axes that the models leave open are long ones.

    Raises:
        UsageError: none are given, and neither model says the shapes of its own.
    """
    if inputs is not None:
        return as_float32(inputs), False
    for one, other, swapped in ((first, second, False), (second, first, True)):
        if made := one.inputs(long):
            spare = _spare(one, other)
            return opened(enlarged(made, far), names_of(one.model), spare), swapped
    raise UsageError(
        "neither model says what its inputs look like",
        why="a torch module runs on any shape that its code takes",
        do="give the inputs: inputs=array, or --inputs batch.npz",
    )


def as_float32(inputs: Any) -> Any:
    """Inputs of float64 in the numbers of float32: a wired Keras model rounds them so, and another would not."""
    if isinstance(inputs, Mapping):
        return {name: as_float32(one) for name, one in inputs.items()}
    if isinstance(inputs, (list, tuple)) and any(isinstance(one, np.ndarray) for one in inputs):
        return [as_float32(one) for one in inputs]
    array = np.asarray(inputs)
    if array.dtype != np.float64:
        return inputs
    with np.errstate(over="ignore"):
        narrow = array.astype(np.float32)
    return narrow if np.array_equal(np.isfinite(narrow), np.isfinite(array)) else inputs


def _spare(one: Runner, other: Runner) -> tuple[str, ...]:
    own = names_of(one.model)
    return spare_masks(other.model, own) if is_torch(other.model) else ()


def for_other(one: Runner, other: Runner, arrays: Sequence[Array]) -> tuple[tuple[int, ...], str]:
    """The places of the first model's inputs that the other is given; what is said where these are not all."""
    spare = _spare(one, other)
    if not spare:
        return tuple(range(len(arrays))), ""
    places = left(dict(zip(names_of(one.model), arrays, strict=True)), spare)
    return places, told(spare) if len(places) < len(arrays) else ""


def by_name(one: Runner, other: Runner, inputs: Any) -> tuple[str, ...]:
    """The argument of the other model's forward that each input of the first is, as its name says; () by position.

    Args:
        one: what is run first; inputs: what the user gave it, None for nothing.
    """
    own = names_of(one.model)
    told = inputs is None or (isinstance(inputs, Mapping) and {*inputs} == {*own})
    return keywords_for(other.model, own) if told and is_torch(other.model) else ()


def as_given(arrays: Sequence[Array], keywords: Sequence[str]) -> Sequence[Array] | dict[str, Array]:
    """The inputs as a runner takes them: by position, or each for an argument."""
    return dict(zip(keywords, arrays, strict=True)) if keywords else arrays


def fewer(inputs: Any) -> Any:
    """The first SAMPLES of the inputs: one alone would hide what mixes samples."""
    arrays = inputs if isinstance(inputs, (Mapping, list, tuple)) else [inputs]
    values = [np.asarray(x) for x in (arrays.values() if isinstance(arrays, Mapping) else arrays)]
    if len({array.shape[:1] for array in values}) != 1 or values[0].ndim < 2 or len(values[0]) <= SAMPLES:
        return inputs
    cut = [array[:SAMPLES] for array in values]
    return dict(zip(arrays, cut, strict=True)) if isinstance(arrays, Mapping) else cut


def arranged(
    arrays: Sequence[Array], here: bool, there: bool, time_first: bool, mixed: bool = False
) -> Iterator[tuple[tuple[Array, ...], str]]:
    """Every arrangement of the inputs that the other model may take, likely ones first, with what was done.

    Args:
        here, there: whether each model keeps channels first.
        time_first: whether one of them reads sequences with time before batch.
        mixed: whether the other model may take them in another order too.
    """
    for turned, note, _ in by_channels(list(arrays), here, there, mixed):
        yield tuple(turned), note
    if here == there and any(array.ndim > 3 for array in arrays):  # a graph may have its own order, whatever is usual
        for source, to, note in ((-1, 1, "channels turned to the front"), (1, -1, "channels turned to the end")):
            yield tuple(np.ascontiguousarray(np.moveaxis(a, source, to)) if a.ndim > 3 else a for a in arrays), note
    if time_first:
        swapped = tuple(np.ascontiguousarray(np.swapaxes(a, 0, 1)) if a.ndim > 1 else a for a in arrays)
        yield swapped, "time turned before batch"
