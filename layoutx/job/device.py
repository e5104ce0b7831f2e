"""Weights into a tensor on a device: the source's bytes go up as they lie, and are put in order there."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np

from layoutx.plan.plan import Array
from layoutx.plan.steps import Copy, Fill, Loop

_one = Lock()  # warnings are silenced for all threads


def place(value: Any, steps: Sequence[Copy | Fill], sources: Mapping[str, Array]) -> None:
    """Carry out steps into a torch tensor, on the device where it lies; the CPU transposes nothing.

    Args:
        value: of the sources' dtype.
        steps: with the strides of the tensor's own memory; none negates.
        sources: the steps' source names -> flat arrays, as the source's memory has them.
    """
    import torch

    carrier = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(value.element_size())
    with torch.no_grad():
        target = value.detach()
        raw = target if carrier is None else target.view(carrier)
        up: dict[str, Any] = {}
        for step in steps:
            if isinstance(step, Fill):
                _strided(target, step.target_offset, [(x.size, x.target) for x in step.loops]).fill_(step.value)
                continue
            if step.source not in up:
                up[step.source] = _uploaded(torch, sources[step.source], carrier, raw.device)
            loops, to, of = _upward(step)
            there = _strided(raw, to, [(x.size, x.target) for x in loops])
            flipped = [at for at, x in enumerate(loops) if x.source < 0]
            low = of + sum((loops[at].size - 1) * loops[at].source for at in flipped)
            here = _strided(up[step.source], low, [(x.size, abs(x.source)) for x in loops])
            there.copy_(here.flip(flipped) if flipped else here)


def _uploaded(torch: Any, flat: Array, carrier: Any, device: Any) -> Any:
    """A flat array on the device, as raw bits."""
    width = flat.dtype.itemsize
    bits = flat if carrier is None else flat.view(np.dtype(f"i{width}"))
    with _one, warnings.catch_warnings():  # torch warns of memory that may not be written: nothing writes to it
        warnings.simplefilter("ignore")
        return torch.from_numpy(bits).to(device)


def _upward(step: Copy) -> tuple[list[Loop], int, int]:
    """The loops with no negative step in the target, and where both sides begin then."""
    to, of, loops = step.target_offset, step.source_offset, []
    for x in step.loops:
        if x.target < 0:
            to += (x.size - 1) * x.target
            of += (x.size - 1) * x.source
            x = Loop(x.axis, x.size, -x.target, -x.source)
        loops.append(x)
    return loops, to, of


def _strided(value: Any, offset: int, loops: Sequence[tuple[int, int]]) -> Any:
    """A view of a tensor's memory; torch itself checks that it lies inside."""
    sizes, strides = [size for size, _ in loops], [step for _, step in loops]
    return value.as_strided(sizes, strides, value.storage_offset() + offset)
