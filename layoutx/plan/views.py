"""Strided views of flat memory, and memory as plain bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_BITS: dict[int, np.dtype[Any]] = {n: np.dtype(f"u{n}") for n in (1, 2, 4, 8)}


def view(flat: Array, offset: int, loops: Iterable[tuple[int, int]]) -> Array:
    """A strided view of a flat C-contiguous array; NumPy itself checks its bounds.

    Args:
        offset: index of the first element.
        loops: (length, step in elements) pairs, outermost first; steps may be negative.
    """
    pairs = tuple(loops)
    shape = tuple(size for size, _ in pairs)
    width = flat.dtype.itemsize
    if 0 in shape:
        return np.empty(shape, flat.dtype)
    return np.ndarray(shape, flat.dtype, flat, offset * width, tuple(step * width for _, step in pairs))


def bits(array: Array) -> Array:
    """The same memory as unsigned integers of the same width (raw bytes for other widths)."""
    return array.view(unit(array.dtype.itemsize))


def unit(width: int) -> np.dtype[Any]:
    """What elements of so many bytes are moved as."""
    return _BITS.get(width) or np.dtype(f"V{width}")
