"""What lies between two layers, told from the numbers alone: what the source does there, and what the target does."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.compare.pairs import Gap
from layoutx.verify.diagnose.ops import Op, activations, joins, ops
from layoutx.verify.forward.activations import activation

SAMPLES = 2
BUDGET = 3.0  # seconds for one side
UNKNOWN = "something that is not among the known ways"
CLOSE = 1e-6  # of the largest value; float32 models lose about 1e-7


@dataclass(frozen=True, slots=True)
class Way:
    """How one model makes what it hands on: an activation of the layer itself, what is joined, then operations."""

    act: str
    join: str
    ops: tuple[Op, ...]

    @property
    def words(self) -> str:
        """`relu, added, max pooling of 2 by stride 2`; "nothing"."""
        named = [op.name for op in self.ops if op.group != "nothing"]
        return ", ".join([*(part for part in (self.act, self.join) if part), *named]) or "nothing"


@dataclass(frozen=True, slots=True)
class Found:
    """What explains a gap.

    Attributes:
        mode: the failure mode, "" where the list has no number for it.
        what: in one sentence. code: the fix in the target's code.
        before, after: largest difference without and with the fix.
        tried: how many ways were tried; rivals: others that fit as well; families: the kinds of operations tried.
    """

    gap: Gap
    what: str
    mode: str = ""
    code: str = ""
    before: float = float("nan")
    after: float = float("nan")
    tried: int = 0
    rivals: tuple[str, ...] = ()
    families: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether it is explained; not all that is can be repaired by an operation."""
        return self.after == self.after or bool(self.mode)


def missing(found: Found, lost: Collection[str]) -> Found:
    """The same where the source has a layer there that has no counterpart."""
    names = [name for name in lost if any(name in part.replace("/", " ").split() for part in found.gap.passed)]
    if not names or found.after == found.after:
        return found
    what = f"{_place(found.gap)} the source has {', '.join(names)}, which the target lacks"
    return replace(found, what=what, mode="F14")


def between(gap: Gap) -> Found:
    """Explain a gap; `what` starts with "none of these" where nothing that is known fits."""
    return replace(_between(gap), families=_groups(gap))


def _groups(gap: Gap) -> tuple[str, ...]:
    """The kinds of operations that can make what is handed on."""
    arrays = [*(array for *_, array in _starts(gap, True)), gap.given]
    names = [op.group for array in arrays for op in ops(array, gap.expected.shape)]
    return tuple(name for name in dict.fromkeys(names) if name != "nothing")


def _between(gap: Gap) -> Found:
    here, many = ways(list(_starts(gap, True)), gap.expected, gap.act)
    there, more = ways(list(_starts(gap, False)), gap.given)
    same = bool(here and there) and here[0].words == there[0].words
    if here and there and not same:
        return _told(gap, here, there, many + more)
    direct, few = _direct(gap)
    tried = many + more + few
    if direct:
        return _lacking(gap, direct, tried)
    if here and not same:
        return _told(gap, here, there, tried)
    what = f"none of these: nothing that is known makes what the source hands on {_place(gap)}"
    if there:
        what += f" (the target does: {there[0].words})"
    return Found(gap, what, before=gap.found.largest, tried=tried)


def by_chance(found: Found) -> Found:
    """The same where the target's outputs change from run to run, which no operation does that was tried."""
    if UNKNOWN not in found.what and found.after == found.after:
        return found
    what = f"{_place(found.gap)} the target does something that changes from run to run"
    return replace(found, what=what, mode="F10", code="F.dropout(x, p, training=self.training)")


def _lacking(gap: Gap, direct: Sequence[Op], tried: int) -> Found:
    """One operation makes what the source hands on of what the target does."""
    op, rest = direct[0], tuple(other.name for other in direct[1:])
    why = {
        "scale": f"{_place(gap)} the source's numbers are the target's times {op.name}",
        "move": f"{_place(gap)} the border of zeros lies elsewhere: the target's map has to be {op.name}",
    }.get(op.group, f"{_place(gap)}: {op.name} is missing in the target, or is done once too often")
    after = _far(op.apply(np.asarray(gap.given, np.float64)), gap.expected)
    return Found(gap, why, op.mode, op.code, gap.found.largest, after, tried, rest)


