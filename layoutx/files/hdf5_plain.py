"""A listing of an HDF5 file of the usual form, made in this process: without libhdf5, and without waiting for another.

h5py and Keras write this form unless told otherwise. Whatever differs from it (newer structures, links, chunks,
damage) is left to libhdf5, which is also the one that complains.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError, UsageError
from layoutx.files.blob import Blob, mapped
from layoutx.files.guarded import intact
from layoutx.files.hdf5_blocks import Blocks, Object
from layoutx.files.hdf5_listed import Listing, Notes, Stored
from layoutx.files.hdf5_messages import (
    AT,
    ATTRIBUTE,
    CONTINUATION,
    FILL,
    FIXED,
    LAYOUT,
    NIL,
    NOWHERE,
    SPACE,
    TABLE,
    TIME,
    TYPE,
    Head,
    NotPlainError,
    attribute_of,
    head_of,
    is_fill,
    kind_of,
    place_of,
    places_of,
    shape_of,
    value_of,
)
from layoutx.files.hdf5_notes import MARKS, MODEL, OF_LEGACY, OF_OTHERS, OF_ROOT, natural, noted
from layoutx.files.limits import limit
from layoutx.files.remote import url_of
from layoutx.spec.memo import uncollected

OF_GROUP, OF_DATASET = (TABLE,), (SPACE, TYPE, LAYOUT)
OFTEN, MAYBE = (NIL, CONTINUATION, ATTRIBUTE), (FILL, TIME)  # any number of times; once or not at all
PLACES = 8  # of the address in headers of a length: it lies behind the shape

Row = tuple[str, bool, list[Any]]  # path, whether it is a group, attributes

_LOOSE = struct.Struct("<IQI")
# ValueError: a text that is no UTF-8; UsageError: a limit that is no number, which is said elsewhere
_ODD = (NotPlainError, struct.error, ValueError, UsageError)


def plain_listing(blob: Blob) -> Listing | None:
    """What the HDF5 file in a blob holds; None where that is left to libhdf5.

    Raises:
        SourceError: the file became shorter meanwhile.
    """
    walk = _walked(blob)
    return walk.found if walk else None


def plain_skeleton(blob: Blob) -> list[Row] | None:
    """Every group and dataset with all of its attributes, as `hdf5.skeleton`; None where that is left to libhdf5.

    Raises:
        SourceError: as `plain_listing`.
    """
    walk = _walked(blob, full=True)
    return walk.rows if walk else None


def _walked(blob: Blob, full: bool = False) -> _Walk | None:
    with intact(), uncollected():
        data = _bytes(blob)
        if data is None:
            return None
        try:
            walk = _Walk(blob, data, full)
            walk.walk()
        except _ODD:
            return None
        return walk


def _bytes(blob: Blob) -> memoryview | None:
    if blob.packed is not None:
        return memoryview(blob.packed)
    if url_of(blob.path) is not None or (not blob.offset and _written(blob.path)):
        return None
    try:
        return memoryview(mapped(blob.path, blob.state))[blob.offset : blob.offset + blob.size]
    except (OSError, ValueError, LayoutxError):  # no file, an empty or another one: who reads it next says so
        return None


def _written(path: Path) -> bool:
    """Whether a program has an HDF5 file open for writing: libhdf5 locks it as long, and refuses to read it."""
    try:
        import fcntl
    except ImportError:  # Windows, where libhdf5 locks nothing
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


class _Walk:
    """The way through a file: what was found so far, and what more than one object has alike."""

    def __init__(self, blob: Blob, data: memoryview, full: bool) -> None:
        """`full`: with a row for each object, and all of its attributes in it."""
        self.found = Listing(blob)
        self.rows: list[Row] = []
        self._full = full
        self._blocks = Blocks(data, limit("HEADER"))
        self._seen = {self._blocks.root: ""}
        self._most = limit("TENSORS")
        self._name, self._depth, self._texts = limit("NAME"), limit("DEPTH"), limit("MEMORY") // 8
        self._wanted: Sequence[str] = OF_OTHERS
        self._forms: dict[tuple[int, ...], bool] = {}
        self._heads: dict[bytes, Head] = {}
        self._places: dict[int, list[int]] = {}
        self._alike: dict[tuple[int, bytes], Stored] = {}

    def walk(self) -> None:
        """All of it, children after parents, in natural order."""
        groups, datasets, again, seen = self.found.groups, self.found.datasets, self.found.again, self._seen
        open_ = [("", self._root())]
        while open_:
            path, links = open_[-1]
            name, address = next(links, ("", 0))
            if not name:
                open_.pop()
                continue
            below = f"{path}/{name}" if path else name
            if address in seen:  # a hard link
                again[below] = seen[address]
                continue
            seen[address] = below
            header = self._blocks.header(address)
            stored = None if self._full else self._same(header)
            if stored is None:
                own = self._object(header)
                self._add(below, own)
                if own.is_group:
                    groups[below] = self._notes(own, OF_ROOT if below == MODEL else self._wanted)
                    open_.append((below, iter(self._links(own, below))))
                    if len(open_) > self._depth or len(seen) > 4 * self._most:
                        raise NotPlainError
                    continue
                stored = self._dataset(own, header)
            datasets[below] = stored

    def _root(self) -> Iterator[tuple[str, int]]:
        own = self._object(self._blocks.header(self._blocks.root))
        if not own.is_group or places_of(own.one(TABLE)) != self._blocks.places:
            raise NotPlainError
        links = self._links(own, "")
        names = self._values(own)
        if any(mark in names for mark in MARKS) or any(name == MODEL for name, _ in links):
            self._wanted = OF_LEGACY
        self.found.groups[""] = self._notes(own, OF_ROOT)
        self._add("", own)
        return iter(links)

    def _object(self, header: bytes) -> Object:
        """A group or a dataset."""
        kinds, bodies = self._blocks.messages(header)
        is_group = self._forms.get(kinds)
        if is_group is None:
            is_group = self._forms[kinds] = TABLE in kinds
            once = OF_GROUP if is_group else OF_DATASET
            seldom = () if is_group else MAYBE
            if any(kinds.count(kind) != 1 for kind in once) or any(kinds.count(kind) > 1 for kind in seldom):
                raise NotPlainError
            if not set(kinds) <= {*once, *seldom, *OFTEN}:
                raise NotPlainError
        return Object(is_group, kinds, bodies)

    def _links(self, own: Object, path: str) -> list[tuple[str, int]]:
        """Names in a group and where they lead to, in natural order."""
        found = self._blocks.links(*places_of(own.one(TABLE)))
        self._blocks.count(len(found) * len(path))  # the paths below it
        if len(found) > 4 * self._most or max([len(name) for name, _ in found], default=0) + len(path) > self._name:
            raise NotPlainError
        links = [(name.decode(), address) for name, address in found]
        return links if len(links) < 2 else sorted(links, key=lambda link: natural(link[0]))

    def _same(self, header: bytes) -> Stored | None:
        """A dataset whose header differs from a known one in nothing but where its bytes begin."""
        for place in self._places.get(len(header), ()):
            known = self._alike.get((place, header[:place] + header[place + 8 :]))
            if known is not None:
                return self._at(known, int.from_bytes(header[place : place + 8], "little"))
        return None

    def _dataset(self, own: Object, header: bytes) -> Stored:
        kind, shape = kind_of(own.one(TYPE)), shape_of(own.one(SPACE))
        begin, size = place_of(own.one(LAYOUT))
        if kind.dtype is None or size != prod(shape) * kind.size or not all(map(is_fill, own.all(FILL))):
            raise NotPlainError
        label = self._notes(own, ("dtype",)).get("dtype", "") if kind.dtype.kind == "V" else ""
        stored = Stored(kind.dtype, kind.said, True, shape, None, size, None, True, label)
        place = own.begin(LAYOUT) + AT
        places = self._places.setdefault(len(header), [])
        if place not in places and len(places) < PLACES and place + 8 <= len(header):
            places.append(place)
        if place in places:
            self._alike[place, header[:place] + header[place + 8 :]] = stored
        return self._at(stored, begin)

    def _at(self, like: Stored, begin: int) -> Stored:
        offset: int | None = begin
        size = like.size
        if begin == NOWHERE:  # never written, or without numbers
            offset, size = None, 0
        elif not size or not begin or begin + size > self._blocks.end:
            raise NotPlainError
        return Stored(like.dtype, like.said, True, like.shape, offset, size, None, True, like.label)

    def _notes(self, own: Object, wanted: Sequence[str]) -> Notes:
        if ATTRIBUTE not in own.kinds:
            return {}
        found = self._values(own)
        return noted(wanted, found.__contains__, lambda name: self._note(*found[name]))

    def _values(self, own: Object) -> dict[str, tuple[Head, bytes]]:
        """What the attributes of an object are, by name, and the bytes of their values."""
        found: dict[str, tuple[Head, bytes]] = {}
        for body in own.all(ATTRIBUTE):
            begin = value_of(body)
            said = body[:begin]
            head = self._heads.get(said)
            if head is None:
                head = self._heads[said] = head_of(said)
            if not 0 <= len(body) - begin - head.nbytes < 8 or head.name in found:
                raise NotPlainError
            found[head.name] = head, body[begin : begin + head.nbytes]
        return found

    def _note(self, head: Head, value: bytes) -> Any:
        """What an attribute says: a text, a list of texts, or a whole number; "" for all else."""
        kind = head.kind
        if kind.dtype is not None:
            return int(np.frombuffer(value, kind.dtype)[0]) if kind.dtype.kind in "iu" and not head.shape else ""
        if kind.what == FIXED:
            texts = [value[at : at + kind.size].rstrip(b"\0").decode() for at in range(0, len(value), kind.size)]
        else:
            texts = [text.decode() for text in self._texts_at(value)]
        if len(texts) > self._most or any("\0" in text for text in texts):
            raise NotPlainError
        return texts if head.shape else texts[0]

    def _add(self, path: str, own: Object) -> None:
        """The row of an object: attributes in the order in which libhdf5 tells them."""
        if not self._full:
            return
        found = self._values(own)
        if len(found) > self._most:
            raise NotPlainError
        attributes = [attribute_of(*found[name], self._texts_at) for name in sorted(found, key=str.encode)]
        self.rows.append((path, own.is_group, attributes))

    def _texts_at(self, value: bytes) -> list[bytes]:
        return [self._loose(*parts) for parts in _LOOSE.iter_unpack(value)]

    def _loose(self, length: int, heap: int, number: int) -> bytes:
        """A text of any length."""
        text = self._blocks.held(heap, number) if heap else b""
        self._texts -= length
        if len(text) != length or self._texts < 0:
            raise NotPlainError
        return text
