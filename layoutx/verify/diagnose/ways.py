"""How one model makes what it hands on: every known operation tried on what the layers before gave."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from math import prod

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.compare.pairs import Gap, Handed
from layoutx.verify.diagnose.operation import Op
from layoutx.verify.diagnose.ops import joins, ops
from layoutx.verify.forward.activations import activation

SAMPLES = 2
WHOLE = 4096  # numbers of which all samples are looked at
BUDGET = 3.0  # seconds of computing for one side
# how joins and connections that skip layers are told
ONLY, PLUS, BESIDE = "only that of ", "plus ", "side by side"
CLOSE = 1e-6  # of the largest value; float32 models lose about 1e-7


@frozen
class Start:
    """What a model can go on with.

    Attributes:
        name: of the output, "y"; join: how several are one, "added"; "" where there is one.
        array: the output itself, or what is joined.
        skip: what comes from further ahead, "plus what attn is given"; mix: adds it, or lays it beside.
    """

    name: str
    join: str
    array: Array
    skip: str = ""
    mix: Callable[[Array], Array] | None = None

    def whole(self, act: str = "") -> Array:
        """With what comes from further ahead; act: an activation of the layer itself that comes before."""
        own = np.asarray(self.array, np.float64)
        own = activation(act)(own) if act and self.name == "y" else own
        return self.mix(own) if self.mix is not None else own


@frozen
class Way:
    """How one model makes what it hands on: an activation of the layer itself, what is joined, then operations.

    `inner`: operations on what is joined, each on its own, which `join` tells; `make` carries them out.
    """

    act: str
    join: str
    ops: tuple[Op, ...]
    skip: str = ""
    late: bool = False
    inner: tuple[Op, ...] = ()
    make: Callable[[Gap, bool], Array] | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Its steps in words; late: what skips layers comes after the operations, not before them."""
        named = [op.name for op in self.ops if op.group != "nothing"]
        joined = [self.act, self.join, *named, self.skip] if self.late else [self.act, self.join, self.skip, *named]
        return tuple(part for part in joined if part)

    @property
    def words(self) -> str:
        """`relu, added, max pooling of 2 by stride 2`; "nothing"."""
        return ", ".join(self.parts) or "nothing"


def starts(gap: Gap, source: bool) -> list[Start]:
    """What a model can go on with there, and then the same with what comes from further ahead."""
    goal = gap.expected if source else gap.given
    plain = [replace(start, array=lined(start.array, goal)) for start in _plain(gap, source)]
    return [*plain, *(start for handed in gap.earlier for start in _skipping(goal, handed, plain, source))]


def spread(gap: Gap, more: Sequence[Array] = ()) -> Gap:
    """The gap with batch and time as two axes again, where the layer behind it has them as one and those before do not.

    A dense layer has rows alone; what was done to the sequence before it needs both axes. more: arrays of the runs.
    """
    arrays = [array for array in (*gap.gave.values(), *gap.left, *more) if array.ndim > gap.expected.ndim > 1]
    like = next((a for a in arrays if prod(a.shape[:-1]) == len(gap.expected) != len(a)), None)
    if like is None or len(gap.given) != len(gap.expected) or gap.expected.ndim != 2 or gap.given.ndim != 2:
        return gap
    expected, given = (a.reshape(*like.shape[:-1], a.shape[-1]) for a in (gap.expected, gap.given))
    return replace(gap, expected=expected, given=given)


def lined(array: Array, goal: Array) -> Array:
    """An array with the axes before the features one with the batch as in another one: dense layers know no time."""
    more = array.ndim - goal.ndim
    if more == 0 and array.ndim == 2 and array.shape[1] == goal.shape[1] and len(goal) > 1 and len(array) > len(goal):
        return array.reshape(len(goal), -1, array.shape[1]) if len(array) % len(goal) == 0 else array  # time as rows
    if 0 < more < array.ndim and goal.ndim and prod(array.shape[: more + 1]) == goal.shape[0] != array.shape[0]:
        return array.reshape(-1, *array.shape[more + 1 :])
    if 0 < -more < goal.ndim and array.ndim and prod(goal.shape[: 1 - more]) == array.shape[0] != goal.shape[0]:
        return array.reshape(*goal.shape[: 1 - more], *array.shape[1:])
    return array


def _plain(gap: Gap, source: bool) -> Iterator[Start]:
    """Outputs of the layers right before; states of both directions side by side too."""
    gave = gap.gave if source else gap.there_gave
    if not gave:
        arrays = gap.left if source else gap.right
        yield from (Start("y", _names(gap, words), array) for words, array in (joins(arrays) if arrays else ()))
        return
    for name, array in gave.items():
        if name not in ("h", "c") or array.ndim != 3:
            yield Start(name, "", array)
            continue
        said = "the last state" if name == "h" else "the last cell state"
        if len(array) == 1:
            yield Start(name, said, array[0])
        else:
            yield Start(name, f"{said}s, forward then backward", np.concatenate([array[0], array[1]], -1))
            yield Start(name, f"{said}s, backward then forward", np.concatenate([array[1], array[0]], -1))
            for i, way in enumerate(("forward", "backward")):
                yield Start(name, f"{said} of the {way} direction", array[i])


def _names(gap: Gap, words: str) -> str:
    """`only that of layer 1` with the layer's name; `side by side in the order (1, 0)` with the names in that order."""
    if words.startswith(BESIDE) and len(gap.before) == len(gap.left):
        order = [int(digit) for digit in re.findall(r"\d+", words)] or range(len(gap.left))
        return f"{', '.join(gap.before[at] for at in order)} {BESIDE}"
    start, _, number = words.rpartition("layer ")
    many = len(gap.left)
    return f"{ONLY}{gap.before[int(number)]}" if start == ONLY and number and many == len(gap.before) else words


