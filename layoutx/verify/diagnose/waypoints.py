"""What lies between layers, one step at a time: what each run recorded there tells the first step that differs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.compare.pairs import Gap
from layoutx.verify.diagnose.between import UNKNOWN, Found
from layoutx.verify.diagnose.formula import formula, often
from layoutx.verify.diagnose.operation import Op
from layoutx.verify.diagnose.ways import CLOSE, Start, far, lined, spread, ways
from layoutx.verify.recording import Call
from layoutx.words import listed

MOST = 48  # arrays of one side
OWN = "gives itself"  # without the activation that the source's layer has
HERE = "that"  # the name of an array in question
MOST_EARLIER = 8  # arrays from further ahead
MOST_WRONG = 4  # places that may be the first that differs
BUDGET = 2.0  # seconds of computing for one gap


@frozen
class Meant:
    """What the source has at a place; after: what is left behind it of the difference, once the target has it too."""

    name: str
    array: Array
    after: float


@frozen
class Point:
    """An array that a run recorded, channels last; free: whether it may be wrong, since no paired layer gave it."""

    name: str
    array: Array
    free: bool


def first_wrong(gap: Gap, channels: tuple[bool, bool]) -> str:
    """The name of the first call in the target that gives what the source has nowhere; "" for none."""
    here, there = _points(gap.calls[0], gap.passed, channels[0]), _points(gap.calls[1], gap.there, channels[1])
    wrong = _split(here, there)[2]
    return wrong[0].name if wrong else ""


def stepwise(gap: Gap, channels: tuple[bool, bool]) -> Found | None:
    """The first step that differs; None where the runs show no such step.

    Args:
        channels: whether each framework keeps its channels first.
    """
    here, there = _points(gap.calls[0], gap.passed, channels[0]), _points(gap.calls[1], gap.there, channels[1])
    if not here or not there:
        return None
    gap = spread(gap, [*(point.array for point in (*here, *there)), *(one.here for one in gap.earlier)])
    right, own, wrong = _split(here, there)
    theirs = {f"what {right[t.name]} gives": t.array for t in there if t.name in right}
    theirs |= {f"what {t.name} {OWN}": t.array for t in own}
    theirs |= _read(gap.calls[1], gap.there, channels[1], theirs)
    theirs |= _earlier(gap, theirs, False)
    end = time.thread_time() + BUDGET
    for number, point in enumerate((*wrong[:MOST_WRONG], Point("", gap.given, True))):
        meant = _meant(gap, point, here) if time.thread_time() < end else None
        if meant is not None:
            for earlier in wrong[:number]:
                point, meant = _ahead(earlier, point, meant, here, theirs) or (point, meant)
            names = [s.name for s in here]
            before = here[: names.index(meant.name)] if meant.name in names else here
            mine = {f"what {s.name} gives": s.array for s in before if s.name in right.values() or not s.free}
            mine |= _read(gap.calls[0][: len(before)], gap.passed, channels[0], mine)
            mine |= _earlier(gap, mine, True)
            late = [] if any(not s.free and s.name not in right.values() for s in here) else own
            return _told(gap, point, meant, mine, theirs, [t.name for t in late])
    return None


def _split(here: Sequence[Point], there: Sequence[Point]) -> tuple[dict[str, str], list[Point], list[Point]]:
    """Of the target's points: those that the source has too, with its names; of paired layers; and what is wrong."""
    right = {t.name: s.name for t in there if (s := _same(t.array, here)) is not None}
    own = [t for t in there if t.name not in right and not t.free]
    return right, own, [t for t in there if t.name not in right and t.free and _same(t.array, own) is None]


def _ahead(
    earlier: Point, point: Point, meant: Meant, here: Sequence[Point], theirs: Mapping[str, Array]
) -> tuple[Point, Meant] | None:
    """An earlier wrong array of which the later one is made, as the source makes its own of a right one."""
    found, _ = formula(point.array, {**theirs, HERE: earlier.array}, using=HERE)
    if found is None:
        return None
    size = 10 * CLOSE * _size(meant.array)
    for one in here:
        if one.array.shape == earlier.array.shape and one.name != meant.name:
            made = found.made({**theirs, HERE: one.array})
            if far(made, meant.array) <= size:
                return earlier, replace(meant, name=one.name, array=one.array)
    return None


def _points(calls: Sequence[Call], free: Sequence[str], first: bool) -> list[Point]:
    """What the calls gave; of layers without a counterpart, and of what holds others, it may be wrong."""
    names = [call.layer for call in calls]
    found: list[Point] = []
    for call in calls:
        if not call.layer or not call.outputs or call.outputs[0].dtype.kind != "f":
            continue
        array = np.moveaxis(call.outputs[0], 1, -1) if first and call.outputs[0].ndim > 3 else call.outputs[0]
        holds = any(name.startswith((f"{call.layer}.", f"{call.layer}/")) for name in names)
        found.append(Point(call.layer, array, holds or f"{call.layer} ({call.class_name})" in free))
    return found[-MOST:]