def _told(gap: Gap, here: Sequence[Way], there: Sequence[Way], tried: int) -> Found:
    right, wrong = here[0], there[0] if there else None
    does = wrong.words if wrong is not None else UNKNOWN
    what = f"{_place(gap)} the source does: {right.words}; the target does: {does}"
    right_ops, wrong_ops = (_all(way) for way in (right, wrong))
    odd = [op for op in right_ops if op.name not in {o.name for o in wrong_ops}]
    extra = [op for op in wrong_ops if op.name not in {o.name for o in right_ops}]
    states = wrong is not None and right.join != wrong.join and "state" in right.join + wrong.join
    modes = [op.mode for op in (*odd, *extra) if op.mode]
    code = "; ".join(op.code for op in odd if op.code)
    if not odd and extra:
        code = f"leave out {', '.join(op.name for op in extra)}"
    mode = modes[0] if modes else "F18" if states else ""
    return Found(gap, what, mode, code, gap.found.largest, _after(gap, right), tried, _rivals(here))


def _all(way: Way | None) -> list[Op]:
    """Every operation of a way, the layer's own activation first."""
    if way is None:
        return []
    own = [op for op in activations() if op.name == way.act]
    return [*own, *(op for op in way.ops if op.group != "nothing")]


def _rivals(here: Sequence[Way]) -> tuple[str, ...]:
    return tuple(way.words for way in here[1:4])


def _after(gap: Gap, way: Way) -> float:
    """What is left of the difference where the target does what the source does."""
    function = activation(way.act) if way.act else None
    for name, words, array in _starts(gap, False):
        if words == way.join:
            array = function(array) if function is not None and name == "y" else array
            for op in way.ops:
                array = op.apply(np.asarray(array, np.float64))
            return _far(array, gap.expected)
    return float("nan")


def _place(gap: Gap) -> str:
    return f"between {', '.join(gap.before) or 'the inputs'} and {gap.after or 'the outputs'}"


def _starts(gap: Gap, source: bool) -> Iterator[tuple[str, str, Array]]:
    """What a model can go on with: (name, how it is joined, array); states of both directions side by side too."""
    gave = gap.gave if source else gap.there_gave
    if not gave:
        arrays = gap.left if source else gap.right
        yield from (("y", words, array) for words, array in (joins(arrays) if arrays else ()))
        return
    for name, array in gave.items():
        if name not in ("h", "c") or array.ndim != 3:
            yield name, "", array
            continue
        said = "the last state" if name == "h" else "the last cell state"
        if len(array) == 1:
            yield name, said, array[0]
        else:
            yield name, f"{said}s, forward then backward", np.concatenate([array[0], array[1]], -1)
            yield name, f"{said}s, backward then forward", np.concatenate([array[1], array[0]], -1)
            for i, way in enumerate(("forward", "backward")):
                yield name, f"{said} of the {way} direction", array[i]


def ways(starts: Sequence[tuple[str, str, Array]], goal: Array, act: str = "") -> tuple[list[Way], int]:
    """Every way of one operation that makes `goal` of what the layers before gave, else of two; how many were tried.

    act: the activation that is in what is called y already.
    """
    square = any(a.ndim > 2 and a.shape[0] == a.shape[1] for *_, a in starts)  # a part cannot be turned over the batch
    many = len(goal) if square else SAMPLES
    wanted = np.asarray(goal[:many], np.float64)
    few = [(n, w, np.asarray(a[:many], np.float64)) for n, w, a in starts if a.shape[:1] == goal.shape[:1]]
    end = time.monotonic() + BUDGET
    found: list[Way] = []
    tried = 0
    for steps in (_one, _two):
        for name, join, array in few:
            for way in steps(array, wanted.shape):
                tried += 1
                if time.monotonic() > end:
                    return found, tried
                if _makes(array, way, wanted):
                    found.append(Way(act if name == "y" else "", join, way))
                    if all(op.group == "nothing" for op in way):
                        return found, tried
        if found:
            return found, tried
    return found, tried


