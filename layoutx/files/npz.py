"""NumPy `.npz`: members read in place where they are stored, never unpickled."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from layoutx.errors import FileError, UsageError
from layoutx.files.blob import DO_AGAIN, Blob, array_at, member, reading, stored
from layoutx.files.dtypes import Array, DType, is_extra, is_numeric, named, native
from layoutx.files.notes import MEMBER, from_text, to_text
from layoutx.files.store import Store, Tensor

COMMENT_LIMIT = 65535  # the zip format's own
HEAD = 70_000  # more than the longest header of a version 1 or 2 array of numbers
DTYPE = "dtype:"  # .npy writes bfloat16 as bare bytes; this note keeps the name


def read_npz(path: Path) -> Store:
    """An `.npz` file in the order of its members; a compressed member is unpacked each time it is read.

    Raises:
        FileError: an array of objects or records, an unnamed 2-byte dtype, a damaged file.
    """
    with reading(path, "npz"), zipfile.ZipFile(path) as archive:
        notes = from_text(archive.comment)
        if MEMBER in archive.namelist():
            notes |= from_text(archive.read(MEMBER))
        tensors: dict[str, Tensor] = {}
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                name = info.filename.removesuffix(".npy")
                if name in tensors:
                    raise FileError(f"{path.name} holds '{name}' twice", where=str(path))
                tensors[name] = _tensor(archive, info, path, notes.get(DTYPE + name, ""))
        metadata = {key: value for key, value in notes.items() if not key.startswith(DTYPE)}
        return Store(path, "npz", tensors, metadata)


def write_npz(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write C-contiguous arrays, uncompressed; metadata goes to the zip comment, or a member where it is too long.

    Raises:
        UsageError: a name that a zip member cannot have.
    """
    notes = {**metadata, **{DTYPE + name: array.dtype.name for name, array in arrays.items() if is_extra(array.dtype)}}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            if "\0" in name or f"{name}.npy" == MEMBER:
                raise UsageError(f"a zip member cannot be called {name!r}", do="choose another format")
            plain = array.view(f"V{array.dtype.itemsize}") if is_extra(array.dtype) else array
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, plain, allow_pickle=False)
        text = to_text(notes).encode() if notes else b""
        if len(text) <= COMMENT_LIMIT:
            archive.comment = text
        else:
            archive.writestr(MEMBER, text)


def _tensor(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, label: str) -> Tensor:
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as file:
        shape, fortran, dtype, start = _head(file.read(HEAD), path, name)
    if dtype.kind == "V" and dtype.names is None and label:
        dtype = named(label) or dtype
    if dtype.hasobject or not is_numeric(dtype):
        why = "it would have to be unpickled" if dtype.hasobject else "np.save keeps no name for bfloat16 and the like"
        raise FileError(
            f"{path.name}: '{name}' does not hold plain numbers",
            where=f"{path}, dtype {dtype}",
            why=why,
            do="save it again as a numeric array",
        )
    if start + math.prod(shape) * dtype.itemsize != info.file_size:
        raise FileError(f"{path.name}: '{name}' has not the size of its shape", where=str(path), do=DO_AGAIN)
    order = "F" if fortran else "C"
    if info.compress_type == zipfile.ZIP_STORED:
        return stored(name, member(archive, info, path), start, dtype, shape, order)
    return Tensor(name, native(dtype), shape, lambda: array_at(_unpacked(path, info), start, dtype, shape, order))


def _unpacked(path: Path, info: zipfile.ZipInfo) -> Blob:
    with reading(path, "npz"), zipfile.ZipFile(path) as archive:
        return member(archive, info, path)


def _head(begin: bytes, path: Path, name: str) -> tuple[tuple[int, ...], bool, DType, int]:
    """Shape, Fortran order, dtype, and where the numbers begin."""
    file = io.BytesIO(begin)
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise FileError(
            f"{path.name}: '{name}' is .npy version {version}",
            where=str(path),
            why="versions 1 and 2 hold all arrays of numbers",
        )
    shape, fortran, dtype = readers[version](file)
    return tuple(int(n) for n in shape), bool(fortran), dtype, file.tell()
