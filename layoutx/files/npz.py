"""NumPy `.npz`: members read in place where they are stored, never unpickled."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from layoutx.errors import FileError, UsageError
from layoutx.files import zips
from layoutx.files.blob import DO_AGAIN, Blob, array_at, member, reading, stored
from layoutx.files.dtypes import Array, DType, bits, is_extra, is_numeric, named, native
from layoutx.files.limits import within
from layoutx.files.notes import MEMBER, from_text, to_text
from layoutx.files.store import Store, Tensor
from layoutx.files.written import append_all

COMMENT_LIMIT = 65535  # the zip format's own
HEAD = 10_000  # bytes of a header: NumPy reads no longer literal either, and that of numbers has a hundred
DTYPE = "dtype:"  # .npy writes bfloat16 as bare bytes; this note keeps the name


def read_npz(path: Path) -> Store:
    """An `.npz` file in the order of its members; a compressed member is unpacked each time it is read.

    Raises:
        FileError: an array of objects or records, an unnamed 2-byte dtype, a damaged file.
    """
    with reading(path, "npz"), zips.opened(path) as archive, path.open("rb") as file:
        notes = from_text(archive.comment)
        if MEMBER in archive.namelist():
            notes |= from_text(zips.content(archive, MEMBER, path))
        tensors: dict[str, Tensor] = {}
        for info in archive.infolist():
            if info.filename.endswith(".npy"):
                name = info.filename.removesuffix(".npy")
                if name in tensors:
                    raise FileError(f"{path.name} holds '{name}' twice", where=str(path))
                tensors[name] = _tensor(archive, file, info, path, notes.get(DTYPE + name, ""))
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
            if zips.outside(name) or f"{name}.npy" == MEMBER:
                raise UsageError(f"a zip member cannot be called {name!r}", do="choose another format")
            plain = array.view(f"V{array.dtype.itemsize}") if is_extra(array.dtype) else array
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(plain))
                append_all(file, bits(plain).data)
        text = to_text(notes).encode() if notes else b""
        if len(text) <= COMMENT_LIMIT:
            archive.comment = text
        else:
            archive.writestr(MEMBER, text)


def _tensor(archive: zipfile.ZipFile, file: IO[bytes], info: zipfile.ZipInfo, path: Path, label: str) -> Tensor:
    name = info.filename.removesuffix(".npy")
    blob = None
    if info.compress_type == zipfile.ZIP_STORED:
        blob = member(info, path)
        file.seek(blob.offset)
        shape, fortran, dtype, start = _head(file, path, name)
    else:
        with archive.open(info) as unpacked:
            shape, fortran, dtype, start = _head(unpacked, path, name)
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
    if blob is not None:
        return stored(name, blob, start, dtype, shape, order)
    return Tensor(name, native(dtype), shape, lambda: array_at(_unpacked(path, info), start, dtype, shape, order))


def _unpacked(path: Path, info: zipfile.ZipInfo) -> Blob:
    with reading(path, "npz"):
        return member(info, path)


def _head(file: IO[bytes], path: Path, name: str) -> tuple[tuple[int, ...], bool, DType, int]:
    """Shape, Fortran order, dtype, and where the numbers begin."""
    begin = file.read(12)
    wide = begin[6:7] != b"\x01"  # version 1 counts its header in two bytes, 2 and 3 in four
    length = int.from_bytes(begin[8 : 12 if wide else 10], "little")
    if begin[:6] != b"\x93NUMPY" or begin[6:8] not in (b"\x01\0", b"\x02\0", b"\x03\0") or length > HEAD:
        why = f"its header has {length} bytes" if length > HEAD else f"it begins with {begin[:8]!r}"
        where = f"{path}, member {name}.npy"
        raise FileError(f"{path.name}: '{name}' is no .npy array of numbers", where=where, why=why, do=DO_AGAIN)
    begin += file.read(max(0, length - (0 if wide else 2)))
    # version 3 is version 2 with names of fields in UTF-8, and records are no plain numbers
    read = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
    try:
        shape, fortran, dtype = read(io.BytesIO(begin[8:]))
    except Exception as error:  # a literal that is too deep, too long, or no description of an array
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        where = f"{path}, member {name}.npy"
        raise FileError(f"{path.name}: '{name}' has no header", where=where, why=said, do=DO_AGAIN) from error
    within("RANK", len(shape), path, f"'{name}'", f"member {name}.npy")
    if any(n < 0 for n in shape):
        raise FileError(f"{path.name}: '{name}' has a negative size", where=f"{path}, member {name}.npy", do=DO_AGAIN)
    return tuple(int(n) for n in shape), bool(fortran), dtype, (12 if wide else 10) + length
