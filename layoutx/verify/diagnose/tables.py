"""Layers that no run shows, a bare table of positions above all: their numbers compared with what they should be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.plan.plan import Array
from layoutx.plan.run import run
from layoutx.verify.compare.apart import apart
from layoutx.verify.compare.limits import FAIL, LAYER, OPEN
from layoutx.verify.compare.pairs import Check, Gap
from layoutx.verify.diagnose.between import Found
from layoutx.verify.diagnose.crossed import Owner
from layoutx.verify.diagnose.unlike import permutation
from layoutx.verify.diagnose.ways import far

ALIKE = 0.3  # correlation above which numbers are a changed copy, not others


def unseen(checks: Sequence[Check], owners: Mapping[str, Owner]) -> Iterator[Found]:
    """What is wrong with the numbers of layers that could not be compared by a run, one for each such tensor.

    Args:
        owners: source layer -> its numbers, and what its counterpart holds.
    """
    for check in checks:
        owner = owners.get(check.layer)
        if check.verdict != OPEN or owner is None or owner.plan is None:
            continue
        try:
            goal = run(owner.plan, {name: tensor.read() for name, tensor in owner.tensors.items()}).tensors
        except LayoutxError:
            continue
        for name, tensor in owner.held.items():
            if name in goal and (found := _told(check, name, tensor.read(), goal[name])) is not None:
                yield found


def explained(gaps: Sequence[Found], tables: Sequence[Found], order: Sequence[str]) -> tuple[Found, ...]:
    """The gaps, and in place of one that nothing explains the table with wrong numbers that lies in it.

    Args:
        order: the source's layers in the order of their calls.
    """
    at = {name: number for number, name in enumerate(order)}
    found: list[Found] = []
    for gap in gaps:
        start = max((at.get(name, -1) for name in gap.gap.before), default=-1)
        end = at.get(gap.gap.after, len(order))
        inside = [] if gap.known else [t for t in tables if start < at.get(t.gap.before[0], -1) < end]
        found += [t for t in inside if t not in found] or ([] if inside else [gap])
    return tuple(found)


def _told(check: Check, name: str, held: Array, goal: Array) -> Found | None:
    """What is wrong with one tensor; None where it is right but for rounding."""
    if held.shape != goal.shape or goal.dtype.kind in "iub" or not goal.size:
        return None
    here, there = np.asarray(goal, np.float64), np.asarray(held, np.float64)
    size = max(float(np.abs(here).max()), 1e-26)
    before = far(there, here)
    if before <= LAYER.get(str(held.dtype), 1e-5) * size + LAYER["float32"] * size:
        return None
    said, mode = _how(there, here)
    after = 0.0 if mode else float("nan")
    place = check.place or check.layer
    gap = Gap((check.layer,), "", (place, ""), apart(here, there), FAIL, "", here, there)
    what = f"layer {check.layer}: {f'{name} of {place}' if name else place} {said}"
    option = f"layoutx port SOURCE TARGET --only {check.layer}"
    return Found(gap, what if mode else f"none of these: {what}", mode, "", before, after, 1, option=option)


def _how(held: Array, goal: Array) -> tuple[str, str]:
    """In words, and the failure mode; "" for none that is known."""
    if not np.ptp(held):
        return f"is {held.flat[0]:g} everywhere, as before training: it was not loaded", "F13"
    lines = [n for n in goal.shape if n > 1]
    table, right = (a.reshape(lines) for a in (held, goal))
    if table.ndim > 1 and far(table, right.T.reshape(lines)) == 0.0:
        return "holds the source's numbers transposed", "F2"
    for axis, what in ((0, "rows"), (table.ndim - 1, "columns")):
        order = permutation(table, right, axis)
        if order is not None:
            return f"holds the source's {what} {_order(order)}", "F38"
    if np.array_equal(np.sort(held, axis=None), np.sort(goal, axis=None)):
        return "holds the source's numbers in another order", "F1"
    like = abs(float(np.corrcoef(held.ravel(), goal.ravel())[0, 1])) if np.ptp(goal) else 0.0
    if not like > max(ALIKE, 3 / len(goal.ravel()) ** 0.5):  # of few numbers chance makes some alike
        return "holds other numbers than the source: it was not loaded", "F13"
    return "holds other numbers than the source", ""


def _order(order: Array) -> str:
    by = np.unique((order - np.arange(len(order))) % len(order))
    if len(by) == 1:
        return f"moved on by {int(by[0])}"
    return "reversed" if (np.diff(order) == -1).all() else "in another order"