def _read(calls: Sequence[Call], free: Sequence[str], first: bool, known: Mapping[str, Array]) -> dict[str, Array]:
    """What paired layers were given there, where none of the known arrays is that: what goes round a layer as well."""
    found: dict[str, Array] = {}
    for call in calls:
        if f"{call.layer} ({call.class_name})" in free or not call.inputs or call.inputs[0].dtype.kind != "f":
            continue
        array = np.moveaxis(call.inputs[0], 1, -1) if first and call.inputs[0].ndim > 3 else call.inputs[0]
        held = [Point(name, one, False) for name, one in {**known, **found}.items()]
        if _same(array, held) is None:
            found[f"what {call.layer} is given"] = array
    return found


def _earlier(gap: Gap, known: Mapping[str, Array], source: bool) -> dict[str, Array]:
    """What layers further ahead were given and gave, the latest first, where no known array is that."""
    held = [Point(name, array, False) for name, array in known.items()]
    arrays = {one.words: lined(one.here if source else one.there, gap.expected) for one in gap.earlier[:MOST_EARLIER]}
    return {words: array for words, array in arrays.items() if words not in known and _same(array, held) is None}


def _meant(gap: Gap, point: Point, here: Sequence[Point]) -> Meant | None:
    """What stands in the source where the target has this: what then happens in the target makes the rest right."""
    if not point.name:
        return Meant(gap.after or "the outputs", gap.expected, 0.0)
    if point.array.shape[:1] != gap.given.shape[:1] or point.array.ndim < 2:
        return None
    alike = [s for s in here if s.array.shape == point.array.shape]
    if not alike:
        return None
    size = 10 * CLOSE * _size(gap.expected)
    for way in ways([Start("y", "", point.array)], gap.given, budget=BUDGET / 4)[0]:
        for one in alike:
            after = far(_through(one.array, way.ops), gap.expected)
            if after <= size:
                return Meant(one.name, one.array, after)
    return None


def _told(
    gap: Gap,
    point: Point,
    meant: Meant,
    mine: Mapping[str, Array],
    theirs: Mapping[str, Array],
    late: Sequence[str],
) -> Found:
    """What each model makes there of what is right in both; late: layers that the source calls behind the place."""
    (right, many), (wrong, more) = formula(meant.array, mine), formula(point.array, theirs)
    place = f"at {meant.name} ({point.name})" if point.name else gap.place
    does = right.words if right is not None else _recorded(gap, meant, mine) or _there(meant, theirs)
    before, tried = gap.found.largest, many + more
    if wrong is None or not does or does == wrong.words:
        what = f"{place} the source does: {does or UNKNOWN}; the target does: {wrong.words if wrong else UNKNOWN}"
        return Found(gap, f"none of these: {what}", before=before, tried=tried)
    what = f"{place} the source does: {does}; the target does: {wrong.words}"
    if right is None:
        return Found(
            gap, what, code=f"do there what the source does: {does}", before=before, after=meant.after, tried=tried
        )
    if early := [name for name in late if {wrong.left, wrong.right} == {f"what {name} {OWN}", f"what {name} is given"}]:
        what += f". {listed(early)} comes before {_behind(gap)} there, and behind it in the source"
        code = f"call {_behind(gap)} before {listed(early)} (a norm: norm_first), as the source does"
        return Found(gap, what, "", code, before, meant.after, tried)
    odd = [op for op in right.ops if op.name not in {o.name for o in wrong.ops}]
    extra = [op for op in wrong.ops if op.name not in {o.name for o in right.ops}]
    mode = next((op.mode for op in (*odd, *extra) if op.mode), "")
    code = f"do there what the source does: {does}"
    if right.join == wrong.join and extra and not odd and OWN not in wrong.words:
        code = f"leave out {', '.join(op.name for op in extra)}"
    elif len(odd) == 1 and right.join == wrong.join == "":
        code = odd[0].code
    return Found(gap, what, mode, code, before, meant.after, tried)


def _there(meant: Meant, theirs: Mapping[str, Array]) -> str:
    """The words of an array of the target that is what the source has; "" for none."""
    same = _same(meant.array, [Point(name, array, False) for name, array in theirs.items()])
    return f"{same.name} in the target" if same is not None else ""


def _behind(gap: Gap) -> str:
    """The target's layer behind a gap."""
    return gap.places[-1] if gap.after and gap.places else "the outputs"


def _recorded(gap: Gap, meant: Meant, mine: Mapping[str, Array]) -> str:
    """The source's own calls from what is right in both up to there, in words."""
    names = [call.layer for call in gap.calls[0]]
    if meant.name not in names:
        return ", ".join(gap.passed)
    last = max((names.index(n[5:-6]) for n in mine if n[5:-6] in names[: names.index(meant.name)]), default=-1)
    inside = {f"{call.layer} ({call.class_name})" for call in gap.calls[0][last + 1 : names.index(meant.name) + 1]}
    return ", ".join(step for step in gap.passed if step in inside)


def _through(array: Array, steps: Sequence[Op]) -> Array:
    found = np.asarray(array, np.float64)
    for op in steps:
        found = op.apply(found)
    return found


def _same(array: Array, points: Sequence[Point]) -> Point | None:
    size = 10 * CLOSE * _size(array)
    for point in points:
        once = often(array, point.array)
        if once is not None and once.shape == point.array.shape and far(point.array, once) <= size:
            return point
    return None


def _size(array: Array) -> float:
    return max(float(np.abs(array).max(initial=0.0)), 1e-26)
