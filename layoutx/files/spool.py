"""Data that cannot be mapped where it lies, unpacked into a file without a name and mapped there.

Compressed and chunked data is unpacked a few MiB at a time, so that it takes room on the disk and none in memory
however large the tensor is. The file has no name from its first moment on: its space is given back when the last view
of it goes, or the process ends, in whatever way.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import FileError
from layoutx.files import dtypes
from layoutx.files.atomic import take_room
from layoutx.files.dtypes import Array, native
from layoutx.plan.strided import copy

LARGE = 32 << 20  # bytes; what is smaller is unpacked in memory
SLAB = 8 << 20

_folder: Path | None = None


@contextmanager
def spooling(folder: Path) -> Iterator[None]:
    """Unpack into this folder inside the block, in all threads: the output's, where there has to be room anyway.

    The environment's TMPDIR goes before it; without both it is the system's folder for temporary files.
    """
    global _folder
    before, _folder = _folder, folder
    try:
        yield
    finally:
        _folder = before


def room(nbytes: int, of: Path) -> Array:
    """Flat bytes in a file without a name, to be filled; `of` is the file whose data they will hold.

    The space is taken before anything is written: a mapped file that finds its disk full would end the process.

    Raises:
        FileError: there is no such space.
    """
    folder = tempfile.gettempdir() if _folder is None or os.environ.get("TMPDIR") else str(_folder)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(nbytes)
            take_room(file.fileno(), nbytes)
            return np.frombuffer(mmap.mmap(file.fileno(), nbytes), np.uint8)
    except (OSError, ValueError, OverflowError) as error:
        raise FileError(
            f"there is no room to unpack {of.name}",
            where=f"{folder}, {nbytes:,} bytes",
            why=f"its data is compressed or chunked, and is unpacked into a temporary file: {error}",
            do="make room, or name a folder with room in TMPDIR",
        ) from error


def unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, of: Path) -> bytes | memoryview:
    """The bytes of a compressed zip member.

    Raises:
        FileError: there is no room for them, or the member ends too soon.
        zipfile.BadZipFile: it is damaged; zlib, bz2 and lzma have errors of their own.
    """
    if info.file_size <= LARGE:
        return archive.read(info)
    made = room(info.file_size, of)
    at = 0
    with archive.open(info) as file:
        while piece := file.read(SLAB):  # to its very end, where the checksum is compared
            made[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)
    if at != info.file_size:
        raise FileError(f"{of.name} is truncated", where=f"{of}, member {info.filename}", why=f"it ends at byte {at}")
    return made.data.toreadonly()


def dataset(stored: Any, of: Path) -> Array:
    """All numbers of an HDF5 dataset; a large one in native byte order, whatever the file's.

    Raises:
        FileError: there is no room for them.
        OSError: h5py's, where the dataset is damaged or its compression unknown.
    """
    if stored.nbytes <= LARGE:
        return np.asarray(stored[()])
    made = room(stored.nbytes, of).view(native(stored.dtype)).reshape(stored.shape)
    for box in boxes(stored.shape, stored.chunks or (1,) * stored.ndim, stored.dtype.itemsize):
        stored.read_direct(made, box, box)  # libhdf5 unpacks a chunk and puts it in its place
    made.flags.writeable = False
    return made


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
        copy(made.view(word), array.view(word))
    else:
        np.copyto(made, array)
    made.flags.writeable = False
    return made
