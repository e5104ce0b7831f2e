"""Which of several ways of a copy is the fastest on this processor: each is tried, and the best is taken.

No rule holds for all. Of a matrix of 8192 x 8192 numbers of 32 bits in a mapped file, BLAS took 0.75 ns an element on a
Zen 5 and NumPy's boxes 1.2 or more; on a Sapphire Rapids BLAS took 1.4, flat boxes 1.2 and tall ones 0.8. What is timed
are copies that have to be made anyway; all ways make the same bits.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf

LEAST = 1 << 20  # bytes of a copy, below which its time says little
TRIES = 2  # the first copy of a file pays for pages that are met for the first time
LAST = 3  # times of a way that count, the best of them: one alone says little, and old ones were of other memory
PAGE = 4096  # bytes: strides that share larger powers of two fall into the caches alike
LONG = 512  # elements of an axis, above which its length matters no more


class Contest:
    """The times of one kind of copy; several threads may share it, for a time that is lost is only another try."""

    def __init__(self, many: int) -> None:
        """`many`: ways that there are."""
        self._last: list[tuple[float, ...]] = [()] * many
        self._tries = [0] * many

    def pick(self) -> int:
        """The way to take now: one whose turn it is to be tried, or the best.

        Each is tried at first, and once more whenever four times as many copies were made: the first ones may have met
        memory for the first time, which takes longer than any way of copying and hides which is the best.
        """
        rounds = sum(self._tries) // (TRIES * len(self._tries))
        least = min(self._tries)
        if least < TRIES + max(0, rounds.bit_length() - 1) // 2:
            return self._tries.index(least)
        best = [min(last, default=inf) for last in self._last]
        return best.index(min(best))

    def took(self, way: int, seconds: float) -> None:
        """What a byte took on a way."""
        self._tries[way] += 1
        self._last[way] = (*self._last[way][1 - LAST :], seconds)


@lru_cache(maxsize=4096)
def contest(alike: tuple[tuple[int, int, int], ...], width: int, many: int) -> Contest:
    """The contest of copies that look alike to a processor, for elements of `width` bytes."""
    return Contest(many)


@lru_cache(maxsize=4096)
def alike(shape: tuple[int, ...], to: tuple[int, ...], of: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """What a copy of these strides, in bytes, has in common with others: lengths by magnitude, strides by alignment."""
    return tuple(
        (min(n, LONG).bit_length(), _aligned(t), _aligned(s)) for n, t, s in zip(shape, to, of, strict=True) if n != 1
    )


def _aligned(stride: int) -> int:
    return min(stride & -stride, PAGE)
