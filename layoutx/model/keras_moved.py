"""Layers of the user's own class that cut an image into patches, by whatever code: found by running them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

Part = tuple[int, int, int]  # axis of the input, behind the batch; how far one step goes in it; how many steps
SIDE = 6  # of an image of any size
MOST = 1 << 24  # whole numbers that float32 tells apart


def moved(layer: Any) -> list[list[Part]] | None:
    """What each axis of a layer's output is made of, the last part fastest.

    None where it does more than moving numbers, or makes no vector of channels and positions.

    Args:
        layer: a live Keras layer without weights, called on one tensor of a known number of channels. Of an axis that
            has no size the number of steps is 0.
    """
    keras = sys.modules.get("keras")
    nodes = getattr(layer, "_inbound_nodes", ())
    if keras is None or layer.weights or not nodes:
        return None
    given = nodes[0].arguments.keras_tensors
    said = tuple(given[0].shape[1:]) if len(given) == 1 else ()
    if len(said) != 3 or not isinstance(said[-1], int):
        return None
    sizes = tuple(n or SIDE for n in said)
    if not 1 < prod(sizes) < MOST:
        return None
    try:
        numbers = np.arange(prod(sizes), dtype="float32").reshape(1, *sizes)
        made = keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor(numbers)))
    except Exception:  # the user's code may do anything
        return None
    parts = parts_of(made[0], sizes) if made.shape[:1] == (1,) and made.size == numbers.size else None
    mixed = any(len(dim) > 1 and any(axis == 2 for axis, *_ in dim) for dim in parts or ())
    if not mixed or parts is None or None not in said:
        return parts if mixed else None
    cut = [axis for dim in parts for axis, *_ in dim if said[axis] is None]
    if len(cut) != said.count(None):  # positions of an image of any size became several
        return None
    return [[(axis, step, n if said[axis] else 0) for axis, step, n in dim] for dim in parts]


def parts_of(made: Any, sizes: Sequence[int]) -> list[list[Part]] | None:
    """The parts of each axis of an array that holds the numbers of another one of these sizes, counted in order."""
    found = made.astype(np.int64)
    if not (found == made).all() or not (np.sort(found, axis=None) == np.arange(found.size)).all():
        return None
    steps = [np.moveaxis(found, at, 0).reshape(n, -1)[:, 0] - found.flat[0] for at, n in enumerate(found.shape)]
    whole = sum(step.reshape([-1 if i == at else 1 for i in range(found.ndim)]) for at, step in enumerate(steps))
    if found.flat[0] != 0 or not (found == whole).all():
        return None
    dims = [_runs(step, sizes) for step in steps]
    return [dim for dim in dims if dim is not None] if all(dim is not None for dim in dims) else None


def _runs(step: Any, sizes: Sequence[int]) -> list[Part] | None:
    """An axis as nested loops over axes of the input, from where each of its steps leads."""
    parts: list[Part] = []
    done = 1
    while done < len(step):
        stride = int(step[done])
        many = 1
        while (many + 1) * done <= len(step) and step[many * done] == many * stride and _within(many, stride, sizes):
            many += 1
        axis = _axis(stride, sizes)
        if many < 2 or axis is None or len(step) % (many * done):
            return None
        block = (np.arange(many)[:, None] * stride + step[:done][None, :]).reshape(-1)
        if not (step[: many * done] == block).all():
            return None
        parts.insert(0, (axis, stride // prod(sizes[axis + 1 :]), many))
        done *= many
    return parts


def _axis(stride: int, sizes: Sequence[int]) -> int | None:
    """The axis of the input along which a step of this many numbers leads."""
    return next((a for a in range(len(sizes)) if stride > 0 and stride % prod(sizes[a + 1 :]) == 0), None)


def _within(steps: int, stride: int, sizes: Sequence[int]) -> bool:
    """Whether so many steps do not leave the axis that the first one leads along."""
    axis = _axis(stride, sizes)
    return axis is not None and steps * stride < prod(sizes[axis:])
