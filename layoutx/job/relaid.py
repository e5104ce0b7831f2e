"""A plan's steps for a tensor whose memory does not lie row by row: the same moves, with the strides that it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from layoutx.plan.steps import Copy, Fill, Loop

Part = tuple[int, int, int]  # which dimension, how many turns, how far each


def relaid(step: Copy | Fill, shape: Sequence[int], strides: Sequence[int]) -> Copy | Fill | None:
    """A step into row-major elements of `shape` as one into memory with these strides.

    Args:
        shape: of the target; strides: of its memory, in elements, from its first element.

    Returns:
        None where one loop runs over several dimensions and cannot be parted.
    """
    pitch = _row_major(shape)
    ends = []
    for at, size in enumerate(shape):
        coordinate = step.target_offset // pitch[at] % size if size else 0
        ends.append([coordinate, coordinate])
    loops: list[Loop] = []
    offset = sum(low * stride for (low, _), stride in zip(ends, strides, strict=True))
    for loop in step.loops:
        parts = _parted(loop, shape, pitch)
        if parts is None:
            return None
        turns, own = 1, []
        for at, many, far in parts:
            ends[at][far > 0] += (many - 1) * far
            own.append(Loop(loop.axis, many, far * strides[at], loop.source * turns))
            turns *= many
        loops += reversed(own)
    inside = all(low >= 0 and high < size for (low, high), size in zip(ends, shape, strict=True))
    return replace(step, target_offset=offset, loops=tuple(loops)) if inside else None


def _row_major(shape: Sequence[int]) -> list[int]:
    """How many elements lie between neighbours along each dimension."""
    pitch, far = [], 1
    for size in reversed(shape):
        pitch.append(far)
        far *= size
    return pitch[::-1]


def _parted(loop: Loop, shape: Sequence[int], pitch: Sequence[int]) -> list[Part] | None:
    """One loop as loops within single dimensions, the innermost first; None where it crosses a border unevenly."""
    many, far, sign = loop.size, abs(loop.target), 1 if loop.target >= 0 else -1
    found: list[Part] = []
    while many > 1:
        own = [at for at, size in enumerate(shape) if size > 1 and pitch[at] <= far < pitch[at] * size]
        if not own or far % pitch[own[0]]:
            return None
        at = own[0]
        far //= pitch[at]
        if (many - 1) * far < shape[at]:
            return [*found, (at, many, sign * far)]
        room, rest = divmod(shape[at], far)
        if rest or many % room:
            return None
        found.append((at, room, sign * far))
        many, far = many // room, pitch[at] * shape[at]
    return found
