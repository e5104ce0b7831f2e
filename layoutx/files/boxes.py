"""Pieces of a tensor that were stored apart: inside its shape, none over another, all of it filled."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

MOST_COMPARED = 1_000_000
Box = Sequence[tuple[int, int]]  # on each axis, where it begins and ends


def check_boxes(boxes: Sequence[Box], shape: Sequence[int], name: str) -> None:
    """Raise ValueError unless the boxes lie in the shape, apart from each other, and fill it."""
    for box in boxes:
        if len(box) != len(shape):
            raise ValueError(f"a piece of {name} has other axes than {tuple(shape)}")
        if any(not 0 <= at <= end <= whole for (at, end), whole in zip(box, shape, strict=True)):
            raise ValueError(f"a piece of {name} lies outside of its shape {tuple(shape)}")
    if sum(prod(end - at for at, end in box) for box in boxes) != prod(shape):
        raise ValueError(f"the pieces of {name} do not fill its shape {tuple(shape)}")
    if len(boxes) < 2 or not prod(shape):
        return
    starts = [len({box[axis][0] for box in boxes}) for axis in range(len(shape))]
    axis = max(range(len(shape)), key=starts.__getitem__)  # the one that tells most of them apart
    ordered = sorted((box for box in boxes if prod(end - at for at, end in box)), key=lambda box: box[axis])
    compared = 0
    for i, one in enumerate(ordered):
        for n in range(i + 1, len(ordered)):
            if ordered[n][axis][0] >= one[axis][1]:
                break  # those that follow begin even later
            compared += 1
            if all(a < d and c < b for (a, b), (c, d) in zip(one, ordered[n], strict=True)):
                raise ValueError(f"two pieces of {name} cross")
        if compared > MOST_COMPARED:
            raise ValueError(f"{name} is cut into {len(boxes)} pieces that lie side by side on every axis")
