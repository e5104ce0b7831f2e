"""A sparse file in memory: only the pages that were written take room, all others are zeros."""

from __future__ import annotations

import io
from typing import Any

PAGE = 4096


class Sparse(io.RawIOBase):
    """A file object of any length for h5py, which writes an HDF5 file's structure here and none of its numbers.

    libhdf5 1.14 crashes the process at its exit when a disk fills up under it; here no disk is under it.
    """

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._at = self.size = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def truncate(self, size: int | None = None) -> int:
        self.size = self._at if size is None else size
        self._pages = {page: data for page, data in self._pages.items() if page * PAGE < self.size}
        last, at = divmod(self.size, PAGE)
        if last in self._pages:
            self._pages[last][at:] = bytes(PAGE - at)
        return self.size

    def write(self, data: Any) -> int:
        bytes_ = memoryview(data).cast("B")
        done, count = 0, len(bytes_)
        while done < count:
            page, at = divmod(self._at + done, PAGE)
            step = min(PAGE - at, count - done)
            held = self._pages.get(page)
            if held is None:
                held = self._pages[page] = bytearray(PAGE)
            held[at : at + step] = bytes_[done : done + step]
            done += step
        self._at += count
        if count:
            self.size = max(self.size, self._at)
        return count

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self.size - self._at))
        buffer[:count] = self.part(self._at, count)
        self._at += count
        return count

    def part(self, begin: int, size: int) -> bytes:
        """`size` bytes from `begin` on."""
        first, at = divmod(begin, PAGE)
        empty = bytes(PAGE)
        pages = (self._pages.get(page, empty) for page in range(first, -(-(begin + size) // PAGE)))
        return b"".join(pages)[at : at + size]
