"""Flatbuffers: tables, vectors and texts of a file, every offset checked before it is followed."""

from __future__ import annotations

import struct
from typing import Any

from layoutx.frozen import frozen


class BrokenError(Exception):
    """An offset or a length that leads out of the file; callers make it a FileError."""


@frozen
class Table:
    """One table at `at`: its fields are found by number, through the vtable that it points back to."""

    buf: memoryview
    at: int

    def place(self, field: int) -> int:
        """Where a field's value stands; 0 where the table leaves it out."""
        vtable = self.at - number(self.buf, self.at, "<i")
        entry = 4 + 2 * field
        if entry + 2 > number(self.buf, vtable, "<H"):
            return 0
        offset = number(self.buf, vtable + entry, "<H")
        return self.at + offset if offset else 0

    def value(self, field: int, code: str, default: Any = 0) -> Any:
        """A number, as struct spells its type."""
        place = self.place(field)
        return number(self.buf, place, code) if place else default

    def table(self, field: int) -> Table | None:
        """The table that a field points to."""
        place = self.place(field)
        return follow(self.buf, place) if place else None

    def vector(self, field: int, size: int) -> tuple[int, int]:
        """Where the items of a vector begin, and how many of `size` bytes there are; (0, 0) where it is left out."""
        place = self.place(field)
        if not place:
            return 0, 0
        start = follow(self.buf, place).at
        count = number(self.buf, start, "<I")
        if start + 4 + count * size > len(self.buf):
            raise BrokenError(f"a vector of {count} items at byte {start} ends behind the file")
        return start + 4, count

    def numbers(self, field: int, code: str) -> tuple[Any, ...]:
        """The numbers of a vector."""
        start, count = self.vector(field, struct.calcsize("<" + code))
        return struct.unpack_from(f"<{count}{code}", self.buf, start) if count else ()

    def tables(self, field: int, least: int = 4) -> list[Table]:
        """The tables of a vector of tables, each of which takes `least` bytes of the file at least."""
        start, count = self.vector(field, 4)
        if count * least > len(self.buf):  # otherwise one table may be pointed to a million times
            raise BrokenError(f"{count} tables do not fit into {len(self.buf)} bytes")
        return [follow(self.buf, start + 4 * i) for i in range(count)]

    def text(self, field: int) -> str:
        """A text, "" where it is left out."""
        start, count = self.vector(field, 1)
        return bytes(self.buf[start : start + count]).decode("utf-8", errors="replace")


def number(buf: memoryview, at: int, code: str) -> Any:
    """The number at a byte. Raises BrokenError where that is outside."""
    if at < 0 or at + struct.calcsize(code) > len(buf):
        raise BrokenError(f"byte {at} of {len(buf)} is pointed to")
    return struct.unpack_from(code, buf, at)[0]


def follow(buf: memoryview, at: int) -> Table:
    """The table that the offset at a byte points to. Raises BrokenError where that is outside."""
    target = at + number(buf, at, "<I")
    if target + 4 > len(buf):
        raise BrokenError(f"byte {target} of {len(buf)} is pointed to")
    return Table(buf, target)
