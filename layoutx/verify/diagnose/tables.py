"""Layers that no run shows, or not as layers, tables above all: their numbers compared with what they should be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.plan.plan import Array
from layoutx.plan.run import run
from layoutx.verify.compare.apart import apart
from layoutx.verify.compare.limits import FAIL, LAYER, OPEN, UNREACHED
from layoutx.verify.compare.pairs import Check, Gap
from layoutx.verify.diagnose.between import Found
from layoutx.verify.diagnose.crossed import Owner
from layoutx.verify.diagnose.unlike import permutation
from layoutx.verify.diagnose.ways import CLOSE, far
from layoutx.words import listed

ALIKE = 0.3  # correlation above which numbers are a changed copy, not others
MOST_SHIFT = 8  # rows that padding and special tokens take in front of positions
OTHER = "holds other numbers than the source"


def unseen(checks: Sequence[Check], owners: Mapping[str, Owner]) -> Iterator[Found]:
    """What is wrong with the numbers of layers, one for each such tensor.

    Args:
        checks: of the layers that are looked at.
        owners: source layer -> its numbers, and what its counterpart holds.
    """
    for check in checks:
        owner = owners.get(check.layer) or owners.get(check.layer.rpartition(".")[0])  # without the direction
        if check.call or owner is None or owner.plan is None:
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


def known(found: Found, before: float, after: float) -> Found:
    """The same of numbers that were tried in the target's run; before, after: the outputs' difference without, with."""
    what = found.what.removeprefix("none of these: ")
    return replace(found, what=what, mode=found.mode or "F14", before=before, after=after)


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
    sure = bool(mode) or check.verdict != OPEN
    after = 0.0 if sure else float("nan")
    place = check.place or check.layer
    gap = Gap((check.layer,), "", (place, ""), apart(here, there), FAIL, "", here, there)
    what = f"layer {check.layer}: {f'{name} of {place}' if name else place} {said}"
    what += ", which no input of this run reaches" if check.verdict == UNREACHED else ""
    option = f"layoutx port SOURCE TARGET --only {check.layer}"
    told = what if sure else f"none of these: {what}"
    return Found(gap, told, mode, "", before, after, 1, option=option, layer=check.layer)


def _how(held: Array, goal: Array) -> tuple[str, str]:
    """In words, and the failure mode; "" for none that is known."""
    lines = [n for n in goal.shape if n > 1] or [1]
    table, right = (a.reshape(lines) for a in (held, goal))
    at, what, many = _wrong(table, right)
    if 2 * len(at) > many:
        return _whole(table, right)
    axis = table.ndim - 1 if what == "columns" else 0
    said, mode = _some(*(np.take(a, at, axis) for a in (table, right)))
    return f"{said} in {len(at):,} of {many:,} {what} ({listed([str(int(one)) for one in at])})", mode


def _wrong(table: Array, right: Array) -> tuple[Array, str, int]:
    """The rows or columns that hold other numbers, whichever are fewer: which, what they are, of how many."""
    wrong = np.abs(table - right) > CLOSE * float(np.abs(right).max())
    found = []
    for axis, what in {table.ndim - 1: "columns", 0: "rows" if table.ndim > 1 else "places"}.items():
        rest = tuple(other for other in range(table.ndim) if other != axis)
        found.append((np.flatnonzero(wrong.any(axis=rest)), what, table.shape[axis]))
    return min(found, key=lambda one: len(one[0]) / one[2])


def _some(held: Array, goal: Array) -> tuple[str, str]:
    """What stands where the numbers are wrong, of a tensor that is right but there."""
    if not np.ptp(held) and held.flat[0] in (0.0, 1.0):
        return f"is {held.flat[0] + 0.0:g} everywhere", "F13"
    if far(held, -goal) == 0.0:
        return "holds the source's numbers negated", ""
    order = permutation(held, goal, 0)
    return (f"holds the source's rows {_order(order)}", "F38") if order is not None else (OTHER, "")


def _whole(held: Array, goal: Array) -> tuple[str, str]:
    """What the numbers are, of a tensor that is wrong in most places."""
    if not np.ptp(held):
        return f"is {held.flat[0] + 0.0:g} everywhere, as before training: it was not loaded", "F13"
    if held.ndim > 1 and far(held, goal.T.reshape(held.shape)) == 0.0:
        return "holds the source's numbers transposed", "F2"
    for axis, what in ((0, "rows"), (held.ndim - 1, "columns")):
        order = permutation(held, goal, axis)
        if order is not None:
            return f"holds the source's {what} {_order(order)}", "F38"
    for by in range(1, min(MOST_SHIFT, len(held) // 2) + 1):
        for way, here, there in (("early", held[:-by], goal[by:]), ("late", held[by:], goal[:-by])):
            if np.ptp(here) and far(here, there) == 0.0:
                return f"holds the source's rows {by} too {way}", "F37"
    if np.array_equal(np.sort(held, axis=None), np.sort(goal, axis=None)):
        return "holds the source's numbers in another order", "F1"
    like = abs(float(np.corrcoef(held.ravel(), goal.ravel())[0, 1])) if np.ptp(goal) else 0.0
    if not like > max(ALIKE, 3 / held.size**0.5):  # of few numbers chance makes some alike
        return f"{OTHER}: it was not loaded", "F13"
    return OTHER, ""


def _order(order: Array) -> str:
    by = np.unique((order - np.arange(len(order))) % len(order))
    if len(by) == 1:
        return f"moved on by {int(by[0])}"
    return "reversed" if (np.diff(order) == -1).all() else "in another order"
