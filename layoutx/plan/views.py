"""Strided views of flat memory, and memory as plain bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


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
    width = array.dtype.itemsize
    return array.view(_BITS.get(width, np.dtype(f"V{width}")))
