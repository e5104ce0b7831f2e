"""Converting dtypes: every value, one rounding, and nothing lost that is not counted."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from layoutx.errors import UsageError
from layoutx.move.cast import BLOCK, Lost, cast, converted, dtype_after, dtype_named, is_floating

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
EIGHTS = [np.dtype(getattr(ml_dtypes, f"float8_{name}")) for name in ("e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz")]
FLOATS = [np.dtype(name) for name in ("f2", "f4", "f8")] + [BFLOAT16, *EIGHTS]
RNG = np.random.default_rng(16)
Array = np.ndarray[Any, Any]
pytestmark = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # signalling NaN among all bit patterns


def every(dtype: np.dtype[Any]) -> Array:
    """Each of the values of an 8- or 16-bit dtype."""
    word = np.dtype(f"u{dtype.itemsize}")
    return np.arange(1 << 8 * dtype.itemsize, dtype=word).view(dtype)


def edges(dtype: np.dtype[Any]) -> Array:
    """The finite values of a narrow dtype, the middles between neighbours, and what lies just beside, as float64."""
    values = every(dtype).astype(np.float64)
    values = np.unique(values[np.isfinite(values)])
    last = values[-1] + (values[-1] - values[-2]) / 2  # from here on it is infinite
    middles = np.concatenate([(values[1:] + values[:-1]) / 2, [last, -last]])
    near = [np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf), middles * (1 + 2.0**-30)]
    single = middles.astype(np.float32)
    float_near = [np.nextafter(single, np.float32(np.inf)), np.nextafter(single, np.float32(-np.inf))]
    return np.concatenate([values, middles, *near, *(side.astype(np.float64) for side in float_near)])


def nearest(values: Array, dtype: np.dtype[Any]) -> Array:
    """The nearest value of a 16-bit dtype, ties to the even one, found by looking it up in exact arithmetic."""
    grid = every(dtype)[: 1 << 15]
    numbers = grid.astype(np.float64)
    count = int(np.isfinite(numbers).sum())
    grid, numbers = grid[: count + 1], numbers[:count].tolist()
    past = 2 * Fraction(numbers[-1]) - Fraction(numbers[-2])  # where the next value would be
    exact = [Fraction(number) for number in numbers] + [past]
    place = np.searchsorted(numbers, np.abs(values), side="right") - 1
    found = []
    for value, below in zip(values.tolist(), place.tolist(), strict=True):
        down, up = abs(Fraction(value)) - exact[below], exact[min(below + 1, count)] - abs(Fraction(value))
        above = below < count and (up < down or (up == down and below % 2 == 1))
        found.append(below + above)
    made = grid[found]
    return np.copysign(made.astype(np.float64), values).astype(dtype)


def same(one: Array, other: Array) -> bool:
    """Equal bits, but for the payload of NaN."""
    word = f"u{one.itemsize}"
    void = np.isnan(one.astype(np.float64))
    return bool(
        np.array_equal(void, np.isnan(other.astype(np.float64)))
        and np.array_equal(one.view(word)[~void], other.view(word)[~void])
    )


@pytest.mark.parametrize("dtype", [np.dtype("f2"), BFLOAT16], ids=str)
@pytest.mark.parametrize("of", [np.float32, np.float64])
def test_the_nearest_value_and_the_even_one_of_two(dtype: np.dtype[Any], of: Any) -> None:
    """Every value, every middle, and its neighbours, in another order than the grid's."""
    values = RNG.permutation(edges(dtype).astype(of))
    values = np.unique(values)[:: 1 if of is np.float64 else 2]
    values = RNG.permutation(values)[:60_000]
    made, lost = converted(values, dtype)
    with np.errstate(over="ignore"):
        assert same(made, nearest(values.astype(np.float64), dtype))
    assert lost.count_infinite == np.isinf(made.astype(np.float32)).sum()
    assert lost.count_zero == ((made == 0) & (values != 0)).sum()


def test_double_rounding_through_float32_would_show() -> None:
    """The tests above can fail: ml_dtypes rounds a float64 twice, first to float32."""
    values = edges(BFLOAT16)
    with np.errstate(over="ignore"):
        twice = values.astype(np.float32).astype(BFLOAT16)
    made, _ = converted(values, BFLOAT16)
    assert not same(made, twice)
    assert same(converted(np.array([1 + 2.0**-8 + 2.0**-40]), BFLOAT16)[0], np.array([1 + 2.0**-7]).astype(BFLOAT16))


@pytest.mark.parametrize("of", FLOATS, ids=str)
@pytest.mark.parametrize("to", FLOATS, ids=str)
def test_each_pair_agrees_with_the_plain_way(of: np.dtype[Any], to: np.dtype[Any]) -> None:
    """Where the plain way rounds once: all values of small dtypes, random bits of large ones."""
    given = RNG.permutation(every(of)) if of.itemsize <= 2 else np.frombuffer(RNG.bytes(70001 * of.itemsize), of)
    with np.errstate(all="ignore"):
        wide = given if of == np.float64 and to.itemsize > 1 and to != BFLOAT16 else given.astype(np.float32)
        if of == np.float64 and (to.itemsize == 1 or to == BFLOAT16):
            given = wide.astype(np.float64)  # its float32 part: no second rounding
        expected = wide.astype(to) if of != to else given
    made, lost = converted(given, to)
    assert made.dtype == to
    assert same(made, expected)
    before, after = given.astype(np.float64), made.astype(np.float64)
    finite = np.isfinite(before)
    kept = finite & np.isfinite(after)
    assert lost.count == given.size
    assert lost.count_infinite == (finite & ~kept).sum()
    if of != to:
        assert lost.count_zero == (kept & (after == 0) & (before != 0)).sum()
        assert lost.rounded == (kept & (after != before)).sum()
        error = np.abs(after - before)[kept].max(initial=0)
        assert lost.error == pytest.approx(error, rel=1e-6)


