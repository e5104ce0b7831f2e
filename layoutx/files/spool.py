"""Data that cannot be mapped where it lies, unpacked into a file without a name and mapped there.

Compressed and chunked data is unpacked a few MiB at a time, so that it takes room on the disk and none in memory
however large the tensor is. The file has no name from its first moment on: its space is given back when the last view
of it goes, or the process ends, in whatever way.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from layoutx.errors import FileError
from layoutx.files import dtypes
from layoutx.files.dtypes import Array, native
from layoutx.files.guarded import broken, check_since, guarded
from layoutx.files.room import take_room

if TYPE_CHECKING:
    import zipfile

LARGE = 32 << 20  # bytes; what is smaller is unpacked in memory
SLAB = 8 << 20
PIECE = 1 << 20  # packed bytes read at a time

_folders: list[Path] = []  # innermost last; of all threads


@contextmanager
def spooling(folder: Path) -> Iterator[None]:
    """Unpack into this folder inside the block, in all threads: the output's, where there has to be room anyway.

    The environment's TMPDIR goes before it; without both it is the system's folder for temporary files.
    """
    own = Path(folder)
    _folders.append(own)
    try:
        yield
    finally:
        _folders[:] = [one for one in _folders if one is not own]  # others may have begun since


def room(nbytes: int, of: Path) -> Array:
    """Flat bytes in a file without a name, to be filled; `of` is the file whose data they will hold.

    The space is taken before anything is written, where the file system can: see `guarded` for where it cannot.

    Raises:
        FileError: there is no such space.
    """
    import tempfile

    named = os.environ.get("TMPDIR") or not _folders
    folder = tempfile.gettempdir() if named else str(_folders[-1])
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(nbytes)
            take_room(file.fileno(), nbytes)
            return np.frombuffer(guarded(file.fileno(), of, nbytes), np.uint8)
    except (OSError, ValueError, OverflowError) as error:
        raise FileError(
            f"there is no room to unpack {of.name}",
            where=f"{folder}, {nbytes:,} bytes",
            why=f"its data is compressed or chunked, and is unpacked into a temporary file: {error}",
            do="make room, or name a folder with room in TMPDIR",
        ) from error


def unpacked(info: zipfile.ZipInfo, of: Path, start: int) -> memoryview:
    """The bytes of a deflated zip member whose packed bytes begin at `start`; never more than it says it has.

    zipfile would unpack up to 2 GiB at once of a member that says it is small.

    Raises:
        FileError: there is no room for them, or they are more, less or others than the directory says.
        zlib.error: they are damaged.
    """
    made = np.empty(info.file_size, np.uint8) if info.file_size <= LARGE else room(info.file_size, of)
    at, checksum, began = 0, 0, broken()
    inflater, left = zlib.decompressobj(-zlib.MAX_WBITS), info.compress_size
    with of.open("rb") as file:
        file.seek(start)
        while not inflater.eof and at <= info.file_size:
            check_since(began)
            packed = inflater.unconsumed_tail or file.read(min(left, PIECE))
            left -= 0 if inflater.unconsumed_tail else len(packed)
            piece = inflater.decompress(packed, SLAB)
            if not packed and not piece:
                break
            checksum, end = zlib.crc32(piece, checksum), at + len(piece)
            if end <= info.file_size:
                made[at:end] = np.frombuffer(piece, np.uint8)
            at = end
    if at != info.file_size or not inflater.eof or left or inflater.unused_data or checksum != info.CRC:
        why = "its bytes are more, less or others than the directory of the archive says"
        where = f"{of}, member {info.filename}"
        raise FileError(
            f"cannot read {of.name}, it is damaged", where=where, why=why, do="copy or download the file again"
        )
    made.flags.writeable = False
    return made.data


def space(nbytes: int, of: Path) -> Array:
    """Flat bytes to be filled: in memory, or where they are many, on the disk.

    Raises:
        FileError: as `room`.
    """
    return room(nbytes, of) if nbytes > LARGE else np.empty(nbytes, np.uint8)


def boxes(shape: Sequence[int], chunks: Sequence[int], itemsize: int, most: int = SLAB) -> Iterator[tuple[slice, ...]]:
    """Boxes of whole chunks, at most `most` bytes each unless a single chunk is larger, that fill a shape.

    Whole chunks: one that does not fit into HDF5's cache would be unpacked again for each box that cuts it.
    """
    box = [min(size, chunk) for size, chunk in zip(shape, chunks, strict=True)]
    for axis in reversed(range(len(shape))):
        times = max(1, most // (prod(box) * itemsize))
        box[axis] = min(shape[axis], times * chunks[axis])
        if box[axis] < shape[axis]:
            break
    ranges = (range(0, size, step) for size, step in zip(shape, box, strict=True))
    for corner in product(*ranges):
        yield tuple(slice(at, min(at + step, n)) for at, step, n in zip(corner, box, shape, strict=True))


def settled(array: Array, of: Path) -> Array:
    """`dtypes.settled`, a large array that has to be turned or swapped for it being kept on the disk.

    Raises:
        FileError: there is no room for it.
    """
    wanted = native(array.dtype)
    if array.nbytes <= LARGE or (array.flags.c_contiguous and array.dtype == wanted):
        return dtypes.settled(array)
    made = room(array.nbytes, of).view(wanted).reshape(array.shape)
    if array.dtype == wanted:
        word = f"V{array.itemsize}" if array.itemsize > 8 else f"u{array.itemsize}"
        from layoutx.plan.strided import copy

        copy(made.view(word), array.view(word))
    else:
        np.copyto(made, array)
    made.flags.writeable = False
    return made
