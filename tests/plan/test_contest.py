"""The fastest way of a copy is found by trying all, and kept; what looks alike to a processor shares what was found."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from layoutx.plan import contest, strided
from layoutx.plan.contest import PAGE, TRIES, Contest, alike
from tests.plan.test_strided import numbered, room


@pytest.fixture
def fresh() -> Iterator[None]:
    """Nothing was timed before."""
    contest.contest.cache_clear()
    yield
    contest.contest.cache_clear()


def test_each_way_is_tried_and_the_best_is_kept() -> None:
    took, found = [3.0, 1.0, 2.0], Contest(3)
    picked = [_copied(found, took) for _ in range(3 * TRIES + 10)]
    assert picked == [0, 1, 2] * TRIES + [1] * 10


def test_each_is_tried_again_now_and_then() -> None:
    """Once more whenever four times as many copies were made: seldom enough to cost nothing."""
    found = Contest(3)
    picked = [_copied(found, [3.0, 1.0, 2.0]) for _ in range(1600)]
    assert [picked.count(0), picked.count(2)] == [TRIES + 4] * 2
    assert picked.index(0, 3 * TRIES) == 3 * TRIES * 4


def test_what_the_first_copies_hid_is_found() -> None:
    """The first ones meet memory for the first time, and all ways seem alike; then one is far better."""
    found = Contest(3)
    cold = [_copied(found, [9.0, 9.2, 9.1]) for _ in range(30)]
    assert cold.count(0) > 20
    warm = [_copied(found, [2.0, 1.9, 1.0]) for _ in range(200)]
    assert warm[-100:] == [2] * 100


def test_the_best_way_can_change() -> None:
    """What it took lately counts: a way that a lucky copy made the best does not stay it."""
    found = Contest(2)
    for way, seconds in ((0, 1.0), (1, 2.0), (0, 1.0), (1, 2.0)):
        assert found.pick() == way
        found.took(way, seconds)
    picked = [_copied(found, [3.0, 2.0]) for _ in range(10)]
    assert picked == [0] * 3 + [1] * 7


def _copied(found: Contest, took: list[float]) -> int:
    """The way that one copy takes, where each takes so long."""
    way = found.pick()
    found.took(way, took[way])
    return way


def test_one_slow_copy_does_not_decide() -> None:
    """The first one meets pages of a file for the first time."""
    found = Contest(2)
    for way, seconds in ((0, 9.0), (1, 2.0), (0, 1.0), (1, 2.0)):
        assert found.pick() == way
        found.took(way, seconds)
    assert found.pick() == 0


def test_what_looks_alike() -> None:
    """Lengths by magnitude, strides by what power of two is in them; an axis of one does not count."""

    def of(rows: int, columns: int, width: int = 4) -> object:
        return alike((columns, 1, rows), (rows * width, 1, width), (width, 1, columns * width))

    assert of(8192, 8192) == of(4096, 16384) == of(2048, 1024)
    assert of(5000, 7000) != of(8192, 8192) != of(64, 8192)
    assert of(8192, 8192) != of(8192, 8192, 8)
    assert of(1 << 20, 8192) == ((10, PAGE, 4), (10, 4, PAGE))
    assert alike((3, 1024), (-4096, 4), (0, -8)) == ((2, PAGE, 0), (10, 4, 8))


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("width", [2, 4, 8])
def test_a_copy_takes_the_way_that_was_the_fastest(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the thread's own clock, which runs as it is told here: the last way is the best."""
    of = numbered((1024, 960), width).T
    to, taken, now = room(of.shape, width), [], [0.0]
    ways = strided.ways(to, of)
    assert len(ways) == (3 if width == 4 and strided.turn(to, of) else 2)

    def by(found: object, to: np.ndarray, of: np.ndarray) -> None:
        taken.append(strided.ways(to, of).index(found))  # type: ignore[arg-type]
        now[0] += len(ways) - taken[-1]

    monkeypatch.setattr(strided, "_by", by)
    monkeypatch.setattr(strided, "thread_time", lambda: now[0])
    for _ in range(TRIES * len(ways) + 5):
        strided.copy(to, of)
    last = len(ways) - 1
    assert taken == [*range(len(ways))] * TRIES + [last] * 5
    assert strided.chosen(to, of) == ways[last]
    strided.copy(to[:900], of[:900])  # another size of the same kind
    assert taken[-1] == last


@pytest.mark.usefixtures("fresh")
def test_a_small_copy_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strided, "thread_time", lambda: pytest.fail("a clock that is asked for nothing"))
    of = numbered((400, 500), 4).T
    assert strided.SMALL <= of.nbytes < contest.LEAST
    strided.copy(room(of.shape, 4), of)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize(
    ("shape", "order", "axis"),
    [((2053, 2903), (1, 0), 0), ((3, 3, 769, 771), (3, 2, 0, 1), 1), ((300, 200, 111), (2, 1, 0), 1)],
)
def test_a_large_copy_goes_in_slabs(shape: tuple[int, ...], order: tuple[int, ...], axis: int, jobs: int) -> None:
    """Cut along the axis that has long steps on both sides, into parts of nearly one size; all of it is covered."""
    of = numbered(shape, 4).transpose(order)
    to = np.zeros(of.shape, "u4")
    slabs = list(strided.slabs(to, of, jobs))
    assert len(slabs) >= to.nbytes / strided.SLAB > 2
    for part, _ in slabs:
        assert [n for at, n in enumerate(part.shape) if at != axis] == [
            n for at, n in enumerate(to.shape) if at != axis
        ]
        assert part.shape[axis] <= slabs[0][0].shape[axis]
        part += 1
    assert np.all(to == 1)
    assert np.array_equal(np.concatenate([source for _, source in slabs], axis), of)