def test_every_float32_exponent_and_sign_as_float16() -> None:
    """All upper halves of float32 with many lower halves, against NumPy's own slow and right way."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    for lower in (0, 1, 0x0FFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0xF001):
        given = (upper | np.uint32(lower)).view(np.float32)
        with np.errstate(all="ignore"):
            assert same(converted(given, np.dtype("f2"))[0], given.astype(np.float16))
            assert same(converted(given, BFLOAT16)[0], given.astype(BFLOAT16))


@pytest.mark.parametrize("to", [np.dtype("f2"), BFLOAT16, np.dtype("f4")], ids=str)
def test_not_a_number_stays_so_and_is_quiet(to: np.dtype[Any]) -> None:
    words = np.array([0x7FF0000000000001, 0xFFF0000000000001, 0x7FFFFFFFFFFFFFFF, 0xFFF8000000000000], np.uint64)
    for given in (words.view(np.float64), *([] if to == np.float32 else [_signalling()])):
        made, lost = converted(given, to)
        assert np.isnan(made.astype(np.float32)).all()
        fraction = {"float16": 10, "bfloat16": 7, "float32": 23}[to.name]
        assert (made.view(f"u{to.itemsize}") >> (fraction - 1) & 1 == 1).all()
        assert lost == Lost(given.size)


def _signalling() -> Array:
    return np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFC00000], np.uint32).view(np.float32)


def test_what_was_lost_is_counted_and_adds_up() -> None:
    given = np.array([1, 1 + 2.0**-11, 7e4, -8e4, 1e-9, -1e-9, 0, -0.0, np.inf, np.nan, 3 + 2.0**-10], np.float32)
    _, lost = converted(given, np.dtype("f2"))
    assert lost == Lost(11, rounded=4, count_infinite=2, count_zero=2, error=2.0**-10, scale=8e4)
    parts = converted(given[:3], np.dtype("f2"))[1] + converted(given[3:], np.dtype("f2"))[1]
    assert parts == lost
    assert lost.largest == lost.error / 8e4
    assert Lost().largest == 0


def test_pieces_lose_what_the_whole_loses() -> None:
    """Blocks inside `cast`, and pieces outside, leave no seam; memory of mapped files may be misaligned."""
    given = RNG.standard_normal(2 * BLOCK + 12_347).astype(np.float32) * np.float32(1e-4)
    raw = np.empty(given.nbytes + 1, np.uint8)
    raw[1:] = given.view(np.uint8)
    crooked = raw[1:].view(np.float32)
    assert not crooked.flags.aligned
    for to in (np.dtype("f2"), BFLOAT16, np.dtype("f8")):
        whole, lost = converted(given, to)
        assert same(whole, given.astype(to))
        made, again = converted(crooked, to)
        assert same(made, whole)
        assert again == lost
        cut = BLOCK + 4_001
        (one, first), (two, second) = converted(given[:cut], to), converted(given[cut:], to)
        assert same(np.concatenate([one, two]), whole)
        assert first + second == lost
    assert lost.rounded == 0
    assert converted(given, BFLOAT16)[1].rounded > given.size // 2


def test_shapes_strides_and_the_same_dtype() -> None:
    given = RNG.standard_normal((7, 5, 3)).transpose(2, 0, 1)
    made, _ = converted(given, np.dtype("f4"))
    assert made.shape == (3, 7, 5)
    assert np.array_equal(made, given.astype(np.float32))
    assert converted(np.array(1.5), BFLOAT16)[0].shape == ()
    assert converted(np.empty((0, 3)), BFLOAT16)[1] == Lost()
    odd = _signalling()
    made, lost = converted(odd, odd.dtype)
    assert np.array_equal(made.view(np.uint32), odd.view(np.uint32))
    assert lost == Lost(odd.size)


def test_what_is_not_converted() -> None:
    assert not any(is_floating(np.dtype(name)) for name in ("i8", "u1", "?", "c8", "g"))
    assert all(is_floating(dtype) for dtype in FLOATS)
    assert dtype_after(np.dtype("i8"), BFLOAT16) == np.int64
    assert dtype_after(np.dtype("f4"), BFLOAT16) == BFLOAT16
    assert dtype_after(np.dtype("f4"), None) == np.float32
    with pytest.raises(ValueError, match="floating"):
        cast(np.arange(3), np.empty(3, np.float32))
    with pytest.raises(ValueError, match="shape"):
        cast(np.ones(3), np.empty(2, np.float32))
    with pytest.raises(ValueError, match="contiguous"):
        cast(np.ones((3, 2)).T, np.empty((2, 3), np.float32))


def test_the_words_for_dtypes() -> None:
    assert [dtype_named(word).name for word in ("bf16", "F16", "float32", " f64")] == [
        "bfloat16",
        "float16",
        "float32",
        "float64",
    ]
    for word in ("int8", "half", "", "float8_e4m3fn"):
        with pytest.raises(UsageError, match="dtype"):
            dtype_named(word)


def test_the_memory_of_a_cast_does_not_grow_with_the_buffer() -> None:
    """Beside what a thread keeps, less than a few blocks, even where every block needs the long way."""
    given = np.frombuffer(RNG.bytes(32 << 20), np.float32)
    made = np.empty(given.shape, np.float16)
    cast(given[:BLOCK], made[:BLOCK])
    tracemalloc.start()
    try:
        lost = cast(given, made)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lost.count_infinite > given.size // 4
    assert peak < 8 * 4 * BLOCK < given.nbytes // 8
