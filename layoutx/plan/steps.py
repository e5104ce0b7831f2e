"""What a plan does, step by step, and how exact the result is."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from math import prod

from layoutx.frozen import frozen
from layoutx.spec.values import SAME, ValueMap


class Exactness(IntEnum):
    """From harmless to lossy. `CONDITIONAL` and `ROUNDS` need the user's consent."""

    MOVES = 0
    FILLS = 1
    CONDITIONAL = 2
    ROUNDS = 3

    def __str__(self) -> str:
        return self.name.lower()

    @property
    def meaning(self) -> str:
        """One clause for people."""
        return (
            "a permutation: bit-exact and reversible",
            "bit-exact and reversible; the target has numbers that the source need not store",
            "exact because the values happened to allow it",
            "computed from stored numbers, rounded once: not bit-reversible",
        )[self.value]


@frozen
class Loop:
    """One loop of a strided copy: the axes it runs over, its length, and its step on both sides in elements.

    A side that a step does not have (the source of a fill) has step 0.
    """

    axis: str
    size: int
    target: int = 0
    source: int = 0


Loops = tuple[Loop, ...]


@frozen
class Copy:
    """target[...] = source[...], or its negation."""

    target: str
    source: str
    target_offset: int
    source_offset: int
    loops: Loops
    negate: bool = False
    atoms: tuple[str, ...] = ()


@frozen
class Fill:
    """target[...] = value, because the source has nothing and an absent role means this value."""

    target: str
    target_offset: int
    loops: Loops
    value: float
    atoms: tuple[str, ...] = ()


@frozen
class Term:
    """One summand of an Add; `strides` follow the Add's loops, `value` says what its stored numbers mean."""

    source: str
    offset: int
    strides: tuple[int, ...]
    negate: bool = False
    value: ValueMap = SAME


@frozen
class Add:
    """target[...] = what is stored for the sum of the terms' meanings, computed in float64 and rounded once.

    `negate` changes the sign of the sum; `value` says what the stored numbers of the target mean.
    """

    target: str
    target_offset: int
    loops: Loops
    terms: tuple[Term, ...]
    atoms: tuple[str, ...] = ()
    value: ValueMap = SAME
    negate: bool = False

    @property
    def constant(self) -> float:
        """What is added to the signed stored numbers on the whole, where every map is a shift."""
        shift = sum(term.value.add for term in self.terms) - self.value.add
        return -shift if self.negate else shift

    @property
    def shifts_only(self) -> bool:
        """Whether stored numbers are added to each other and to a constant, and nothing else."""
        return self.value.shifts_only and all(term.value.shifts_only for term in self.terms)


@frozen
class Guard:
    """The target has no place for these source values: legal only if they equal what absence means."""

    source: str
    source_offset: int
    loops: Loops
    value: float
    atoms: tuple[str, ...] = ()


@frozen
class Drop:
    """Source values that may be left out without changing the function, and why."""

    source: str
    source_offset: int
    loops: Loops
    reason: str
    atoms: tuple[str, ...] = ()


Step = Copy | Fill | Add | Guard | Drop


def exactness_of(steps: Iterable[Step]) -> Exactness:
    """The least exact class among steps."""
    worst = Exactness.MOVES
    for step in steps:
        match step:
            case Add():
                worst = max(worst, Exactness.ROUNDS)
            case Guard():
                worst = max(worst, Exactness.CONDITIONAL)
            case Fill():
                worst = max(worst, Exactness.FILLS)
            case _:
                pass
    return worst


def count(loops: Loops) -> int:
    """Number of elements that loops visit."""
    return prod(loop.size for loop in loops)
