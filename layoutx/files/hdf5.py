"""HDF5 datasets as tensors: mapped in place where they lie plainly, and nothing followed out of the file.

libhdf5 does not run in this process: another one lists what a file holds (`hdf5_listing`), and reads what is chunked or
compressed. What it says is checked here like any bytes of a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from layoutx.files.isolated import ask
from layoutx.files.limits import limit, within, within_expansion
from layoutx.files.notes import KEY, from_text
from layoutx.files.steady import same_files
from layoutx.files.store import Tensor
from layoutx.spec.memo import uncollected

ROWS = "layoutx.files.hdf5_listing:rows"
Notes = dict[str, Any]  # attribute -> a text, a list of texts, or a whole number


@dataclass(frozen=True, slots=True)
class Stored:
    """A dataset, as the file describes it.

    Attributes:
        dtype: of its bytes; None for what are no numbers. said: the same in HDF5's words.
        plain: whether NumPy lays the type out as the file does.
        shape: None for an empty dataspace.
        offset, size: of its bytes in the blob, where they lie in one piece.
        chunks: shape of its pieces, where it has such.
        own: whether the file holds its numbers itself.
        label: the name of a dtype that HDF5 has no word for.
    """

    dtype: DType | None
    said: str
    plain: bool
    shape: tuple[int, ...] | None
    offset: int | None
    size: int
    chunks: tuple[int, ...] | None
    own: bool
    label: str

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers; 0 for what has none."""
        return 0 if self.shape is None or self.dtype is None else prod(self.shape) * self.dtype.itemsize

    @property
    def lies(self) -> bool:
        """Whether its bytes lie in one piece as NumPy has them; a coded or shorter one is not what it seems."""
        return self.offset is not None and self.plain and 0 < self.nbytes == self.size


@dataclass(frozen=True, slots=True)
class Listing:
    """What an HDF5 file holds, by path ("" is the root), in natural order, children after parents.

    Attributes:
        links: paths of soft and external links; again: second names of objects -> their first.
    """

    blob: Blob
    groups: dict[str, Notes] = field(default_factory=dict)
    datasets: dict[str, Stored] = field(default_factory=dict)
    links: dict[str, None] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)

    def at(self, path: str) -> str:
        """The first name of the object at a path, reached without any soft or external link.

        Raises:
            FileError: there is no such object, or a link stands in the way.
        """
        here = ""
        for part in (part for part in path.split("/") if part):
            above, here = here, f"{here}/{part}" if here else part
            if here in self.links:
                raise self.link(here)
            here = self.again.get(here, here)
            if here not in self.groups and here not in self.datasets:
                raise FileError(
                    f"{self.blob.path.name} has no '{path}'",
                    where=f"{self.blob.path}, group /{above}",
                    why="the file names it and does not hold it",
                )
        return here

    def group(self, path: str) -> Notes:
        """The attributes of a group.

        Raises:
            FileError: as `at`, or it is not a group.
        """
        if (found := self.groups.get(self.at(path))) is None:
            raise FileError(f"{self.blob.path.name}: '{path}' is not a group", where=str(self.blob.path))
        return found

    def link(self, path: str) -> FileError:
        """The complaint about a link."""
        return FileError(
            f"{self.blob.path.name} holds a link",
            where=f"{self.blob.path}, /{path}",
            why="a link may lead out of the file, and weights files have none",
            do="save the weights again without links",
        )

    def below(self, path: str = "") -> Iterator[tuple[str, Stored]]:
        """The datasets below a group, with their paths.

        Raises:
            FileError: something below it is a soft or external link.
        """
        start = f"{path}/" if path else ""
        if link := next((link for link in self.links if link.startswith(start)), ""):
            raise self.link(link)
        for found, one in self.datasets.items():
            if found.startswith(start):
                yield found, one

    def notes(self) -> dict[str, str]:
        """The metadata that layoutx left in the root attribute `layoutx`."""
        return from_text(text(self.groups[""], KEY))


def text(notes: Notes, name: str) -> str:
    """An attribute that is one text; "" where there is none."""
    found = notes.get(name)
    return found if isinstance(found, str) else ""


def names(notes: Notes, name: str) -> list[str] | None:
    """An attribute that is a list of names; None where there is none."""
    found = notes.get(name)
    return found if isinstance(found, list) else None if found is None else []


def listing(blob: Blob) -> Listing:
    """What the HDF5 file in a blob holds; no number of it is read.

    Raises:
        FileError: it is damaged, asks for more than the limits, or has datasets that overlap or unpack to very much.
    """
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
    same_files([(blob.path, blob.state)])
    _check(found)
    return found


def skeleton(blob: Blob) -> list[tuple[str, bool, list[Any]]]:
    """Every group and dataset of the file in a blob: path, whether it is a group, all attributes (`hdf5_attributes`).

    The root comes first, as ""; children come after parents, in natural order.

    Raises:
        FileError: as `listing`; a soft or external link.
    """
    found: list[tuple[str, bool, list[Any]]] = []

    def take(part: bytearray) -> None:
        for path, what, *more in json.loads(part):
            if what == "l":
                raise Listing(blob).link(path)
            if what in ("g", "d"):
                found.append((path, what == "g", more[-1]))

    ask(ROWS, _place(blob) | {"full": True}, take, blob.path, "HDF5", lent=blob.packed, largest=1 << 28)
    same_files([(blob.path, blob.state)])
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
            spans.append((one.offset or 0, one.nbytes, path))
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
