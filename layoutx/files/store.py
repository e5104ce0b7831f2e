"""A store: the tensors of one file, lazily. Names, dtypes and shapes now, bytes on demand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.empty import NOTHING as NOTHING
from layoutx.frozen import frozen


@frozen
class Tensor:
    """One stored tensor: its bytes are read each time `read()` is called, and are never kept.

    `derived` says how its values are computed, where the file does not hold them themselves, and `intact` that this
    only puts numbers elsewhere. `part` says which stored tensor it is one layer of, where that holds many.
    `read()` gives a C-contiguous array of `dtype` and `shape`; it may be a read-only view of a map. Where it is
    `mapped`, it always is one: reading costs no memory, and the tensor can be given to another process.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray[Any, Any]] = field(compare=False, repr=False)
    derived: str = ""
    mapped: bool = field(default=False, compare=False)
    part: Part | None = field(default=None, compare=False)
    intact: bool = field(default=False, compare=False)

    @property
    def rounded(self) -> bool:
        """Whether its values are computed so that the stored numbers cannot be had from them, bit for bit."""
        return bool(self.derived) and not self.intact

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return self.size * self.dtype.itemsize


@frozen
class Part:
    """What one layer has of a stored tensor that holds several.

    One index of an axis: `kernel[3]` of a stack of blocks, which lacks that axis. Or, with a `stop`, the run from
    `index` to it in each of an axis' equal `groups`: the rows of the queries, head after head, of a packed qkv.
    """

    whole: Tensor
    axis: int
    index: int
    stop: int | None = None
    groups: int = 1

    def of(self, array: Any) -> Any:
        """The part as a view of an array of the whole's shape (of NumPy or torch), its groups an axis of their own."""
        before = (slice(None),) * self.axis
        if self.stop is None:
            return array[(*before, self.index)]
        shape = tuple(array.shape)
        split = array.reshape(*shape[: self.axis], self.groups, -1, *shape[self.axis + 1 :])
        return split[(*before, slice(None), slice(self.index, self.stop))]


def tensor_of(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor that is already in memory."""
    return Tensor(name, array.dtype, array.shape, lambda: array)


@frozen
class Store:
    """What one file holds.

    Attributes:
        path: the file (the index file, where a checkpoint is sharded).
        format: `keras`, `weights.h5`, `h5`, `safetensors`, `torch`, `npz`; `live` for a model in memory.
        tensors: name -> tensor, in the file's own order. Keras files use the path inside the HDF5 file.
        metadata: the file's text metadata; the key `layoutx` holds a certificate.
        config: the Keras model config as parsed JSON, where the file has one.
        version: the Keras version that wrote the file ("2.2.4-tf"), "" where the file does not say.
        backend: the Keras backend that wrote the file ("tensorflow", "theano"), "" where unknown.
        groups: legacy `.h5` only: layer name -> its tensor names, in `weight_names` order.
        state: of the file before it was opened, see `steady`; "" where it is none.
        shards: further files that tensors are read from, with their states, where these do not say so themselves.
    """

    path: Path
    format: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = NOTHING
    config: Mapping[str, Any] | None = None
    version: str = ""
    backend: str = ""
    groups: Mapping[str, tuple[str, ...]] = NOTHING
    state: str = ""
    shards: tuple[tuple[Path, str], ...] = ()
