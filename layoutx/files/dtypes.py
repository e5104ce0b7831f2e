"""Dtypes as files spell them: byte order, bfloat16 and float8, and an array's bits."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import numpy as np

from layoutx.errors import UsageError
from layoutx.spec.dtypes import is_numeric as is_numeric

Array = np.ndarray[Any, Any]
DType = np.dtype[Any]

EXTRA = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")


def named(name: str) -> DType | None:
    """The NumPy dtype of a name such as `float32` or `bfloat16`; None where there is none."""
    if name in EXTRA:
        import ml_dtypes

        return cast(DType, np.dtype(getattr(ml_dtypes, name)))
    try:
        return np.dtype(name)
    except (TypeError, ValueError, SyntaxError):
        return None


def is_extra(dtype: DType) -> bool:
    """Whether NumPy itself does not know the dtype (`ml_dtypes`), so that `.npy` and HDF5 lose its name."""
    return dtype.isbuiltin == 2


@lru_cache(256)
def native(dtype: DType) -> DType:
    """The same dtype in this machine's byte order."""
    return dtype if is_extra(dtype) else dtype.newbyteorder("=")


def settled(array: Array) -> Array:
    """The same numbers, C-contiguous and in native byte order; copies only where it must.

    Bytes are swapped as bytes, so NaN payloads stay. `np.ascontiguousarray` is avoided: it turns 0-d into 1-d.
    """
    array = np.asarray(array, order="C")
    wanted = native(array.dtype)
    return array if array.dtype == wanted else array.byteswap().view(wanted)


def bits(array: Array) -> Array:
    """The bytes of a C-contiguous array as flat uint8, without a copy."""
    return array.reshape(-1).view(np.uint8)


def storable(name: str, array: Array) -> UsageError | None:
    """The complaint about an array that no weights file can hold."""
    if is_numeric(array.dtype):
        return None
    return UsageError(
        f"the array '{name}' does not hold numbers",
        where=f"dtype {array.dtype}",
        do="leave it out, or turn it into a numeric array",
    )
