"""Layers laid side by side, each after something of its own: a skip connection beside a map that is enlarged first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from itertools import permutations

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.compare.pairs import Gap
from layoutx.verify.diagnose.operation import Op
from layoutx.verify.diagnose.ways import BESIDE, BUDGET, SAMPLES, Way, makes, steps_to

MOST = 4  # layers
EARLIER = 6  # arrays from further ahead


def beside(gap: Gap, source: bool, budget: float = BUDGET) -> tuple[list[Way], int]:
    """The way in which each array makes its own channels of what is handed on, and how many were tried."""
    goal = gap.expected if source else gap.given
    end = time.thread_time() + budget
    tried = 0
    for names in _sets(gap):
        arrays = _arrays(names, gap, source)
        channels = [array.shape[-1] for array in arrays if array.ndim == goal.ndim]
        if goal.ndim > 1 and len(channels) == len(names) and sum(channels) == goal.shape[-1]:
            found, many = _laid_out(names, arrays, goal, end)
            tried += many
            if found is not None or time.thread_time() > end:
                return [found] if found is not None else [], tried
    return [], tried


def _sets(gap: Gap) -> list[tuple[str, ...]]:
    """What may lie side by side: the layers before, or the one before and something from further ahead."""
    if len(gap.before) != 1:
        return [gap.before] if 2 <= len(gap.before) == len(gap.left) == len(gap.right) <= MOST else []
    own = gap.before[0]
    return [(own, one.words) for one in gap.earlier[:EARLIER] if one.words != f"what {own} gives"] if gap.left else []


def _arrays(names: Sequence[str], gap: Gap, source: bool) -> list[Array]:
    near = dict(zip(gap.before, gap.left if source else gap.right, strict=False))
    far = {one.words: one.here if source else one.there for one in gap.earlier}
    return [near[name] if name in near else far[name] for name in names]


def _laid_out(names: Sequence[str], arrays: Sequence[Array], goal: Array, end: float) -> tuple[Way | None, int]:
    """Every order of the arrays; None where no operations make the parts of the goal in time."""
    tried = 0
    known: dict[tuple[int, int], tuple[Op, ...] | None] = {}
    for order in permutations(range(len(arrays))):
        found: list[tuple[Op, ...]] = []
        at = 0
        for i in order:
            to = at + arrays[i].shape[-1]
            if (i, at) not in known:
                part = np.asarray(goal[:SAMPLES, ..., at:to], np.float64)
                known[i, at], many = _made(np.asarray(arrays[i][:SAMPLES], np.float64), part, end)
                tried += many
            steps = known[i, at]
            if steps is None:
                break
            found.append(steps)
            at = to
        if len(found) == len(arrays):
            return _way(names, order, found), tried
    return None, tried


def _made(array: Array, part: Array, end: float) -> tuple[tuple[Op, ...] | None, int]:
    """What makes one layer's channels of its output; None where nothing does in time."""
    tried = 0
    for steps in steps_to(array, part.shape):
        tried += 1
        if makes(array, steps, part):
            return tuple(op for op in steps if op.group != "nothing"), tried
        if time.thread_time() > end:
            break
    return None, tried


def _way(names: Sequence[str], order: Sequence[int], found: Sequence[tuple[Op, ...]]) -> Way:
    said = [
        f"({', '.join(op.name for op in steps)} of {names[i]})" if steps else names[i]
        for i, steps in zip(order, found, strict=True)
    ]
    inner = tuple(op for steps in found for op in steps)
    make = partial(_laid, tuple(names[i] for i in order), tuple(found))
    return Way("", f"{', '.join(said)} {BESIDE}", (), inner=inner, make=make)


def _laid(names: Sequence[str], found: Sequence[tuple[Op, ...]], gap: Gap, source: bool) -> Array:
    parts = []
    for array, steps in zip(_arrays(names, gap, source), found, strict=True):
        made = np.asarray(array, np.float64)
        for op in steps:
            made = op.apply(made)
        parts.append(made)
    return np.concatenate(parts, -1)