def _one(x: Array, goal: tuple[int, ...]) -> Iterator[tuple[Op, ...]]:
    yield from ((op,) for op in ops(x, goal))


def _two(x: Array, goal: tuple[int, ...]) -> Iterator[tuple[Op, ...]]:
    """An activation and then what changes the shape, or the other way round; two that keep it; pooling and a border."""
    functions = [op for op in ops(x, x.shape) if op.group != "nothing"]
    others = [op for op in ops(x, goal) if op.group not in ("nothing",)]
    for first in functions:
        for second in others:
            if first.group != second.group:
                yield first, second
    if x.shape != goal:
        last = [op for op in ops(np.zeros(goal), goal) if op.group == "activation"]
        yield from ((second, first) for second in others for first in last)
        yield from _framed(x, goal)


def _framed(x: Array, goal: tuple[int, ...]) -> Iterator[tuple[Op, ...]]:
    """A pooling, and a border of at most two zeros around what it gives."""
    if x.ndim < 3 or len(goal) != x.ndim or goal[-1] != x.shape[-1]:
        return
    for less in product(range(3), repeat=x.ndim - 2):
        middle = (goal[0], *(n - m for n, m in zip(goal[1:-1], less, strict=True)), goal[-1])
        if any(less) and all(n > 0 for n in middle):
            edges = [op for op in ops(np.zeros(middle), goal) if op.group == "border"]
            yield from ((pool, edge) for pool in ops(x, middle) if pool.group == "pooling" for edge in edges)


def _makes(x: Array, way: Sequence[Op], goal: Array) -> bool:
    try:
        with np.errstate(all="ignore"):
            for op in way:
                x = op.apply(x)
    except (ValueError, IndexError):
        return False
    return x.shape == goal.shape and _far(x, goal) <= CLOSE * max(float(np.abs(goal).max(initial=0.0)), 1e-26)


def _direct(gap: Gap) -> tuple[list[Op], int]:
    """What has to be done to the target's numbers: one operation that keeps the shape, or another scale."""
    given, expected = np.asarray(gap.given, np.float64), np.asarray(gap.expected, np.float64)
    if given.shape != expected.shape or not np.isfinite(expected).all():
        return [], 0
    all_ = [op for op in ops(given, expected.shape) if op.group != "nothing"]
    found = [op for op in all_ if _makes(given, (op,), expected)]
    scaled = _affine(given, expected)
    return ([*found, *([scaled] if scaled is not None and not found else [])], len(all_) + 1)


def _affine(given: Array, expected: Array) -> Op | None:
    """The scale and shift of every channel that make one the other: a preprocessing of the inputs (F34)."""
    channels = given.shape[-1] if given.ndim > 1 else 1
    x, y = given.reshape(-1, channels), expected.reshape(-1, channels)
    if x.shape[0] < 3 or not np.isfinite(x).all():
        return None
    middle = x - x.mean(0)
    power = (middle**2).sum(0)
    if not (power > 0).all():
        return None
    scale = (middle * (y - y.mean(0))).sum(0) / power
    shift = y.mean(0) - scale * x.mean(0)
    if np.abs(x * scale + shift - y).max() > CLOSE * max(float(np.abs(y).max()), 1e-26):
        return None
    if np.allclose(scale, scale[0], rtol=1e-6) and np.allclose(shift, shift[0], rtol=1e-6, atol=1e-6 * np.abs(y).max()):
        scale, shift = scale[:1], shift[:1]
    numbers = [", ".join(f"{v:.6g}" for v in values[:4]) for values in (scale, shift)]
    small = bool(np.all(np.abs(shift) <= CLOSE * np.abs(y).max()))
    words = f"a factor of {numbers[0]}" if small else f"a factor of {numbers[0]} and a shift of {numbers[1]}"
    whole = (scale, np.zeros(1)) if small else (scale, shift)
    code = f"x = x * {numbers[0]}" + ("" if small else f" + {numbers[1]}")
    return Op(words, "scale", lambda a: a * whole[0] + whole[1], "F34", code)


def _far(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return float("inf")
    with np.errstate(all="ignore"):
        apart = np.abs(np.asarray(a, np.float64) - b)
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))
