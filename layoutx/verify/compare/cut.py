"""Convolutions that pad both ends where the model takes one away again (a TCN's Chomp1d): compared as they are cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.compare.apart import apart
from layoutx.verify.compare.calls import position
from layoutx.verify.compare.fed import first_calls
from layoutx.verify.compare.limits import FLOW, coarsest
from layoutx.verify.compare.links import Runs
from layoutx.verify.compare.pairs import Couple
from layoutx.verify.compare.stacks import title
from layoutx.verify.recording import Recording

CONVOLUTIONS = ("conv", "separable_conv")


def cut_outside(couples: Sequence[Couple], runs: Runs) -> list[Couple]:
    """The pairs, those marked as `cropped` whose larger map their own model cuts to the other's size."""
    if runs.target is None:
        return list(couples)
    return [replace(cast(Any, one), cropped=True) if _is_cut(one, couples, runs) else one for one in couples]


def _is_cut(couple: Couple, couples: Sequence[Couple], runs: Runs) -> bool:
    """Whether what reads the larger map, in the run of its own model, is given one of the smaller one's size."""
    assert runs.target is not None
    if couple.source.bound.kind.name not in CONVOLUTIONS:
        return False
    both = first_calls(couple, runs)
    maps = [side.outputs["y"] for side in both or () if "y" in side.outputs]
    if len(maps) < 2 or maps[0].ndim != maps[1].ndim:
        return False
    here, there = maps[0].shape, maps[1].shape
    if here == there or not (all(map(int.__le__, here, there)) or all(map(int.__ge__, here, there))):
        return False
    at = int(here > there)  # 0: the target's is the larger
    small, run, side = maps[at], (runs.target, runs.source)[at], (couple.target, couple.source)[at]
    readers = _readers(couple, couples, runs)
    given = [pair for reader in readers if (pair := first_calls(reader, runs)) is not None]
    for left, right in given:
        x, y = left.inputs.get("x"), right.inputs.get("x")
        if x is None or y is None:
            continue
        if x.shape == y.shape and (_size(x) == _size(small) or _same(x, y, runs)):
            return True
    start = position(side, run, 0)
    ends = [position((reader.target, reader.source)[at], run, 0) for reader in readers]
    return any(_size(array) == _size(small) for array in _loose(run, start, min(ends, default=len(run.calls)), couples))


def _readers(couple: Couple, couples: Sequence[Couple], runs: Runs) -> list[Couple]:
    """The pairs that are given what this one gives: by wiring, else the one that the source calls next."""
    name = title(couple.source)
    found = [one for one in couples if name in runs.before.get(title(one.source), ())]
    if found or name in runs.before:
        return found
    own = position(couple.source, runs.source, 0)
    later = [(at, number) for number, one in enumerate(couples) if (at := position(one.source, runs.source, 0)) > own]
    return [couples[min(later)[1]]] if later else []


def _loose(run: Recording, start: int, end: int, couples: Sequence[Couple]) -> Iterator[Array]:
    """What modules without weights take and give between two places of a run."""
    paired = {half.name for couple in couples for half in (couple.source, couple.target)}
    for call in run.calls[start + 1 : end]:
        if call.layer not in paired:
            yield from (*call.inputs, *call.outputs)


def _size(array: Array) -> tuple[int, ...]:
    """The lengths of a map's axes, whatever their order."""
    return tuple(sorted(array.shape))


def _same(x: Array, y: Array, runs: Runs) -> bool:
    found = apart(x.astype(np.float64), y.astype(np.float64))
    return not found.odd and not found.unlike and found.relative <= FLOW[coarsest((x, y), runs.dtypes)]
