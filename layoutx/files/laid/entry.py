"""An entry: the name, dtype and shape of a tensor that an output will hold."""

from __future__ import annotations

import math

from layoutx.files.dtypes import DType
from layoutx.frozen import frozen


@frozen
class Entry:
    """One tensor of an output, whose numbers may not be known yet.

    It is stored in native (little-endian) byte order, C-contiguous.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Number of bytes."""
        return math.prod(self.shape) * self.dtype.itemsize
