"""Copies as turned matrices: np.copyto, bit for bit, whatever waits in scratch memory; and every way is taken."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layoutx.plan import blas, strided, turns
from tests.plan.test_strided import LARGE, numbered, room, same, strides

Array = np.ndarray

pytestmark = pytest.mark.skipif(blas.transpose() is None, reason="this NumPy brings no OpenBLAS along")


def quiet(of: Array) -> Array:
    """The same bits, with every signalling NaN made quiet."""
    nan = (of & 0x7F800000 == 0x7F800000) & (of & 0x7FFFFF != 0)
    return np.where(nan, of | 0x400000, of).astype("u4")


@st.composite
def views(draw: st.DrawFn) -> tuple[Array, Array, int]:
    """Two views of one shape, one run of each along another axis as a rule; and a number of threads."""
    shape = tuple(draw(st.lists(st.integers(2, 13), min_size=2, max_size=4)))
    straight = tuple(range(len(shape)))
    made = []
    for make, usual in (
        (lambda s: room(s, 4), straight),
        (lambda s: quiet(numbered(s, 4, draw(st.integers(0, 9)))), straight[::-1]),
    ):
        order = draw(st.one_of(st.just(usual), st.permutations(straight)))
        gaps = [draw(st.sampled_from([(1, 0)] * 8 + [(1, 2), (2, 1)])) for _ in shape]
        backwards = [draw(st.sampled_from([1] * 7 + [-1])) for _ in shape]
        memory = make(tuple(shape[i] * gaps[i][0] + gaps[i][1] for i in order))
        if make((1,)).base is None and draw(st.integers(0, 4)) == 0:  # of the source: somewhere in bytes
            raw = np.empty(memory.nbytes + 3, np.uint8)[3:]
            raw[:] = memory.reshape(-1).view(np.uint8)
            memory = raw.view("u4").reshape(memory.shape)
        view = memory.transpose(np.argsort(order))
        view = view[tuple(slice(g[1], g[1] + g[0] * n, g[0]) for n, g in zip(shape, gaps, strict=True))]
        made.append(view[tuple(slice(None, None, step) for step in backwards)])
    return made[0], made[1], draw(st.integers(1, 3))


@pytest.mark.usefixtures("small_boxes")
def test_any_two_views() -> None:
    taken: dict[str, int] = {}

    @settings(max_examples=2000, derandomize=True)
    @given(views())
    def check(case: tuple[Array, Array, int]) -> None:
        to, of, jobs = case
        same(to, of, jobs)
        found = strided.turn(to, of)
        shape = found.plain.shape if found else ()
        for name, met in {
            "no matrix": found is None,
            "as it lies": found and not found.before and not found.behind,
            "gathered": found and found.before and not found.behind,
            "scattered": found and found.behind and not found.before,
            "both": found and found.before and found.behind,
            "several axes in a target run": found and len(found.rows) > 1,
            "several axes in a source run": found and len(found.columns) > 1,
            "an axis of no run": found and len(found.rows) + len(found.columns) < len(shape),
            "several boxes": found and any(n > step for n, step in zip(shape, found.box, strict=True)),
            "a box at the edge": found and any(n % step for n, step in zip(shape, found.box, strict=True)),
            "not aligned": found and not of.flags.aligned,
            "turned target": found and any(found.plain.turned),
            "threads": found and jobs > 1 and to.nbytes >= strided.SHARED,
        }.items():
            taken[name] = taken.get(name, 0) + bool(met)

    check()
    assert min(taken.values()) >= 20, taken


TURNED = {
    "a matrix, odd": "",
    "a matrix, even": "",
    "a matrix, rows turned": "before",
    "a matrix, columns turned": "before",
    "hwio to oihw": "before",
    "oihw to hwio": "behind",
    "hwio to oihw, turned": "before",
    "1 x 1": "",
    "conv3d": "before",
    "conv3d back": "behind",
}


@pytest.mark.parametrize("name", TURNED)
@pytest.mark.parametrize("shift", [0, 3])
def test_real_limits(name: str, shift: int) -> None:
    """The usual layouts at sizes where the measured limits apply, from memory that is aligned and that is not."""
    shape, order, turned, _ = LARGE[name]
    raw = np.empty(prod(shape) * 4 + shift, np.uint8)[shift:]
    raw[:] = quiet(numbered((prod(shape),), 4)).view(np.uint8)
    of = np.flip(raw.view("u4").reshape(shape).transpose(order), turned)
    to = room(of.shape, 4)
    found = strided.turn(to, of)
    assert found is not None
    waits = " ".join(side for side in ("before", "behind") if getattr(found, side))
    assert waits == (" ".join(filter(None, ("before", TURNED[name].replace("before", "")))) if shift else TURNED[name])
    same(to, of)
    same(to, of, 3)


def test_a_matrix_in_the_cache_is_left_to_numpy() -> None:
    """Where NumPy's loop has full speed, a call of BLAS pays from 512 kB on; where strides collide, sooner."""
    for size, turned in ((300, False), (400, True), (256, True)):
        to, of = room((size, size), 4), numbered((size, size), 4).T
        assert (strided.turn(to, of) is not None) == turned
        same(to, of)


@pytest.fixture
def turned_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is the fastest here, matrices are turned over by BLAS."""
    monkeypatch.setattr(strided, "ways", lambda to, of: [strided.turn(to, of)])


@pytest.mark.usefixtures("turned_only")
def test_bits_that_would_be_lost_are_left_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """One signalling NaN somewhere: all of the slab is made again, without BLAS."""
    of = np.ones((1100, 2100), "u4")
    of[1099, 7] = blas.SIGNALLING
    turned, tiled = [], []
    moved, copied = turns.move, strided.move
    monkeypatch.setattr(turns, "move", lambda *a: turned.append(moved(*a)) or turned[-1])
    monkeypatch.setattr(strided, "move", lambda *a: tiled.append(copied(*a)))
    for jobs in (1, 3):
        turned.clear()
        tiled.clear()
        same(room((2100, 1100), 4), of.T, jobs)
        assert not all(turned)
        assert tiled
    of[1099, 7] |= 0x400000
    turned.clear()
    tiled.clear()
    same(room((2100, 1100), 4), of.T)
    assert set(turned) == {True}
    assert not tiled


@pytest.mark.usefixtures("turned_only")
def test_a_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = turns.move
    to, of = room((1031, 769), 4), quiet(numbered((769, 1031), 4)).T
    same(to, of)
    monkeypatch.setattr(turns, "move", lambda f, c, t, o, todo, b: moved(f, c, t, o, list(todo)[1:], b))
    with pytest.raises(AssertionError):
        same(to, of)


def test_scratch_memory_is_bounded() -> None:
    most = 0
    rng = np.random.default_rng(3)
    for _ in range(2000):
        shape = tuple(int(n) for n in np.exp(rng.uniform(0, 8, rng.integers(2, 6))))
        order = rng.permutation(len(shape))
        steps = strides(tuple(shape[i] for i in order), 4)
        of = tuple(steps[list(order).index(i)] for i in range(len(shape)))
        found = turns.turn(shape, strides(shape, 4), of, bool(rng.integers(2)))
        if found is not None:
            assert prod(found.box) <= max(turns.BOX // 4, 64 * turns.LONG), found
            most = max(most, found.nbytes)
    assert 1 << 19 < most <= 1 << 22
