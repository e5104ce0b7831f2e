"""What makes one array of others that are at hand: one operation, or two of them joined, an activation somewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.diagnose.operation import Op
from layoutx.verify.diagnose.ops import activations, ops
from layoutx.verify.diagnose.ways import CLOSE, SAMPLES, far

BUDGET = 1.0  # seconds of computing for one array, whatever else the machine does
JOINS: Mapping[str, Callable[[Array, Array], Array]] = {
    "added to": np.add,
    "times": np.multiply,
    "minus": np.subtract,
    "or, where that is larger,": np.maximum,
}
NOTHING = Op("nothing", "nothing", lambda a: a)


@frozen
class Formula:
    """How an array is made: `last(own(left) join other(right))`.

    Attributes:
        left, right: names of arrays; right: "" for one alone. join: a key of JOINS, "" for one alone.
        own, other, last: what is done to each, and to both together.
    """

    left: str
    own: Op = NOTHING
    join: str = ""
    right: str = ""
    other: Op = NOTHING
    last: Op = NOTHING

    @property
    def ops(self) -> tuple[Op, ...]:
        """All that is done, but for joining."""
        return tuple(op for op in (self.own, self.other, self.last) if op is not NOTHING)

    @property
    def words(self) -> str:
        """`relu of (what se gives added to what stem gives)`."""
        said = _of(self.own, self.left)
        if self.join:
            said = f"{said} {self.join} {_of(self.other, self.right)}"
        return _of(self.last, f"({said})" if self.join and self.last is not NOTHING else said)

    def made(self, arrays: Mapping[str, Array]) -> Array:
        """What it gives."""
        found = self.own.apply(np.asarray(arrays[self.left], np.float64))
        if self.join:
            second = self.other.apply(np.asarray(arrays[self.right], np.float64))
            found = JOINS[self.join](*_wide(found, second))
        return self.last.apply(found)


def formula(goal: Array, arrays: Mapping[str, Array], using: str = "") -> tuple[Formula | None, int]:
    """The simplest that makes `goal`, (batch, ..., channel), and how many were tried; None where none does in time.

    Args:
        using: the name of an array that it has to be made of, too; "" for any.
    """
    few = np.asarray(goal[:SAMPLES], np.float64)
    arrays = {name: once for name, a in arrays.items() if (once := often(a, goal)) is not None}
    at_hand = {name: np.asarray(a[:SAMPLES], np.float64) for name, a in arrays.items()}
    close = CLOSE * max(float(np.abs(goal).max(initial=0.0)), 1e-26)
    end = time.thread_time() + BUDGET
    tried = 0
    with np.errstate(all="ignore"):
        for one, array in _every(few, at_hand, using):
            tried += 1
            if array.shape == few.shape and far(array, few) <= close and _whole(one, goal, arrays, close):
                return one, tried
            if time.thread_time() > end:
                break
    return None, tried


def often(array: Array, goal: Array) -> Array | None:
    """An array for each sample; what is made once for all, a table of positions, as often; None for another batch."""
    if len(goal) != 1 and array.shape in (goal.shape[1:], (1, *goal.shape[1:])) and goal.ndim > 2:
        return np.broadcast_to(array, goal.shape)
    if array.ndim == goal.ndim == 2 and 1 < len(array) < len(goal) and len(goal) % len(array) == 0:
        return np.concatenate([array] * (len(goal) // len(array)))  # the steps of all samples in one axis
    return array if len(array) == len(goal) else None


def _whole(one: Formula, goal: Array, arrays: Mapping[str, Array], close: float) -> bool:
    return far(one.made(arrays), goal) <= close


def _every(goal: Array, arrays: Mapping[str, Array], using: str) -> Iterator[tuple[Formula, Array]]:
    """Formulas and what they give, the simple ones first."""
    for name, array in arrays.items():
        if using not in ("", name):
            continue
        for op in ops(array, goal.shape):
            own = NOTHING if op.group == "nothing" else op
            if (made := _done(op, array)) is not None:
                yield Formula(name, own), made
    acts = [NOTHING, *activations()]
    yield from _scaled(goal, arrays, using)
    changed = {(name, op.name): made for name, a in arrays.items() for op in acts if (made := _done(op, a)) is not None}
    for some, outer in ((acts[:1], False), (acts, False), (acts, True)):  # none, then of one of the two, then of both
        for name, other in _pairs(list(arrays)):
            if using not in ("", name, other):
                continue
            for join, function in JOINS.items():
                yield from _joined(name, other, join, function, some, changed, goal.shape, outer)


def _scaled(goal: Array, arrays: Mapping[str, Array], using: str) -> Iterator[tuple[Formula, Array]]:
    """A sum of two, one of them times a number: a table times the root of its width, a branch that is damped (F32)."""
    for name, other in _pairs([name for name, array in arrays.items() if array.shape == goal.shape]):
        left, right = arrays[name], arrays[other]
        power = float((left * left).sum())
        factor = float((left * (goal - right)).sum()) / power if power > 0 and using in ("", name, other) else 0.0
        if np.isfinite(factor) and min(abs(factor), abs(factor - 1.0)) > CLOSE:  # a plain sum has its own words
            factor = round(factor, 12)
            own = Op(_fold(factor), "scale", partial(np.multiply, factor), "F32", f"{factor:.6g} * x   # x: {name}")
            yield Formula(name, own, "added to", other), left * factor + right


def _fold(factor: float) -> str:
    """`the 3.4641-fold (the root of 12)`."""
    square = factor * factor
    root = factor > 1 and abs(square - round(square)) < 1e-6 * square and abs(factor - round(factor)) > 1e-6
    return f"the {factor:.6g}-fold" + (f" (the root of {round(square)})" if root else "")


def _joined(
    name: str,
    other: str,
    join: str,
    function: Callable[[Array, Array], Array],
    acts: Sequence[Op],
    changed: Mapping[tuple[str, str], Array],
    shape: tuple[int, ...],
    outer: bool,
) -> Iterator[tuple[Formula, Array]]:
    sides = [(op, NOTHING) for op in acts] + [(NOTHING, op) for op in acts[1:]]
    for own, second in sides[:1] if outer else sides:
        if (name, own.name) not in changed or (other, second.name) not in changed:
            continue
        left, right = _wide(changed[name, own.name], changed[other, second.name])
        try:
            made = np.asarray(function(left, right))
        except ValueError:
            return
        if made.shape != shape:
            return
        if not outer:
            yield Formula(name, own, join, other, second), made
            continue
        for last in acts[1:]:
            if (done := _done(last, made)) is not None:
                yield Formula(name, own, join, other, second, last), done


def _pairs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield from ((a, b) for i, a in enumerate(names) for b in names[i + 1 :])
    yield from ((b, a) for i, a in enumerate(names) for b in names[i + 1 :])


def _done(op: Op, array: Array) -> Array | None:
    if op is NOTHING:
        return array
    try:
        return np.asarray(op.apply(array))
    except (ValueError, IndexError):
        return None


def _wide(left: Array, right: Array) -> tuple[Array, Array]:
    """Both with as many axes: (batch, channel) stands for all places of a map."""
    if 2 == min(left.ndim, right.ndim) < max(left.ndim, right.ndim):
        more = (1,) * (max(left.ndim, right.ndim) - 2)
        left, right = (a.reshape(len(a), *more, -1) if a.ndim == 2 else a for a in (left, right))
    return left, right


def _of(op: Op, text: str) -> str:
    return text if op is NOTHING else f"{op.name} of {text}"
