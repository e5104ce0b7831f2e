"""A blob: a run of bytes inside a file, read in place through a memory map, with every failure a FileError."""

from __future__ import annotations

import io
import math
import mmap
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any
from weakref import WeakValueDictionary

import numpy as np

from layoutx.errors import FileError, LayoutxError
from layoutx.files import spool
from layoutx.files.dtypes import Array, DType, native, settled
from layoutx.files.remote import fetched, size_of, url_of
from layoutx.files.store import Tensor

DO_AGAIN = "copy or download the file again, or save it again"


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn whatever goes wrong while a file is read into a FileError; errors of layoutx pass."""
    try:
        yield
    except LayoutxError:
        raise
    except Exception as error:  # a damaged file makes h5py, zipfile, json and torch raise nearly every type there is
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        raise FileError(f"cannot read {path.name} as {what}", where=str(path), why=said, do=DO_AGAIN) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failed write (a full disk, h5py's many errors) into a FileError; errors of layoutx pass."""
    try:
        yield
    except LayoutxError:
        raise
    except Exception as error:  # as in `reading`
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        raise FileError(
            f"cannot write {path.name}", where=str(path), why=said, do="make room, or choose another folder"
        ) from error


@dataclass(frozen=True, slots=True)
class Blob:
    """`size` bytes of `path` from `offset` on; `packed` holds them where the file has them compressed."""

    path: Path
    offset: int
    size: int
    packed: bytes | memoryview | None = None


def whole(path: Path) -> Blob:
    """The blob that is the whole file."""
    return Blob(path, 0, size_of(path))


def member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Blob:
    """A zip member: in place where it is stored, unpacked where it is compressed.

    Raises:
        FileError: the member is encrypted, or lies outside the file.
    """
    if info.flag_bits & 1:
        raise FileError(f"{path.name} is encrypted", where=f"{path}, member {info.filename}", do="decrypt it first")
    if info.compress_type != zipfile.ZIP_STORED:
        return Blob(path, 0, info.file_size, spool.unpacked(archive, info, path))
    with path.open("rb") as file:
        file.seek(info.header_offset)
        head = file.read(30)
        size = file.seek(0, io.SEEK_END)
    # The local header's own lengths count: its extra field may differ from the one in the directory.
    start = info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    if head[:4] != b"PK\x03\x04" or len(head) < 30 or start + info.file_size > size:
        raise FileError(
            f"{path.name} is damaged",
            where=f"{path}, member {info.filename}",
            why="its zip directory points outside the file",
            do=DO_AGAIN,
        )
    return Blob(path, start, info.file_size)


def array_at(blob: Blob, offset: int, dtype: DType, shape: tuple[int, ...], order: Any = "C") -> Array:
    """The array stored at `offset` in a blob, native and C-contiguous: a read-only view where it can be.

    A view may be misaligned, since a zip puts its members anywhere; NumPy copes, other libraries may not.

    Raises:
        FileError: the array reaches past the blob or the file.
    """
    count = math.prod(shape)
    nbytes = count * dtype.itemsize
    if offset < 0 or offset + nbytes > blob.size:
        raise FileError(
            f"{blob.path.name} is truncated",
            where=str(blob.path),
            why=f"an array ends at byte {offset + nbytes} of {blob.size}",
            do=DO_AGAIN,
        )
    if not count:
        with reading(blob.path, "arrays"):  # NumPy refuses forged dimensions of empty arrays too
            return settled(np.empty(shape, dtype))
    if blob.packed is not None:
        raw = np.frombuffer(blob.packed, np.uint8, nbytes, offset)
    elif url_of(blob.path) is not None:
        made = spool.room(nbytes, blob.path) if nbytes > spool.LARGE else np.empty(nbytes, np.uint8)
        raw = fetched(blob.path, blob.offset + offset, made)
    else:
        with reading(blob.path, "the file it was a moment ago"):
            raw = np.frombuffer(mapped(blob.path), np.uint8, nbytes, blob.offset + offset)
    return spool.settled(raw.view(dtype).reshape(shape, order=order), blob.path)


def stored(name: str, blob: Blob, offset: int, dtype: DType, shape: tuple[int, ...], order: Any = "C") -> Tensor:
    """The tensor stored at `offset` in a blob, with the byte order of `dtype` there; read by `array_at`."""
    plain = blob.packed is None and order == "C" and dtype == native(dtype) and url_of(blob.path) is None
    read = partial(array_at, blob, offset, dtype, shape, order)
    return Tensor(name, native(dtype), shape, read, mapped=plain)


def origin(tensor: Tensor) -> Path | None:
    """The file that every process can read a tensor from; None for what is in memory, or was unpacked here."""
    blob = blob_of(tensor)
    return None if blob is None or blob.packed is not None else blob.path


def blob_of(tensor: Tensor) -> Blob | None:
    """The blob that a tensor is read from; None for what is in memory."""
    args = getattr(tensor.read, "args", ())
    return args[0] if args and isinstance(args[0], Blob) else None


_MAPS: WeakValueDictionary[tuple[str, int, int, int], mmap.mmap] = WeakValueDictionary()


_HELD: list[dict[Path, mmap.mmap]] = []  # innermost last; of all threads


@contextmanager
def holding() -> Iterator[None]:
    """Keep every map that is made inside: ten thousand small tensors of a file then open it once."""
    own: dict[Path, mmap.mmap] = {}
    _HELD.append(own)
    try:
        yield
    finally:
        _HELD[:] = [one for one in _HELD if one is not own]


def mapped(path: Path) -> mmap.mmap:
    """The whole file as one read-only map, the same one as long as anybody holds it and the file is the same."""
    for own in reversed(_HELD):
        if (held := own.get(path)) is not None:
            return held
    found = _mapped(path)
    if _HELD:
        _HELD[-1][path] = found
    return found


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        key = (str(path), about.st_ino, about.st_size, about.st_mtime_ns)
        found = _MAPS.get(key)
        if found is None:
            found = _MAPS[key] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return found


def stream(blob: Blob) -> IO[bytes] | str:
    """What h5py opens: the path itself, or a file object over the blob."""
    if blob.offset == 0 and blob.packed is None:
        return str(blob.path)
    return io.BufferedReader(_Window(blob))


class _Window(io.RawIOBase):
    """A read-only file over one part of another file, or over what was unpacked."""

    def __init__(self, blob: Blob) -> None:
        self._map = mapped(blob.path) if blob.packed is None else blob.packed
        self._start, self._size, self._at = blob.offset, blob.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._size - self._at))
        begin = self._start + self._at
        buffer[:count] = self._map[begin : begin + count]
        self._at += count
        return count