def _skipping(goal: Array, handed: Handed, plain: Sequence[Start], source: bool) -> Iterator[Start]:
    other = lined(np.asarray(handed.here if source else handed.there, np.float64), goal)
    for start in plain:
        single = start.join in ("", "added") or start.join.startswith(ONLY)
        if start.name not in ("y", "merged") or not single or start.array.ndim != other.ndim:
            continue
        if start.array.shape == other.shape and not np.array_equal(start.array, other):
            yield Start(start.name, start.join, start.array, f"{PLUS}{handed.words}", partial(np.add, other))
        wide = start.array.shape[-1] + other.shape[-1]
        if start.array.shape[:-1] == other.shape[:-1] and wide == goal.shape[-1]:
            for words, mix in (("after", partial(_beside, other, False)), ("before", partial(_beside, other, True))):
                yield Start(start.name, start.join, start.array, f"side by side {words} {handed.words}", mix)


def _beside(other: Array, last: bool, own: Array) -> Array:
    return np.concatenate([own, other] if last else [other, own], -1)


def made(gap: Gap, way: Way, source: bool) -> Array | None:
    """What a way gives of one model's own numbers; None where they do not allow it."""
    if way.make is not None:
        try:
            return way.make(gap, source)
        except (ValueError, IndexError):
            return None
    for start in starts(gap, source):
        if (start.join, start.skip) == (way.join, way.skip):
            steps, act = way.ops, way.act if source == bool(gap.there_act) else ""
            if gap.there_act and not source and start.name == "y" and way.act != gap.there_act:
                if not steps or steps[0].name != gap.there_act:
                    return None  # it is in these numbers, and nothing takes it out
                steps = steps[1:]
            try:
                array = replace(start, mix=None).whole(act) if way.late else start.whole(act)
                for op in steps:
                    array = op.apply(array)
                return start.mix(array) if way.late and start.mix is not None else array
            except (LayoutxError, ValueError, IndexError):  # an activation of the user's own has no function here
                return None
    return None


def ways(given: Sequence[Start], goal: Array, act: str = "", budget: float = BUDGET) -> tuple[list[Way], int]:
    """Every way of one operation that makes `goal` of what the layers before gave, else of two; how many were tried.

    act: the activation that is in what is called y already.
    """
    square = any(s.array.ndim > 2 and s.array.shape[0] == s.array.shape[1] for s in given)  # a part cannot be turned
    many = len(goal) if square or goal.size <= WHOLE else SAMPLES
    wanted = np.asarray(goal[:many], np.float64)
    few = [(s, s.whole()[:many]) for s in given if s.array.shape[:1] == goal.shape[:1]]
    end = time.thread_time() + budget
    found: list[Way] = []
    tried = 0
    for steps in (_one, _two):
        for start, array in few:
            for way in steps(array, wanted.shape):
                tried += 1
                if time.thread_time() > end:
                    return found, tried
                if makes(array, way, wanted):
                    found.append(Way(act if start.name == "y" else "", start.join, way, start.skip))
                    if all(op.group == "nothing" for op in way):
                        return found, tried
        if found:
            return found, tried
        if steps is _one:
            found, more = _late(few, wanted, act)
            tried += more
            if found:
                return found, tried
    return found, tried


def _late(few: Sequence[tuple[Start, Array]], wanted: Array, act: str) -> tuple[list[Way], int]:
    """One operation on a layer's own output, before what skips it is added."""
    tried = 0
    for start, array in few:
        if start.mix is None or not start.skip.startswith(PLUS) or array.shape != wanted.shape:
            continue
        own = np.asarray(start.array[: len(wanted)], np.float64)
        goal = wanted - (array - own)
        for way in _one(own, wanted.shape):
            tried += 1
            if makes(own, way, goal):
                return [Way(act if start.name == "y" else "", start.join, way, start.skip, late=True)], tried
    return [], tried


def steps_to(x: Array, goal: tuple[int, ...]) -> Iterator[tuple[Op, ...]]:
    """One operation, then two, that may turn an array into one of this shape."""
    yield from _one(x, goal)
    yield from _two(x, goal)


def _one(x: Array, goal: tuple[int, ...]) -> Iterator[tuple[Op, ...]]:
    yield from ((op,) for op in ops(x, goal))


def _two(x: Array, goal: tuple[int, ...]) -> Iterator[tuple[Op, ...]]:
    """An activation and then what changes the shape, or the other way round; two that keep it; pooling and a border."""
    functions = [op for op in ops(x, x.shape) if op.group != "nothing"]
    others = [op for op in ops(x, goal) if op.group not in ("nothing",)]
    acts = [op for op in functions if op.group == "activation"]
    rest = [op for op in functions if op.group != "activation"]
    yield from ((first, second) for first in acts for second in others if first.group != second.group)
    if x.shape != goal:  # the likely ones first: many maps have more ways than there is time for
        last = [op for op in ops(np.zeros(goal), goal) if op.group == "activation"]
        yield from ((second, first) for second in others for first in last)
    yield from ((first, second) for first in rest for second in others if first.group != second.group)
    if x.shape != goal:
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


def makes(x: Array, way: Sequence[Op], goal: Array) -> bool:
    try:
        with np.errstate(all="ignore"):
            for op in way:
                x = op.apply(x)
    except (ValueError, IndexError):
        return False
    return x.shape == goal.shape and far(x, goal) <= CLOSE * max(float(np.abs(goal).max(initial=0.0)), 1e-26)


def far(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return float("inf")
    with np.errstate(all="ignore"):
        apart = np.abs(np.asarray(a, np.float64) - b)
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))
