"""HDF5 datasets as tensors: mapped in place where they lie plainly, and nothing followed out of the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache, partial
from math import prod
from typing import Any

import h5py
import numpy as np

from layoutx.errors import FileError
from layoutx.files import spool
from layoutx.files.blob import Blob, reading, stream
from layoutx.files.blob import stored as stored_at
from layoutx.files.dtypes import Array, DType, is_extra, is_numeric, named, native, settled
from layoutx.files.notes import KEY, from_text
from layoutx.files.store import Tensor

Low = Any  # h5py's h5g.GroupID, h5d.DatasetID or h5t.TypeID, which have no types of their own
Types = list[tuple[Any, DType, bool]]
CACHE = 1 << 20  # bytes of HDF5's own metadata cache: 10,000 weights otherwise filled 80 MB of it, and took longer
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def opened(blob: Blob) -> h5py.File:
    """The HDF5 file in a blob, for reading; the caller closes it and wraps errors with `reading`."""
    file = h5py.File(stream(blob), "r")
    limits = file.id.get_mdc_config()
    limits.incr_mode = limits.flash_incr_mode = limits.decr_mode = 0  # each object is looked at once: nothing to keep
    limits.set_initial_size, limits.initial_size, limits.min_size, limits.max_size = True, CACHE, CACHE, CACHE
    file.id.set_mdc_config(limits)
    return file


@lru_cache(4096)  # `vars`, `0` and `1` stand in every group
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
        raw = part.encode("utf-8", "surrogateescape")
        links = here.id.links if isinstance(here, h5py.Group) else None  # h5py's own calls: files have thousands
        if links is None or not links.exists(raw):
            raise FileError(
                f"{blob.path.name} has no '{name}'",
                where=f"{blob.path}, group {group.name}",
                why="the file names it and does not hold it",
            )
        if links.get_info(raw).type != h5py.h5l.TYPE_HARD:
            raise FileError(
                f"{blob.path.name} holds a link",
                where=f"{blob.path}, {here.name.rstrip('/')}/{part}",
                why="a link may lead out of the file, and weights files have none",
                do="save the weights again without links",
            )
        here = _object(h5py.h5o.open(here.id, raw))
    return here


def _object(found: Low) -> h5py.Group | h5py.Dataset:
    if isinstance(found, h5py.h5g.GroupID):
        return h5py.Group(found)
    return h5py.Dataset(found) if isinstance(found, h5py.h5d.DatasetID) else h5py.Datatype(found)


def walk(group: h5py.Group, blob: Blob) -> Iterator[h5py.Group | h5py.Dataset]:
    """Every group and dataset below a group, each once, in natural order, children after parents."""
    return (_object(found) for _, found in listed(group, blob))


def listed(group: h5py.Group, blob: Blob) -> Iterator[tuple[str, Low]]:
    """The same with their paths, in h5py's own low-level objects: a file of ten thousand weights is opened at once.

    Raises:
        FileError: a soft or external link.
    """
    return _listed(group.id, group.name.strip("/"), blob, {h5py.h5o.get_info(group.id).addr})


def _listed(group: h5py.h5g.GroupID, path: str, blob: Blob, seen: set[int]) -> Iterator[tuple[str, Low]]:
    links: dict[str, tuple[bytes, int, int]] = {}
    # the one object that h5py gives as info is another link's a moment later
    group.links.iterate(lambda raw, info: links.update({raw.decode(): (raw, info.type, info.u)}), info=True)
    for name in sorted(links, key=natural) if len(links) > 1 else links:
        raw, sort, address = links[name]
        if sort != h5py.h5l.TYPE_HARD:
            child(h5py.Group(group), name, blob)  # refuses it
        below = f"{path}/{name}" if path else name
        if address in seen:  # a hard link back up would never end
            continue
        seen.add(address)
        found = h5py.h5o.open(group, raw)
        yield below, found
        if isinstance(found, h5py.h5g.GroupID):
            yield from _listed(found, below, blob, seen)


def is_dataset(found: Low) -> bool:
    """Whether it holds numbers of its own, and no other objects."""
    return isinstance(found, h5py.h5d.DatasetID)


def note_at(found: Low, name: str) -> str:
    """The text of an attribute; "" where there is none, or it is no text."""
    raw = name.encode()
    if not h5py.h5a.exists(found, raw):
        return ""
    attribute = h5py.h5a.open(found, raw)
    if attribute.dtype.kind != "O" or attribute.shape != ():
        return text_of(_object(found).attrs.get(name))
    value = np.empty((), attribute.dtype)  # one text of any length, as Keras writes it
    attribute.read(value)
    return text_of(value[()])


def tensor(dataset: h5py.Dataset | Low, name: str, blob: Blob, types: Types | None = None) -> Tensor:
    """A dataset as a lazy tensor.

    bfloat16 is `|V2` with the attribute dtype="bfloat16" (keras 3.15, saving_lib.H5IOStore.__setitem__).

    Args:
        types: the types of the file's other datasets, which are few.

    Raises:
        FileError: the dataset is text, a record, empty, virtual, or kept in another file.
    """
    found = dataset.id if isinstance(dataset, h5py.HLObject) else dataset
    if not isinstance(found, h5py.h5d.DatasetID):
        raise FileError(f"{blob.path.name}: '{name}' is not a dataset", where=_where(found, blob))
    how, space = found.get_create_plist(), found.get_space()
    if (
        space.get_simple_extent_type() == h5py.h5s.NULL
        or how.get_layout() == h5py.h5d.VIRTUAL
        or how.get_external_count() > 0
    ):
        raise FileError(
            f"{blob.path.name}: '{name}' holds no data of its own",
            where=_where(found, blob),
            why="the dataset is empty, virtual or kept in another file",
        )
    stored, plain = _type_of(found, [] if types is None else types)
    label = note_at(found, "dtype") if stored.kind == "V" else ""
    dtype = named(label) if stored.kind == "V" and stored.names is None else stored
    if dtype is None or not is_numeric(dtype) or dtype.itemsize != stored.itemsize:
        raise FileError(
            f"{blob.path.name}: '{name}' does not hold numbers",
            where=f"{_where(found, blob)}, dtype {stored}",
            why="text, objects and unnamed bytes are no weights",
        )
    shape = tuple(int(n) for n in space.get_simple_extent_dims())
    nbytes = prod(shape) * stored.itemsize
    # None where it is chunked, compressed or absent; a coded or shorter one is not what it seems
    offset = found.get_offset() if plain and nbytes and found.get_storage_size() == nbytes else None
    if offset is None:
        path = _object(found).name
        return Tensor(name, native(dtype), shape, partial(_read, blob, path, dtype))
    if offset + nbytes > blob.size:
        raise FileError(
            f"{blob.path.name} is truncated", where=_where(found, blob), why="a dataset ends past the file's end"
        )
    return stored_at(name, blob, offset, dtype, shape)


def _where(found: Low, blob: Blob) -> str:
    return f"{blob.path}, {_object(found).name}"


def _type_of(found: h5py.h5d.DatasetID, types: Types) -> tuple[DType, bool]:
    """A dataset's dtype, and whether NumPy lays it out as the file does."""
    own = found.get_type()
    for known, dtype, plain in types:
        if own.equal(known):
            return dtype, plain
    dtype = found.dtype
    plain = h5py.h5t.py_create(dtype, logical=True).equal(own)
    types.append((own, dtype, plain))
    return dtype, plain


def _read(blob: Blob, path: str, dtype: DType) -> Array:
    """A dataset through h5py: the way for chunked, compressed and unwritten ones."""
    with reading(blob.path, "HDF5"), opened(blob) as file:
        array = spool.dataset(file[path], blob.path)
        return settled(array.view(dtype) if is_extra(dtype) else array)


def notes_of(file: h5py.File) -> dict[str, str]:
    """The metadata that layoutx left in the root attribute `layoutx`."""
    return from_text(text_of(file.attrs.get(KEY)))
