"""msgpack values read where they lie: maps, texts and numbers now, bytes as spans of the file."""

from __future__ import annotations

import mmap
import struct
from dataclasses import field
from pathlib import Path
from typing import Any

from layoutx.files.limits import limit, within
from layoutx.files.names import shown
from layoutx.frozen import frozen

SHORT = 200  # bytes of a text that is not worth a look at the limit: there are only so many
# first byte -> struct format of the number that follows it
NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"} | {
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
# first byte -> struct format of the length that follows it
LENGTHS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I"} | {
    0xDC: ">H",
    0xDD: ">I",
    0xDE: ">H",
    0xDF: ">I",
    0xC7: ">B",
    0xC8: ">H",
    0xC9: ">I",
}
CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


@frozen
class Span:
    """Bytes `begin` to `end` of the file: a binary string, or an ext of this code."""

    begin: int
    end: int
    code: int = 0


def is_msgpack(head: bytes) -> bool:
    """Whether a file begins as a msgpack map whose first key is a text."""
    first = head[:1]
    skip = 1 if b"\x81" <= first <= b"\x8f" else {b"\xde": 3, b"\xdf": 5}.get(first, 0)
    key = head[skip : skip + 1]
    return bool(skip and key) and (0xA0 <= key[0] <= 0xBF or 0xD9 <= key[0] <= 0xDB)


@frozen
class Reader:
    """Reads msgpack values (github.com/msgpack/msgpack spec.md) up to `limit`; binaries and exts as spans.

    `met` counts what was read: how many values, and bytes of text.
    """

    data: mmap.mmap
    path: Path
    limit: int = -1
    met: list[int] = field(default_factory=lambda: [0, 0])
    most: int = field(default_factory=lambda: limit("FIELDS"))
    deepest: int = field(default_factory=lambda: limit("DEPTH"))

    def within(self, end: int) -> Reader:
        """The same reader for what lies in an ext, up to its end."""
        return Reader(self.data, self.path, end, self.met, self.most, self.deepest)

    def value(self, at: int, depth: int) -> tuple[Any, int]:
        """The value that begins at `at`, and where it ends.

        Raises:
            ValueError: it is damaged. FileError: it is deeper, or there is more, than the limits.
        """
        if depth > self.deepest:
            within("DEPTH", depth, self.path, "its deepest map")
        self.met[0] += 1
        if self.met[0] > self.most:
            within("FIELDS", self.met[0], self.path, "the tree")
        first, at = self._bytes(at, 1)[0], at + 1
        if first < 0x80 or first >= 0xE0:
            return (first if first < 0x80 else first - 256), at
        if first < 0x90:
            return self._map(at, first & 15, depth)
        if first < 0xA0:
            return self._array(at, first & 15, depth)
        if first < 0xC0:
            return self._text(at, first & 31)
        if first in CONSTANTS:
            return CONSTANTS[first], at
        if first in NUMBERS:
            return self._number(at, NUMBERS[first])
        if 0xD4 <= first <= 0xD8:
            return self._ext(at, 1 << (first - 0xD4))
        if first not in LENGTHS:
            raise ValueError(f"byte {first:#x} begins no value")
        length, at = self._number(at, LENGTHS[first])
        if first <= 0xC6:
            return Span(at, self._end(at, length)), at + length
        if first <= 0xC9:
            return self._ext(at, length)
        if first <= 0xDB:
            return self._text(at, length)
        return self._array(at, length, depth) if first <= 0xDD else self._map(at, length, depth)

    def _end(self, at: int, length: int) -> int:
        end = len(self.data) if self.limit < 0 else self.limit
        if at + length > end:
            raise ValueError(f"it is truncated: a value ends at byte {at + length} of {end}")
        return at + length

    def _bytes(self, at: int, length: int) -> bytes:
        return self.data[at : self._end(at, length)]

    def _number(self, at: int, code: str) -> tuple[Any, int]:
        size = struct.calcsize(code)
        return struct.unpack(code, self._bytes(at, size))[0], at + size

    def _text(self, at: int, length: int) -> tuple[str, int]:
        self.met[1] += length
        if length > SHORT:
            within("HEADER", self.met[1], self.path, "the text in it")
        return self._bytes(at, length).decode(), at + length

    def _ext(self, at: int, length: int) -> tuple[Span, int]:
        code = self._bytes(at, 1)[0]
        return Span(at + 1, self._end(at + 1, length), code), at + 1 + length

    def _array(self, at: int, length: int, depth: int) -> tuple[list[Any], int]:
        found = []
        for _ in range(length):
            value, at = self.value(at, depth + 1)
            found.append(value)
        return found, at

    def _map(self, at: int, length: int, depth: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        for _ in range(length):
            key, at = self.value(at, depth + 1)
            if not isinstance(key, str):
                raise ValueError(f"a map with a key that is no text: {type(key).__name__}")
            if key in found:
                raise ValueError(f"a map with the key {shown(key)}, which stands there twice")
            found[key], at = self.value(at, depth + 1)
        return found, at
