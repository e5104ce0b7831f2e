"""Tensors that are cut into blocks of columns before their numbers lie where a layout says: those of CuDNN layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from layoutx.spec.bound import BoundTensor

Array = np.ndarray[Any, Any]


def memory(tensor: BoundTensor, array: Array) -> Array:
    """A stored array as the flat memory that its places count: as it is, or its blocks end to end, row by row."""
    if tensor.cut is not None:
        array = array.reshape(tensor.cut).transpose(1, 0, 2)
    return np.ascontiguousarray(array).reshape(-1)


def settle(tensor: BoundTensor, array: Array) -> None:
    """Turn an array of the stored shape, whose memory was written block after block, into what is stored; in place."""
    if tensor.cut is not None:
        rows, blocks, columns = tensor.cut
        stored = array.reshape(blocks, rows, columns).transpose(1, 0, 2).reshape(array.shape)
        array[...] = stored.copy()
