"""What a script by hand does with one tensor, in NumPy: transposed and made contiguous; and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def moved(entry: Mapping[str, Any], parts: Sequence[Array]) -> Array:
    """The torch tensor of an entry of the plan, from the Keras arrays that it is made of."""
    how = entry["how"]
    if how == "matrix":
        return np.ascontiguousarray(parts[0].T)
    if how == "conv":
        return np.ascontiguousarray(np.transpose(parts[0], (3, 2, 0, 1)))
    if how == "fused":
        return np.ascontiguousarray(np.concatenate([part.reshape(part.shape[0], -1).T for part in parts]))
    if how == "fused bias":
        return np.concatenate([part.reshape(-1) for part in parts])
    if how == "heads":
        return np.ascontiguousarray(parts[0].reshape(-1, parts[0].shape[-1]).T)
    if how in ("zeros", "count"):
        return np.zeros(entry["shape"], entry["dtype"])
    return parts[0]


def moved_back(entry: Mapping[str, Any], tensor: Array, shapes: Sequence[Sequence[int]]) -> list[Array]:
    """The Keras arrays of an entry, from its torch tensor; `shapes` are theirs."""
    how = entry["how"]
    if how == "matrix":
        return [np.ascontiguousarray(tensor.T)]
    if how == "conv":
        return [np.ascontiguousarray(np.transpose(tensor, (2, 3, 1, 0)))]
    if how == "fused":
        thirds = np.split(tensor, 3)
        return [np.ascontiguousarray(third.T).reshape(shape) for third, shape in zip(thirds, shapes, strict=True)]
    if how == "fused bias":
        return [third.reshape(shape) for third, shape in zip(np.split(tensor, 3), shapes, strict=True)]
    if how == "heads":
        return [np.ascontiguousarray(tensor.T).reshape(shapes[0])]
    return [] if how in ("zeros", "count") else [tensor]
