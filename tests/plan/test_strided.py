"""A strided copy is np.copyto, bit for bit, whichever way it takes; and every way is taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import prod

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layoutx.errors import LayoutxError
from layoutx.plan import strided, tiles, turns
from layoutx.plan.run import run
from scripts import golden_plans

Array = np.ndarray
DTYPES = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.dtype("V16")}


def numbered(shape: tuple[int, ...], width: int, seed: int = 0, shift: int = 0) -> Array:
    """Random bits, `shift` bytes away from an address that suits their type."""
    memory = np.random.default_rng(seed).integers(0, 256, prod(shape) * width + shift, dtype=np.uint8)
    return memory[shift:].view(DTYPES[width]).reshape(shape)


def room(shape: tuple[int, ...], width: int) -> Array:
    """Where something is copied to: every byte is known, and none is what a copy would leave by chance."""
    return np.full(prod(shape) * width, 0xA5, np.uint8).view(DTYPES[width]).reshape(shape)


def same(to: Array, of: Array, jobs: int = 1) -> None:
    """Copy into one target by np.copyto, as it comes and on every way, and compare all of its memory."""
    base = to if to.base is None else to.base
    before = base.copy()
    np.copyto(to, of)
    expected = base.tobytes()
    base[...] = before
    strided.copy(to, of, jobs)
    assert base.tobytes() == expected
    if to.size and not strided.is_plain(to, of) and not np.may_share_memory(to, of):
        for way in strided.ways(to, of):
            base[...] = before
            strided._by(way, to, of)
            assert base.tobytes() == expected, way
    base[...] = before


@st.composite
def views(draw: st.DrawFn) -> tuple[Array, Array, int]:
    """Two views of one shape with any strides; and a number of threads."""
    shape = tuple(draw(st.lists(st.integers(1, 12), min_size=0, max_size=5)))
    while prod(shape) > 6000:
        shape = shape[:-1]
    width = draw(st.sampled_from(sorted(DTYPES)))
    made = []
    for make in (lambda s: room(s, width), lambda s: numbered(s, width, 1, draw(st.integers(0, 3)))):
        order = draw(st.permutations(range(len(shape))))
        gaps = [draw(st.sampled_from([(1, 0), (1, 0), (1, 2), (2, 1), (3, 0)])) for _ in shape]
        backwards = [draw(st.sampled_from([1, 1, -1])) for _ in shape]
        memory = make(tuple(shape[i] * gaps[i][0] + gaps[i][1] for i in order))
        view = memory.transpose(np.argsort(order)) if order else memory
        index = [slice(g[1], g[1] + g[0] * n, g[0]) for n, g in zip(shape, gaps, strict=True)]
        view = view[(*index, ...)]
        made.append(view[tuple(slice(None, None, step) for step in backwards)] if shape else view)
    to, of = made
    for axis in range(len(shape)):
        if draw(st.integers(0, 15)) == 0:
            of = np.broadcast_to(of.take([0], axis), shape)
    return to, of, draw(st.integers(1, 3))


@pytest.mark.usefixtures("small_boxes")
def test_any_two_views() -> None:
    taken: dict[str, int] = {}

    @settings(max_examples=1500, derandomize=True)
    @given(views())
    def check(case: tuple[Array, Array, int]) -> None:
        to, of, jobs = case
        assert to.shape == of.shape
        same(to, of, jobs)
        if to.size:
            found = strided.way(to, of)
            taken[found.name] = taken.get(found.name, 0) + 1
            for name, met in {
                "several boxes": any(n > step for n, step in zip(found.shape, found.box, strict=False)),
                "a box at the edge": any(n % step for n, step in zip(found.shape, found.box, strict=False)),
                "peeled": found.peeled,
                "wider": found.unit,
                "turned source": found.scratch and any(found.scratch.turned),
                "turned target": any(found.turned),
                "threads": jobs > 1 and to.nbytes >= strided.SHARED,
            }.items():
                taken[name] = taken.get(name, 0) + bool(met)

    check()
    assert len(taken) == 10, taken
    assert min(taken.values()) >= 20, taken


# shape, axes of the target in the source, axes turned, way on one thread; large enough for the real limits
LARGE = {
    "a matrix, odd": ((1031, 769), (1, 0), (), "scratch"),
    "a matrix, even": ((512, 1024), (1, 0), (), "scratch"),
    "a matrix, rows turned": ((1031, 769), (1, 0), (0,), "scratch"),
    "a matrix, columns turned": ((1031, 769), (1, 0), (1,), "scratch"),
    "hwio to oihw": ((3, 3, 257, 263), (3, 2, 0, 1), (), "scratch"),
    "oihw to hwio": ((257, 263, 3, 3), (2, 3, 1, 0), (), "scratch"),
    "hwio to oihw, turned": ((3, 3, 257, 263), (3, 2, 0, 1), (2, 3), "scratch"),
    "1 x 1": ((1, 1, 769, 771), (3, 2, 0, 1), (), "scratch"),
    "conv3d": ((3, 5, 2, 127, 131), (4, 3, 0, 1, 2), (), "scratch"),
    "conv3d back": ((127, 131, 3, 5, 2), (2, 3, 4, 1, 0), (), "scratch"),
    "depthwise": ((3, 3, 40009, 2), (2, 3, 0, 1), (), "plain"),
    "depthwise back": ((40009, 2, 3, 3), (2, 3, 0, 1), (), "direct"),
    "three axes": ((101, 103, 107), (2, 1, 0), (), "scratch"),
    "four axes": ((31, 37, 29, 41), (3, 2, 1, 0), (1,), "scratch"),
    "runs of three": ((701, 499, 3), (1, 0, 2), (), "scratch"),
    "long runs": ((41, 43, 601), (1, 0, 2), (), "plain"),
    "rows turned": ((1031, 769), (0, 1), (1,), "plain"),
}


@pytest.mark.parametrize("name", LARGE)
def test_real_limits(name: str) -> None:
    """The usual layouts at sizes where the measured limits apply, from memory that is not aligned."""
    shape, order, turned, way = LARGE[name]
    of = np.flip(numbered(shape, 4, shift=3).transpose(order), turned)
    assert not of.flags.aligned
    to = room(of.shape, 4)
    assert strided.way(to, of).name == way
    same(to, of)
    same(room(of.T.shape, 4).T, of)


@pytest.mark.parametrize("width", DTYPES)
def test_every_width(width: int) -> None:
    of = numbered((1217, 1153), width).T
    to = room(of.shape, width)
    assert strided.way(to, of).name == ("plain" if to.nbytes < tiles.NEAR else "scratch")
    same(to, of)


@pytest.mark.parametrize(
    ("shape", "run", "tall"),
    [((4096, 4096), 131, 512), ((8192, 512), 131, 512), ((256, 8192), 256, 256), ((300, 8192), 131, 300)],
)
def test_a_box_stays_in_the_cache(shape: tuple[int, int], run: int, tall: int) -> None:
    """The runs of a flat one in the target are no multiple of 8, or the whole axis."""
    to, of = room(shape[::-1], 4), room(shape, 4).T
    for found, wanted, (rows, columns) in (
        (strided.way(to, of), run, tiles.FLAT),
        (strided.way(to, of, tall=True), tall, tiles.TALL),
    ):
        assert found.box[1] == wanted
        assert rows * columns // 2 < prod(found.box) * 4 <= rows * columns


@pytest.mark.parametrize("width", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (16, 16), (3, 2, 7)])
def test_small_arrays(shape: tuple[int, ...], width: int) -> None:
    """Below the limit nothing is looked at: not the strides, and not whether the two share memory."""
    of = numbered(shape, width)
    same(room(shape[::-1], width), of.T)
    line = numbered((40,), width)
    same(line[3:], line[:-3])


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_threads(jobs: int) -> None:
    """Above the limit from which threads are used: a transpose, and rows that are plain copies."""
    matrix = numbered((2053, 2063), 4)
    assert matrix.nbytes >= strided.SHARED
    for of, way in ((matrix.T, "scratch"), (matrix, "plain"), (matrix[::-1], "plain"), (matrix.T[:, ::-1], "scratch")):
        to = room(of.shape, 4)
        assert strided.way(to, of).name == way
        same(to, of, jobs)


def test_threads_are_used_from_a_size_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    moved = tiles.move
    monkeypatch.setattr(strided, "move", lambda *a: (seen.append(threading.get_ident()), moved(*a)))
    large, less = numbered((2053, 2063), 4, shift=3).T, numbered((1031, 769), 4, shift=3).T
    monkeypatch.setattr(strided, "turn", lambda *_: None)
    strided.copy(room(less.shape, 4), less, 3)
    assert seen == [threading.get_ident()]
    strided.copy(room(large.shape, 4), large, 3)
    assert len(seen) > 6
    assert len(set(seen)) > 1


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5), (), (1,), (1, 1, 1)])
@pytest.mark.usefixtures("small_boxes")
def test_nothing_or_one(shape: tuple[int, ...]) -> None:
    same(room(shape, 4), numbered(shape, 4), 3)


def test_a_source_that_cannot_be_written() -> None:
    of = numbered((1031, 769), 4)
    of.flags.writeable = False
    same(room((769, 1031), 4), of.T)


def test_a_target_that_cannot_be_written() -> None:
    to, of = room((769, 1031), 4), numbered((1031, 769), 4).T
    to.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        strided.copy(to, of)


def test_another_shape_or_type_is_refused() -> None:
    for of in (numbered((3, 1), 4), numbered((3, 5), 2), numbered((5, 3), 4)):
        with pytest.raises(ValueError, match="is not copied to uint32 \\(3, 5\\)"):
            strided.copy(room((3, 5), 4), of)


def test_a_matrix_is_transposed_in_its_own_memory() -> None:
    """The two views share memory: the same as np.copyto, which makes a copy of the source first."""
    matrix = numbered((701, 701), 4)
    expected = matrix.T.copy()
    strided.copy(matrix, matrix.T)
    assert np.array_equal(matrix, expected)


def test_scratch_memory_is_bounded_and_kept() -> None:
    most = 0
    rng = np.random.default_rng(3)
    for _ in range(300):
        shape = tuple(int(n) for n in np.exp(rng.uniform(0, 8, rng.integers(2, 6))))
        width = int(rng.choice(list(DTYPES)))
        to = np.lib.stride_tricks.as_strided(np.empty(1, DTYPES[width]), shape, strides(shape, width))
        order = rng.permutation(len(shape))
        steps = strides(tuple(shape[i] for i in order), width)
        found = tiles.way(shape, to.strides, tuple(steps[list(order).index(i)] for i in range(len(shape))), width)
        most = max(most, found.scratch.nbytes(found.box) if found.scratch else 0)
    assert 200_000 < most <= 1 << 20
    same(room((769, 1031), 4), numbered((1031, 769), 4).T)
    kept = strided._mine.scratch
    same(room((769, 1033), 4), numbered((1033, 769), 4).T)
    assert strided._mine.scratch is kept
    assert kept.ctypes.data % tiles.LINE == 0


def strides(shape: tuple[int, ...], width: int) -> tuple[int, ...]:
    return tuple(prod(shape[i + 1 :]) * width for i in range(len(shape)))


def test_rows_of_the_scratch_array_do_not_meet_in_the_cache() -> None:
    for n in (1024, 1031, 2048, 4096):
        found = strided.way(room((n, n), 4), numbered((n, n), 4).T)
        assert found.scratch is not None
        assert found.scratch.pitch // tiles.LINE % 2 == 1


def test_small_tensors_go_straight_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strided, "way", lambda *_: pytest.fail("too much thought for a small tensor"))
    same(room((64, 64), 4), numbered((64, 64), 4).T)
    same(room((1024, 1024), 4), numbered((1024, 1024), 4))


@pytest.mark.usefixtures("small_boxes")
def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A box left out, and a box that is not turned, are each noticed."""
    moved = tiles.move
    to, of = room((23, 29), 8), numbered((29, 23), 8).T
    same(to, of)
    monkeypatch.setattr(strided, "move", lambda w, t, o, todo, b: moved(w, t, o, list(todo)[1:], b))
    with pytest.raises(AssertionError):
        same(to, of)
    monkeypatch.setattr(strided, "move", lambda w, t, o, todo, b: moved(w, t, o[::-1], todo, b))
    with pytest.raises(AssertionError):
        same(to, of)


