"""What an HDF5 file holds, told by libhdf5 in plain rows: this runs in a process that may die (`isolated`).

Rows, of JSON: [path, what, ...], children after parents, in natural order. `what` is one of the constants below.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from layoutx.errors import FileError
from layoutx.files.apart import Lent, alive
from layoutx.files.hdf5_attributes import attributes_of
from layoutx.files.hdf5_notes import MARKS, MODEL, OF_LEGACY, OF_OTHERS, OF_ROOT, natural, noted, text_of
from layoutx.files.hdf5_numbers import opened
from layoutx.files.limits import limit, within

GROUP, DATASET, LINK, AGAIN, OTHER, TYPE = "g", "d", "l", "a", "o", "t"
COMPARED = 64  # types; a file of more is no weights file, and is not to take its number squared
ROWS = 256  # in a part of the answer
Low = Any  # h5py's h5g.GroupID, h5d.DatasetID or h5t.TypeID, which have no types of their own


def rows(lent: Lent | None, path: str, offset: int, size: int, full: bool = False) -> Iterator[bytes]:
    """The listing of a file, in parts that are JSON lists of rows.

    Args:
        full: each row of a group or a dataset ends in all of its attributes (`hdf5_attributes`).

    Raises:
        FileError: it holds more than the limits allow, or a name that is no text.
    """
    with opened(lent, path, offset, size) as file:
        for some in _Listing(Path(path), file, full).parts():
            yield json.dumps(some, separators=(",", ":")).encode()


class _Listing:
    """The rows of a file: the types that were met, and the objects by their addresses."""

    def __init__(self, path: Path, file: h5py.File, full: bool) -> None:
        self._path, self._root, self._full = path, file.id, full
        self._types: list[tuple[Any, int]] = []
        self._rows: list[list[Any]] = []
        self._seen: dict[int, str] = {h5py.h5o.get_info(file.id).addr: ""}
        legacy = any(h5py.h5a.exists(self._root, mark.encode()) for mark in MARKS) or MODEL in file
        self._wanted = OF_LEGACY if legacy else OF_OTHERS
        self._most = limit("TENSORS") * 4  # each tensor has a group or two of its own
        self._name, self._depth = limit("NAME"), limit("DEPTH")

    def parts(self) -> Iterator[list[list[Any]]]:
        """Every row, many at a time."""
        self._add(self._root, ["", GROUP, self._notes(self._root, OF_ROOT)])
        open_ = [(self._root, "", self._links(self._root, ""))]
        while open_:
            group, path, links = open_[-1]
            link = next(links, None)
            if link is None:
                open_.pop()
            elif (found := self._taken(group, path, *link)) is not None:
                below = self._rows[-1][0]
                open_.append((found, below, self._links(found, below)))
                if len(open_) > self._depth:
                    within("DEPTH", len(open_), self._path, "the nesting of groups", f"group {path[:200]}")
            if len(self._rows) >= ROWS:
                yield self._rows
                self._rows = []
        yield self._rows

    def _links(self, group: h5py.h5g.GroupID, path: str) -> Iterator[tuple[str, bytes, int, int]]:
        """Name, bytes of the name, sort and address, in natural order."""
        links: list[tuple[str, bytes, int, int]] = []

        def take(raw: bytes, info: Any) -> bool | None:  # what the info says is another link's a moment later
            links.append((raw.decode("utf-8", "surrogateescape"), raw, info.type, info.u))
            if not len(links) % 1000:
                alive()
            return True if len(raw) + len(path) > self._name or len(links) > self._most else None  # enough seen

        group.links.iterate(take, info=True)
        if links and len(links[-1][1]) + len(path) > self._name:
            within("NAME", len(links[-1][1]) + len(path), self._path, "a name", f"in group /{path[:200]}")
        if len(links) > self._most:
            within("TENSORS", len(links) // 4 + 1, self._path, "a group", f"group /{path[:200]}")
        if len(links) < 2:
            return iter(links)
        keys = []
        for number, (name, *_) in enumerate(links):
            if not number % 1000:
                alive()
            keys.append((natural(name), number))
        alive()
        return (links[number] for _, number in sorted(keys))

    def _taken(self, group: h5py.h5g.GroupID, path: str, name: str, raw: bytes, sort: int, address: int) -> Low | None:
        """Add the row of what a link leads to; the answer is a group, to go on below it."""
        below = f"{path}/{name}" if path else name
        if not name.isascii():
            self._check_text(raw, path)
        if sort != h5py.h5l.TYPE_HARD:
            self._rows.append([below, LINK])
            return None
        if address in self._seen:  # a hard link back up would never end
            self._rows.append([below, AGAIN, self._seen[address]])
            return None
        self._seen[address] = below
        if len(self._seen) > self._most:
            within("TENSORS", len(self._seen) // 4, self._path, "the file")
        found = h5py.h5o.open(group, raw)
        if isinstance(found, h5py.h5d.DatasetID):
            self._add(found, self._dataset(found, below))
        elif isinstance(found, h5py.h5g.GroupID):
            self._add(found, [below, GROUP, self._notes(found, OF_ROOT if below == MODEL else self._wanted)])
            return found
        else:
            self._rows.append([below, OTHER])
        return None

    def _add(self, found: Low, row: list[Any]) -> None:
        if self._full:
            row.append(attributes_of(found, self._path))
        self._rows.append(row)

    def _check_text(self, raw: bytes, path: str) -> None:
        try:
            raw.decode()
        except UnicodeDecodeError:
            raise FileError(
                f"{self._path.name} holds a name that is no text",
                where=f"{self._path}, group /{path}, {raw!r}",
                why="names in HDF5 are UTF-8, and this one is not",
            ) from None

    def _dataset(self, found: h5py.h5d.DatasetID, path: str) -> list[Any]:
        """[path, DATASET, number of its type, shape, offset, stored bytes, chunks, own, name of its dtype]."""
        space, kind = found.get_space(), self._type(found)
        shape = list(space.get_simple_extent_dims()) if space.get_simple_extent_type() != h5py.h5s.NULL else None
        label = self._notes(found, ("dtype",)).get("dtype", "") if kind < 0 else ""
        offset = found.get_offset()
        if offset is not None and shape is not None:  # it is neither virtual nor in another file, which have none
            return [path, DATASET, abs(kind), shape, offset, found.get_storage_size(), None, True, label]
        how = found.get_create_plist()
        layout = how.get_layout()
        own = layout != h5py.h5d.VIRTUAL and how.get_external_count() == 0 and shape is not None
        chunks = list(how.get_chunk()) if layout == h5py.h5d.CHUNKED else None
        return [path, DATASET, abs(kind), shape, None, 0, chunks, own, label]

    def _type(self, found: h5py.h5d.DatasetID) -> int:
        """The number of a dataset's type, from 1 on; negative where its bytes may have a name. New ones get a row."""
        own = found.get_type()
        for known, number in self._types[:COMPARED]:
            if own.equal(known):
                return number
        dtype = found.dtype
        plain = dtype.names is None and dtype.kind in "biufcV" and dtype.subdtype is None and not dtype.hasobject
        same = plain and h5py.h5t.py_create(dtype, logical=True).equal(own)
        number = len(self._types) + 1
        self._rows.append(["", TYPE, number, dtype.str if plain else "", str(dtype)[:200], bool(same)])
        self._types.append((own, -number if dtype.kind == "V" else number))
        return self._types[-1][1]

    def _notes(self, found: Low, wanted: Sequence[str]) -> dict[str, Any]:
        """The wanted attributes that an object has."""
        return noted(wanted, lambda name: h5py.h5a.exists(found, name.encode()), partial(self._note, found))

    def _note(self, found: Low, name: str) -> Any:
        attribute = h5py.h5a.open(found, name.encode())
        dtype, shape = attribute.dtype, attribute.shape
        if dtype.kind not in "OSiu" or attribute.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            return ""
        if shape:
            where = f"attribute {name} of {(h5py.h5i.get_name(found) or b'').decode('utf-8', 'replace')[:200]}"
            count = prod(int(n) for n in shape)
            within("TENSORS", count, self._path, f"the attribute {name}", where)
            within("HEADER", count * dtype.itemsize, self._path, f"the attribute {name}", where)
        value = np.empty(shape, dtype)
        attribute.read(value)
        alive()
        if dtype.kind in "iu":
            return "" if shape else int(value[()])
        return [text_of(one) for one in value.ravel()] if shape else text_of(value[()])
