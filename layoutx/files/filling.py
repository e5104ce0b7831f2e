"""An array that is filled box by box, from parts that come one after the other."""

from __future__ import annotations

import numpy as np

from layoutx.errors import FileError
from layoutx.files import spool
from layoutx.files.blob import DO_AGAIN, Blob
from layoutx.files.dtypes import Array


class Filling:
    """An array that is filled box by box, each box from one or several parts."""

    def __init__(self, made: Array, boxes: list[tuple[slice, ...]], blob: Blob) -> None:
        self._made, self._boxes, self._blob = made, boxes[::-1], blob
        self._at, self._bytes, self._scratch = 0, np.empty(0, np.uint8), np.empty(0, np.uint8)

    def take(self, part: bytearray) -> None:
        """The next bytes of a box; ValueError where they are more than it has."""
        if not self._at:
            view = self._made[self._boxes[-1]]
            if view.flags.c_contiguous:
                self._bytes = view.reshape(-1).view(np.uint8)
            else:
                if len(self._scratch) < view.nbytes:
                    small = view.nbytes <= max(spool.LARGE, spool.SLAB)  # else it is a single chunk
                    self._scratch = (
                        np.empty(view.nbytes, np.uint8) if small else spool.room(view.nbytes, self._blob.path)
                    )
                self._bytes = self._scratch[: view.nbytes]
        self._bytes[self._at : self._at + len(part)] = np.frombuffer(part, np.uint8)
        self._at += len(part)
        if self._at == len(self._bytes):
            view = self._made[self._boxes.pop()]
            if not view.flags.c_contiguous:
                view[...] = self._bytes.view(view.dtype).reshape(view.shape)
            self._at = 0

    def done(self) -> None:
        """FileError where anything is missing."""
        if self._boxes or self._at:
            raise FileError(f"{self._blob.path.name} is truncated", where=str(self._blob.path), do=DO_AGAIN)
