"""An HDF5 file opened, and the numbers of a dataset box by box: this runs in a process that may die (`isolated`)."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from layoutx.errors import FileError
from layoutx.files.apart import Lent
from layoutx.files.dtypes import native
from layoutx.files.spool import boxes

CACHE = 1 << 20  # bytes of HDF5's own metadata cache: 10,000 weights otherwise filled 80 MB of it, and took longer
# filters whose sizes are known: libhdf5's own but the lossy ones; whatever else there is was asked for by nobody
KNOWN = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
BLOCK, BLOCKS = 1 << 16, 64  # bytes and number of the pieces of an inner file that are kept


class _Inner(io.RawIOBase):
    """A read-only file over a part of another, or over bytes that the asking process holds."""

    def __init__(self, path: str, offset: int, size: int, lent: Lent | None) -> None:
        self._file = None if lent else open(path, "rb", buffering=0)  # noqa: SIM115 - closed with the process' answer
        self._lent, self._offset, self._size, self._at = lent, offset, size, 0
        self._block = lru_cache(BLOCKS)(self._part)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._size - self._at))
        done = 0
        while done < count:
            number, begin = divmod(self._at + done, BLOCK)
            piece = self._block(number)[begin : begin + count - done]
            if not piece:
                break
            view[done : done + len(piece)] = piece
            done += len(piece)
        self._at += done
        return done

    def _part(self, number: int) -> bytes:
        offset = number * BLOCK
        size = min(BLOCK, self._size - offset)
        if self._lent:
            return self._lent(offset, size)
        assert self._file is not None
        self._file.seek(self._offset + offset)
        return self._file.read(size) or b""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


def opened(lent: Lent | None, path: str, offset: int, size: int) -> h5py.File:
    """The HDF5 file of `size` bytes at an offset of another file, or in lent bytes; the caller closes it."""
    plain = lent is None and offset == 0
    file = h5py.File(path if plain else _Inner(path, offset, size, lent), "r")
    limits = file.id.get_mdc_config()
    limits.incr_mode = limits.flash_incr_mode = limits.decr_mode = 0  # each object is looked at once: nothing to keep
    limits.set_initial_size, limits.initial_size, limits.min_size, limits.max_size = True, CACHE, CACHE, CACHE
    file.id.set_mdc_config(limits)
    return file


def numbers(
    lent: Lent | None, path: str, offset: int, size: int, name: str, shape: Sequence[int], most: int
) -> Iterator[memoryview]:
    """The numbers of a dataset in this machine's byte order: those of each of `spool.boxes`, one after the other.

    Args:
        shape: what the listing said; most: bytes of a box, as for `boxes`.

    Raises:
        FileError: it is another dataset by now.
    """
    with opened(lent, path, offset, size) as file:
        found = h5py.h5d.open(file.id, name.encode())
        how = found.get_create_plist()
        own = how.get_layout() != h5py.h5d.VIRTUAL and how.get_external_count() == 0
        dataset = h5py.Dataset(found)
        if dataset.shape != tuple(shape) or not own:
            raise FileError(f"{Path(path).name} has changed", where=f"{path}, {name}", do="read it again")
        dtype, sizes = native(dataset.dtype), _Sizes(found, how) if dataset.chunks else None
        for box in boxes(dataset.shape, dataset.chunks or (1,) * dataset.ndim, dtype.itemsize, most):
            some = np.empty([part.stop - part.start for part in box], dtype)
            if sizes:
                sizes.check(box, path, name)
            if some.shape == dataset.shape:
                found.read(h5py.h5s.ALL, h5py.h5s.ALL, some)
            else:
                dataset.read_direct(some, box)  # libhdf5 unpacks a chunk and puts it in its place
            flat = some.reshape(-1).view(np.uint8).data
            yield from (flat[at : at + most] for at in range(0, len(flat), most))


class _Sizes:
    """What the chunks of a dataset unpack to, which libhdf5 does not compare with what they should: it would go on
    reading in its memory behind a chunk that is too short."""

    def __init__(self, found: h5py.h5d.DatasetID, how: h5py.h5p.PropDCID) -> None:
        self._found, self._chunk = found, tuple(how.get_chunk())
        filters = [how.get_filter(number) for number in range(how.get_nfilters())]
        self._filters = [code for code, *_ in filters]
        self._size = prod(self._chunk) * found.get_type().get_size()
        self._held: dict[tuple[int, ...], tuple[int, int]] = {}
        self._short = any(
            code == h5py.h5z.FILTER_LZF and values[2:3] != (self._size,) for code, _, values, _ in filters
        )
        if self._filters and KNOWN.issuperset(self._filters):
            found.chunk_iter(self._hold)

    def _hold(self, info: Any) -> None:
        self._held[tuple(info.chunk_offset)] = info.size, info.filter_mask

    def check(self, box: tuple[slice, ...], path: str, name: str) -> None:
        """Refuse a chunk of a box that is too short or too long."""
        if self._short:
            raise self._other(path, name, "its filter makes chunks of another size")
        for place in product(*(range(p.start, p.stop, c) for p, c in zip(box, self._chunk, strict=True))):
            size, mask = self._held.get(place, (None, 0))
            if size is not None and (found := self._unpacked(place, size, mask)) != self._size:
                more = " or more" if found > self._size else ""
                raise self._other(
                    path, f"{name}, chunk {place}", f"it unpacks to {found} bytes{more}, not {self._size}"
                )

    @staticmethod
    def _other(path: str, where: str, why: str) -> FileError:
        do = "copy or download the file again, or save it again"
        return FileError(f"{Path(path).name} is damaged", where=f"{path}, /{where}", why=why, do=do)

    def _unpacked(self, place: tuple[int, ...], size: int, mask: int) -> int:
        for number in reversed(range(len(self._filters))):
            if mask >> number & 1:  # left out where it would have made the chunk larger
                continue
            if self._filters[number] == h5py.h5z.FILTER_FLETCHER32:
                size -= 4
            elif self._filters[number] == h5py.h5z.FILTER_DEFLATE:
                raw = self._found.read_direct_chunk(place)[1]
                return len(zlib.decompressobj().decompress(raw, self._size + 1))
        return size