# -- plans --

KINDS = {"lstm": 20, "gru": 20, "conv": 20, "conv_transpose": 10, "separable_conv": 4, "attention": 10, "dense": 6}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", "complex128"])
@pytest.mark.usefixtures("small_boxes")
def test_plans_with_and_without(kind: str, dtype: str) -> None:
    """Every pair of forms: the tensors of the fast run are those of np.copyto, byte for byte."""
    type_ = np.dtype(getattr(ml_dtypes, dtype, dtype))
    rng = np.random.default_rng(5)
    compared, boxes = 0, 0

    def counted(move: Callable[..., object]) -> Callable[..., object]:
        def also(*args: object) -> object:
            nonlocal boxes
            boxes += 1
            return move(*args)

        return also

    found = golden_plans.specs().kinds[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strided, "move", counted(tiles.move))
        patch.setattr(turns, "move", counted(turns.move))
        for source, target, rank in golden_plans.pairs(found):
            try:
                plan = golden_plans.planned(found, source, target, rank)
                held = {t.name: rng.normal(size=t.shape).astype(type_) for t in plan.source.tensors}
                expected = run(plan, held, plain=True).tensors
            except LayoutxError:
                continue
            for jobs in (1, 2):
                now = run(plan, held, jobs=jobs).tensors
                assert {n: a.tobytes() for n, a in now.items()} == {n: a.tobytes() for n, a in expected.items()}
            compared += 1
    assert compared >= KINDS[kind]
    assert boxes >= compared
