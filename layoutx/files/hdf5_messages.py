"""Messages of HDF5 object headers as plain data: only the forms that libhdf5 writes unless it is told otherwise.

Field by field after the HDF5 File Format Specification, version 3.0, IV.A.2. A message that differs in a single bit
from what is known here is no error: `NotPlainError` leaves the file to libhdf5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from layoutx.files.dtypes import DType
from layoutx.frozen import frozen

NIL, SPACE, TYPE, FILL, LAYOUT, ATTRIBUTE, CONTINUATION, TABLE, TIME = 0, 1, 3, 5, 8, 12, 16, 17, 18
AT = 2  # bytes before the address in a layout
NOWHERE = (1 << 64) - 1
NUMBER, FIXED, LOOSE = "number", "fixed text", "text"  # as hdf5_attributes has them; the last is of any length
# bits of the exponent and of the fraction, by bytes: IEEE 754
FLOATS = {2: (5, 10), 4: (8, 23), 8: (11, 52)}
# texts of any length that end in NUL, in ASCII and in UTF-8
TEXTS = [bytes.fromhex(f"1901{coding}0010000000 1000000001000000 00000800") for coding in ("00", "01")]
NULS = [
    bytes([coding << 4 | end, 0, 0]) for coding in (0, 1) for end in (0, 1)
]  # a text ends in NUL, or is filled with it
LARGEST = 1 << 31  # bytes of a text, from which on NumPy has no type for it
LOOSE_SIZE = 16  # of each in its attribute: length, heap, and number there
# what h5py makes of bool: an enumeration of int8
BOOL = bytes.fromhex("1802000001000000 1008000001000000 0000080046414c53 4500000054525545 000000000001")

_SPACE, _LAYOUT, _PLACES = (struct.Struct(code) for code in ("<BBB5x", "<BBQQ", "<QQ"))
_ATTRIBUTE, _SIZES = struct.Struct("<BBHHH"), struct.Struct("<HHH")


class NotPlainError(Exception):
    """The file holds something that is left to libhdf5."""


@frozen
class Kind:
    """A datatype.

    Attributes:
        what: NUMBER, FIXED or LOOSE. size: bytes of one.
        dtype: NumPy's; None for texts. said: the same in words.
        coding: of texts: the character set, and how they are padded.
    """

    what: str
    size: int
    dtype: DType | None = None
    said: str = ""
    coding: tuple[int, int] = (0, 0)


@frozen
class Head:
    """An attribute without its value: its name and type, of what shape, and in how many bytes."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    nbytes: int


def _numeric(dtype: DType) -> Kind:
    return Kind(NUMBER, dtype.itemsize, dtype, str(dtype))


def _number(dtype: DType) -> bytes:
    """The message that describes a whole number or a float of NumPy's."""
    size, big = dtype.itemsize, dtype.str[0] == ">"
    if dtype.kind != "f":
        return struct.pack("<BBBBIHH", 0x10, big | (dtype.kind == "i") << 3, 0, 0, size, 0, 8 * size)
    exponent, fraction = FLOATS[size]
    places = (0, 8 * size, fraction, exponent, 0, fraction, (1 << exponent - 1) - 1)
    return struct.pack("<BBBBIHHBBBBI", 0x11, big | 0x20, 8 * size - 1, 0, size, *places)


def _numbers() -> Iterator[DType]:
    for code in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"):
        yield np.dtype("<" + code)
        if code[1] != "1":
            yield np.dtype(">" + code)


