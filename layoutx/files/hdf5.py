"""HDF5 datasets as tensors: mapped in place where they lie plainly, and nothing followed out of the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from layoutx.errors import FileError
from layoutx.files.blob import Blob, reading, stream
from layoutx.files.blob import stored as stored_at
from layoutx.files.dtypes import Array, DType, is_extra, is_numeric, named, native, settled
from layoutx.files.notes import KEY, from_text
from layoutx.files.store import Tensor

SIGNATURE = b"\x89HDF\r\n\x1a\n"


def opened(blob: Blob) -> h5py.File:
    """The HDF5 file in a blob, for reading; the caller closes it and wraps errors with `reading`."""
    return h5py.File(stream(blob), "r")


def natural(path: str) -> tuple[tuple[tuple[str, int], ...], ...]:
    """A sort key in which `vars/2` comes before `vars/10`, and `dense` before `dense_1`."""
    return tuple(
        tuple((text, int(digits or -1)) for text, digits in re.findall(r"(\D+|^)(\d*)", part))
        for part in path.split("/")
    )


def text_of(value: Any) -> str:
    """An attribute's text, whether it was stored as bytes or str; "" for an empty attribute."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def child(group: h5py.Group, name: str, blob: Blob) -> h5py.Group | h5py.Dataset:
    """The object at a path below a group, reached without any soft or external link.

    Raises:
        FileError: there is no such object, or a link stands in the way.
    """
    here = group
    for part in (part for part in name.split("/") if part):
        link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
        if link is None:
            raise FileError(
                f"{blob.path.name} has no '{name}'",
                where=f"{blob.path}, group {group.name}",
                why="the file names it and does not hold it",
            )
        if not isinstance(link, h5py.HardLink):
            raise FileError(
                f"{blob.path.name} holds a link",
                where=f"{blob.path}, {here.name.rstrip('/')}/{part}",
                why="a link may lead out of the file, and weights files have none",
                do="save the weights again without links",
            )
        here = here[part]
    return here


def walk(group: h5py.Group, blob: Blob, _seen: set[int] | None = None) -> Iterator[h5py.Group | h5py.Dataset]:
    """Every group and dataset below a group, each once, in natural order, children after parents."""
    seen = _seen if _seen is not None else set()
    seen.add(h5py.h5o.get_info(group.id).addr)
    for name in sorted(group, key=natural):
        found = child(group, name, blob)
        address = h5py.h5o.get_info(found.id).addr
        if address in seen:  # a hard link back up would never end
            continue
        seen.add(address)
        yield found
        if isinstance(found, h5py.Group):
            yield from walk(found, blob, seen)


def tensor(dataset: h5py.Dataset, name: str, blob: Blob) -> Tensor:
    """A dataset as a lazy tensor.

    bfloat16 is `|V2` with the attribute dtype="bfloat16" (keras 3.15, saving_lib.H5IOStore.__setitem__).

    Raises:
        FileError: the dataset is text, a record, empty, virtual, or kept in another file.
    """
    where = f"{blob.path}, {dataset.name}"
    if not isinstance(dataset, h5py.Dataset):
        raise FileError(f"{blob.path.name}: '{name}' is not a dataset", where=where)
    if dataset.shape is None or dataset.is_virtual or dataset.external:
        raise FileError(
            f"{blob.path.name}: '{name}' holds no data of its own",
            where=where,
            why="the dataset is empty, virtual or kept in another file",
        )
    stored, label = dataset.dtype, text_of(dataset.attrs.get("dtype"))
    dtype = named(label) if stored.kind == "V" and stored.names is None else stored
    if dtype is None or not is_numeric(dtype) or dtype.itemsize != stored.itemsize:
        raise FileError(
            f"{blob.path.name}: '{name}' does not hold numbers",
            where=f"{where}, dtype {stored}",
            why="text, objects and unnamed bytes are no weights",
        )
    shape = tuple(int(n) for n in dataset.shape)
    offset = _plain_offset(dataset)
    if offset is None:
        path = dataset.name
        return Tensor(name, native(dtype), shape, lambda: _read(blob, path, dtype))
    if offset + dataset.size * stored.itemsize > blob.size:
        raise FileError(f"{blob.path.name} is truncated", where=where, why="a dataset ends past the file's end")
    return stored_at(name, blob, offset, dtype, shape)


def _plain_offset(dataset: h5py.Dataset) -> int | None:
    """Where the dataset's bytes lie in the file; None where they are chunked, compressed, absent or coded."""
    offset = dataset.id.get_offset()
    same = h5py.h5t.py_create(dataset.dtype, logical=True).equal(dataset.id.get_type())
    whole = dataset.id.get_storage_size() == dataset.size * dataset.dtype.itemsize
    return offset if same and whole and dataset.size else None


def _read(blob: Blob, path: str, dtype: DType) -> Array:
    """A dataset through h5py: the way for chunked, compressed and unwritten ones."""
    with reading(blob.path, "HDF5"), opened(blob) as file:
        array = np.asarray(file[path][()])
        return settled(array.view(dtype) if is_extra(dtype) else array)


def notes_of(file: h5py.File) -> dict[str, str]:
    """The metadata that layoutx left in the root attribute `layoutx`."""
    return from_text(text_of(file.attrs.get(KEY)))
