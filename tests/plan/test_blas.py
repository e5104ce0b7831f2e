"""The transposition of NumPy's OpenBLAS keeps every bit, or says that it did not; what fails is not used."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from layoutx.plan import blas, strided, tiles

Array = np.ndarray


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Whatever a test finds out about the library is forgotten."""
    blas.transpose.cache_clear()
    yield
    blas.transpose.cache_clear()


def there() -> blas.Transpose:
    found = blas.transpose()
    if found is None:
        pytest.skip("this NumPy brings no OpenBLAS along")
    return found


def turned(call: blas.Transpose, of: Array, gap: int = 3) -> tuple[bool, Array]:
    """The target of a turned matrix with all that lies around it, and whether every bit was kept."""
    to = np.full((of.shape[1] + 1, of.shape[0] + gap), 0xA5A5A5A5, "u4")
    kept = call(*of.shape, of.ctypes.data, of.strides[0] // 4, to.ctypes.data, to.strides[0] // 4)
    return kept, to


def numbers(shape: tuple[int, int], seed: int = 0) -> Array:
    """Random numbers, and each kind of number that is kept."""
    rng = np.random.default_rng(seed)
    found = rng.standard_normal(shape).astype("f4").view("u4")
    where = rng.random(shape) < 0.3
    found[where] = rng.choice(np.array(blas.KEPT, "u4"), where.sum()) | rng.choice(
        np.array([0, 1 << 31], "u4"), where.sum()
    )
    return found


def test_wheels_of_numpy_bring_it_along() -> None:
    """CI installs NumPy's wheels: without this, all that is below would be skipped in silence."""
    if not (Path(np.__file__).parent.parent / "numpy.libs").is_dir():
        pytest.skip("no wheel of NumPy for Linux")
    assert blas.transpose() is not None


def test_every_small_size() -> None:
    call = there()
    for rows, columns in product(range(1, 41), range(1, 41)):
        of = numbers((rows, columns + 2), rows)[:, :columns]
        kept, to = turned(call, of)
        assert kept
        assert np.array_equal(to[:columns, :rows], of.T), (rows, columns)
        to[:columns, :rows] = 0xA5A5A5A5
        assert (to == 0xA5A5A5A5).all(), (rows, columns)


@pytest.mark.parametrize("shape", [(1031, 769), (512, 2048), (3, 70001), (70001, 3)])
def test_large_matrices(shape: tuple[int, int]) -> None:
    of = numbers(shape)
    kept, to = turned(there(), of)
    assert kept
    assert np.array_equal(to[: shape[1], : shape[0]], of.T)


def test_a_signalling_nan_is_told_wherever_it_lies() -> None:
    call = there()
    for bits in (blas.SIGNALLING, 0x7FBFFFFF, 0xFF800001, 0xFFA00000):
        for place in np.ndindex(37, 21):
            of = np.ones((37, 21), "u4")
            of[place] = bits
            assert not turned(call, of)[0], (hex(bits), place)
            of[place] = bits | 0x400000  # quiet
            kept, to = turned(call, of)
            assert kept
            assert to[place[::-1]] == of[place]


def test_one_word_is_not_kept_for_the_next_call() -> None:
    call = there()
    of = np.full((8, 8), blas.SIGNALLING, "u4")
    assert not turned(call, of)[0]
    of[...] = 1
    assert turned(call, of)[0]


def test_a_processor_that_flushes_subnormals_is_seen() -> None:
    """torch can be told to; then NumPy copies, which looks at no number."""
    torch = pytest.importorskip("torch")
    there()
    assert not blas.flushes()
    of = numbers((512, 384)).T
    to = np.zeros(of.shape, of.dtype)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot")
    try:
        assert blas.flushes()
        strided.copy(to, of)
        blas.transpose.cache_clear()
        assert blas.transpose() is None
    finally:
        torch.set_flush_denormal(False)
    assert np.array_equal(to, of)
    assert ((of & 0x7F800000 == 0) & (of & 0x7FFFFF != 0)).any()


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda *_: True, id="writes nothing"),
        pytest.param(lambda *w: there()(*w) or True, id="never tells"),
        pytest.param(lambda *w: there()(*w) and False, id="always complains"),
        pytest.param(lambda r, c, a, p, b, q: there()(r, c + 1, a, p, b, q), id="writes beside it"),
        pytest.param(lambda r, c, a, p, b, q: there()(r, c - (c > 36), a, p, b, q), id="leaves an edge out"),
    ],
)
def test_one_that_fails_is_not_used(wrong: blas.Transpose, monkeypatch: pytest.MonkeyPatch) -> None:
    there()
    assert not blas._proves_itself(wrong)
    blas.transpose.cache_clear()
    monkeypatch.setattr(blas, "_proves_itself", lambda call: False)
    assert blas.transpose() is None


def test_where_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No library, a file that is none, one without the function, another machine: NumPy copies."""
    other = tmp_path / "libopenblas.so"
    other.write_bytes(b"no library")
    import _ctypes

    for files in ([], [other], [Path(_ctypes.__file__)]):
        with monkeypatch.context() as patch:
            patch.setattr(blas, "_files", lambda files=files: files)
            blas.transpose.cache_clear()
            assert blas.transpose() is None
            of = numbers((512, 384)).T
            to = np.zeros(of.shape, of.dtype)
            assert strided.turn(to, of) is None
            strided.copy(to, of)
            assert np.array_equal(to, of)
            assert strided.is_plain(to, of) == (tiles.way(to.shape, to.strides, of.strides, 4).name == "plain")
    monkeypatch.setattr(blas, "MACHINES", set())
    blas.transpose.cache_clear()
    assert blas.transpose() is None