KINDS = {_number(dtype): _numeric(dtype) for dtype in _numbers()}
KINDS[BOOL] = _numeric(np.dtype(bool))
KINDS |= {body: Kind(LOOSE, LOOSE_SIZE, coding=(coding, 0)) for coding, body in enumerate(TEXTS)}
KINDS |= {body.ljust(-(-len(body) // 8) * 8, b"\0"): kind for body, kind in KINDS.items()}  # in a message of its own


@lru_cache(256)
def kind_of(body: bytes) -> Kind:
    """The datatype of a message.

    Raises:
        NotPlainError: another than NumPy's numbers, bytes without a meaning, and texts.
    """
    if (known := KINDS.get(body)) is not None:
        return known
    size = int.from_bytes(body[4:8], "little")
    if len(body) == 8 and body[:4] == b"\x15\0\0\0" and 0 < size <= 8:  # bytes whose meaning an attribute tells
        return _numeric(np.dtype(f"V{size}"))
    if len(body) == 8 and body[:1] == b"\x13" and body[1:4] in NULS and 0 < size < LARGEST:
        return Kind(FIXED, size, coding=(body[1] >> 4, body[1] & 15))
    raise NotPlainError


@lru_cache(1024)
def shape_of(body: bytes) -> tuple[int, ...]:
    """The shape of a dataspace.

    Raises:
        NotPlainError: one without a value, or that may grow.
    """
    version, rank, flags = _SPACE.unpack_from(body)
    shape: tuple[int, ...] = struct.unpack_from(f"<{rank}Q", body, 8)
    most = body[8 + 8 * rank :]
    if version != 1 or rank > 32 or flags > 1 or any(body[3:8]) or most != (body[8 : 8 + 8 * rank] if flags else b""):
        raise NotPlainError
    return shape


def is_fill(body: bytes) -> bool:
    """Whether a fill value is the usual one: none of its own."""
    return len(body) == 8 and body[0] == 2 and 1 <= body[1] <= 3 and body[2] <= 2 and body[3:] == b"\1\0\0\0\0"


def place_of(body: bytes) -> tuple[int, int]:
    """Where the bytes of a dataset in one piece begin, and how many they are.

    Raises:
        NotPlainError: it lies otherwise.
    """
    version, how, begin, size = _LAYOUT.unpack_from(body)
    if version != 3 or how != 1 or len(body) != 24 or any(body[18:]):
        raise NotPlainError
    return begin, size


def places_of(body: bytes) -> tuple[int, int]:
    """Where the tree and the heap of a group's names begin."""
    if len(body) != 16:
        raise NotPlainError
    tree, heap = _PLACES.unpack(body)
    return tree, heap


def value_of(body: bytes) -> int:
    """Where the value of an attribute begins, if it is what it should be."""
    name, kind, space = _SIZES.unpack_from(body, 2)
    begin: int = 8 + name + kind + space + -name % 8 + -kind % 8 + -space % 8
    return begin


def head_of(body: bytes) -> Head:
    """What an attribute is.

    Args:
        body: of its message, as far as its value.

    Raises:
        NotPlainError: it has another form, or another type.
    """
    version, zero, *sizes = _ATTRIBUTE.unpack_from(body)
    if version != 1 or zero:
        raise NotPlainError
    parts, at = [], 8
    for size in sizes:
        parts.append(body[at : at + size])
        at += size + -size % 8
        if any(body[at - (-size % 8) : at]):
            raise NotPlainError
    name, kind, shape = parts[0], kind_of(parts[1]), shape_of(parts[2])
    if len(body) != at or name.find(b"\0") != len(name) - 1:
        raise NotPlainError
    return Head(name[:-1].decode("utf-8", "surrogateescape"), kind, shape, prod(shape) * kind.size)


def attribute_of(head: Head, value: bytes, held: Callable[[bytes], list[bytes]]) -> list[Any]:
    """An attribute as `hdf5_attributes` has it.

    Args:
        held: what texts of any length are, of which the value says where they lie.

    Raises:
        NotPlainError: bytes without a meaning; a text that libhdf5 would cut short.
    """
    kind, shape = head.kind, list(head.shape)
    if kind.dtype is not None:
        if kind.dtype.kind == "V":
            raise NotPlainError
        return [head.name, [NUMBER, kind.dtype.str], shape, value.decode("latin-1")]
    if kind.what == FIXED:
        return [head.name, [FIXED, kind.size, *kind.coding], shape, value.decode("latin-1")]
    texts = held(value)
    if any(b"\0" in text for text in texts):
        raise NotPlainError
    return [head.name, [LOOSE, *kind.coding], shape, [text.decode("latin-1") for text in texts]]
