"""Arrays that careless writers change, and a comparison that sees every bit."""

from __future__ import annotations

import numpy as np


def tricky_arrays() -> dict[str, np.ndarray]:
    """Arrays that careless writers change: odd names, shapes, orders, NaN payloads, every width."""
    import ml_dtypes

    rng = np.random.default_rng(7)
    payload = np.array([0x7FC12345, 0xFFA00001, 0x80000000, 0x00000001], np.uint32).view(np.float32)
    return {
        "z.last/first": rng.normal(size=(3, 5)).astype(np.float32),
        "a": payload,
        "scalar": np.array(-0.0, np.float64),
        "empty": np.zeros((0, 7), np.float16),
        "turned": rng.normal(size=(5, 7)).T,
        "fortran": np.asfortranarray(rng.normal(size=(2, 3, 5)).astype(np.float32)),
        "big": rng.normal(size=(11,)).astype(">f8"),
        "sliced": rng.normal(size=(13, 4))[::3, 1:3],
        "count": np.array(17, np.int64),
        "flags": np.array([True, False, True]),
        "bytes": np.arange(7, dtype=np.uint8),
        "brain": rng.normal(size=(3, 2)).astype(ml_dtypes.bfloat16),
        "brain0": np.array(1.5, ml_dtypes.bfloat16),
        "eight": rng.normal(size=(5,)).astype(ml_dtypes.float8_e4m3fn),
        "eight5": rng.normal(size=(3,)).astype(ml_dtypes.float8_e5m2),
        "complex": (rng.normal(size=3) + 2j).astype(np.complex64),
        "snö ☃": np.arange(3, dtype=np.int16),
    }


def same_bits(got: np.ndarray, want: np.ndarray) -> None:
    """Raise unless two arrays are the same bytes of the same dtype and shape."""
    want = np.asarray(want, order="C")
    want = want.byteswap().view(want.dtype.newbyteorder("=")) if want.dtype.byteorder == ">" else want
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert got.tobytes() == want.tobytes()
    assert got.flags.c_contiguous
