"""HDF5 datasets as tensors: mapped in place where they lie plainly, and nothing followed out of the file.

libhdf5 does not run in this process. Files of the usual form are listed without it (`hdf5_plain`); of all others
another process lists what they hold (`hdf5_listing`), and reads what is chunked or compressed. What it says is checked
here like any bytes of a file.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from layoutx.errors import FileError
from layoutx.files import spool
from layoutx.files.blob import DO_AGAIN, Blob, reading
from layoutx.files.blob import stored as stored_at
from layoutx.files.dtypes import Array, DType, is_extra, is_numeric, named, native, settled
from layoutx.files.filling import Filling
from layoutx.files.hdf5_listed import Listing as Listing
from layoutx.files.hdf5_listed import Notes as Notes
from layoutx.files.hdf5_listed import Stored
from layoutx.files.hdf5_listed import names as names
from layoutx.files.hdf5_listed import text as text
from layoutx.files.hdf5_plain import Row, plain_listing, plain_skeleton
from layoutx.files.isolated import ask
from layoutx.files.limits import limit, within, within_expansion
from layoutx.files.steady import same_files
from layoutx.files.store import Tensor
from layoutx.spec.memo import uncollected

ROWS = "layoutx.files.hdf5_listing:rows"


def listing(blob: Blob) -> Listing:
    """What the HDF5 file in a blob holds; no number of it is read.

    Raises:
        FileError: it is damaged, asks for more than the limits, or has datasets that overlap or unpack to very much.
    """
    found = plain_listing(blob) or _asked(blob)
    same_files([(blob.path, blob.state)])
    _check(found)
    return found


def _asked(blob: Blob) -> Listing:
    """A listing by libhdf5."""
    found = Listing(blob)
    types: dict[int, tuple[DType | None, str, bool]] = {}

    def take(part: bytearray) -> None:
        for path, what, *more in json.loads(part):
            if what == "d":
                number, shape, offset, size, chunks, own, label = more[:7]
                shape, chunks = (None if sizes is None else tuple(sizes) for sizes in (shape, chunks))
                found.datasets[path] = Stored(*types[number], shape, offset, size, chunks, own, label)
            elif what == "g":
                found.groups[path] = more[0]
            elif what == "t":
                number, code, said, plain = more
                types[number] = (np.dtype(code) if code else None, said, plain)
            elif what == "l":
                found.links[path] = None
            elif what == "a":
                found.again[path] = more[0]

    with uncollected():
        ask(ROWS, _place(blob), take, blob.path, "HDF5", lent=blob.packed, largest=1 << 28)
    return found


def skeleton(blob: Blob) -> list[Row]:
    """Every group and dataset of the file in a blob: path, whether it is a group, all attributes (`hdf5_attributes`).

    The root comes first, as ""; children come after parents, in natural order.

    Raises:
        FileError: as `listing`; a soft or external link.
    """
    found = plain_skeleton(blob) or _asked_skeleton(blob)
    same_files([(blob.path, blob.state)])
    return found


def _asked_skeleton(blob: Blob) -> list[Row]:
    """A skeleton by libhdf5."""
    found: list[Row] = []

    def take(part: bytearray) -> None:
        for path, what, *more in json.loads(part):
            if what == "l":
                raise Listing(blob).link(path)
            if what in ("g", "d"):
                found.append((path, what == "g", more[-1]))

    ask(ROWS, _place(blob) | {"full": True}, take, blob.path, "HDF5", lent=blob.packed, largest=1 << 28)
    return found


def _place(blob: Blob) -> dict[str, Any]:
    return {"path": str(blob.path.absolute()), "offset": blob.offset, "size": blob.size}


def _check(found: Listing) -> None:
    """Refuse datasets that share bytes, or that would unpack to very much more than the file is."""
    blob, spans, unpacked = found.blob, [], 0
    for path, one in found.datasets.items():
        if one.shape is None or one.dtype is None:
            continue
        if len(one.shape) > 8:
            within("RANK", len(one.shape), blob.path, f"'{path}'")
        if one.lies:
            spans.append((one.offset or 0, one.size, path))
            continue
        unpacked += one.nbytes
        piece = prod(map(min, one.chunks or one.shape, one.shape)) * one.dtype.itemsize
        if one.chunks and piece > spool.LARGE:
            times = -(-piece // max(blob.size, 1))
            within("EXPANSION", times, blob.path, f"a chunk of '{path}' grows when it is unpacked and")
    within_expansion(blob.size, unpacked, blob.path, "its compressed or unwritten data")
    spans.sort()
    for (begin, size, first), (other, _, second) in pairwise(spans):
        if begin + size > other:
            raise FileError(
                f"{blob.path.name} is damaged",
                where=f"{blob.path}, /{first} and /{second}",
                why="two datasets lie in the same bytes",
                do=DO_AGAIN,
            )


def tensor(found: Listing, path: str, name: str = "") -> Tensor:
    """A dataset as a lazy tensor.

    bfloat16 is `|V2` with the attribute dtype="bfloat16" (keras 3.15, saving_lib.H5IOStore.__setitem__).

    Args:
        name: of the tensor, where it is not the path.

    Raises:
        FileError: the dataset is text, a record, empty, virtual, or kept in another file.
    """
    blob, name = found.blob, name or path
    path = found.at(path)
    one = found.datasets.get(path)
    where = f"{blob.path}, /{path}"
    if one is None:
        raise FileError(f"{blob.path.name}: '{name}' is not a dataset", where=where)
    if one.shape is None or not one.own:
        raise FileError(
            f"{blob.path.name}: '{name}' holds no data of its own",
            where=where,
            why="the dataset is empty, virtual or kept in another file",
        )
    dtype = one.dtype
    if dtype is not None and dtype.kind == "V":
        dtype = named(one.label)
    if dtype is None or one.dtype is None or not is_numeric(dtype) or dtype.itemsize != one.dtype.itemsize:
        raise FileError(
            f"{blob.path.name}: '{name}' does not hold numbers",
            where=f"{where}, dtype {one.said}",
            why="text, objects and unnamed bytes are no weights",
        )
    if not one.lies:
        return Tensor(name, native(dtype), one.shape, partial(_read, blob, path, one, dtype))
    assert one.offset is not None
    if one.offset + one.nbytes > blob.size:
        raise FileError(f"{blob.path.name} is truncated", where=where, why="a dataset ends past the file's end")
    return stored_at(name, blob, one.offset, dtype, one.shape)


def _read(blob: Blob, path: str, one: Stored, dtype: DType) -> Array:
    """A dataset through libhdf5: the way for chunked, compressed and unwritten ones."""
    assert one.shape is not None
    assert one.dtype is not None
    raw = native(one.dtype)
    with reading(blob.path, "HDF5"):
        if not one.nbytes:
            return np.empty(one.shape, native(dtype))
        chunks = one.chunks or (1,) * len(one.shape)
        made = spool.space(one.nbytes, blob.path).view(raw).reshape(one.shape)
        filling = Filling(made, list(spool.boxes(one.shape, chunks, raw.itemsize, spool.SLAB)), blob)
        args = {**_place(blob), "name": path, "shape": one.shape, "most": spool.SLAB}
        piece = max(prod(chunks) * raw.itemsize, spool.SLAB)
        memory = limit("MEMORY") // 4 + 4 * piece
        what = "layoutx.files.hdf5_numbers:numbers"
        more = {"largest": spool.SLAB, "memory": memory, "work_bytes": piece}
        ask(what, args, filling.take, blob.path, "HDF5", lent=blob.packed, **more)
        filling.done()
        same_files([(blob.path, blob.state)])
        made.flags.writeable = one.nbytes <= spool.LARGE
        return settled(made.view(dtype) if is_extra(dtype) else made)
