"""The blocks of an HDF5 file: superblock, object headers, and the trees and heaps of names; each inside the file.

After the HDF5 File Format Specification, version 3.0: II.A (version 0), III.A.1, III.C, III.D, III.E and IV.A.1.a. All
that is read together is no more than twice the file: blocks that hold each other, or are met again and again, end.
"""

from __future__ import annotations

import struct

from layoutx.files.hdf5_messages import CONTINUATION, NOWHERE, NotPlainError, places_of
from layoutx.files.magic import HDF5
from layoutx.frozen import frozen

LONGEST = 4096  # bytes of a name
LEVELS = 8  # of a tree; with 2 children at least in each that is not the root
FLAGS = (0, 1, 4, 5)  # of a message: it does not change, it is not shared
LAST = 1  # of the free blocks of a heap: where the next one would be

_START = struct.Struct("<8s5B3BHHIQQQQ")
_ROOT = struct.Struct("<QQI4xQQ")
_HEADER, _MESSAGE = struct.Struct("<BxHII4x"), struct.Struct("<HHB3x")
_TREE, _HEAP, _NODE, _NAME = (struct.Struct(code) for code in ("<4sBBHQQ", "<4sB3xQQQ", "<4sBxH", "<QQI20x"))
_PAIR, _GLOBAL, _HELD = struct.Struct("<QQ"), struct.Struct("<4sB3xQ"), struct.Struct("<HHIQ")
FIRST, EACH = _HEADER.size, _MESSAGE.size  # bytes before the first message, and before the body of each
Links = list[tuple[bytes, int]]


@frozen
class Object:
    """An object by the types and the bodies of its messages."""

    is_group: bool
    kinds: tuple[int, ...]
    bodies: list[bytes]

    def one(self, kind: int) -> bytes:
        """The body of the first message of a type."""
        return self.bodies[self.kinds.index(kind)]

    def all(self, kind: int) -> list[bytes]:
        """The bodies of all messages of a type."""
        return [body for found, body in zip(self.kinds, self.bodies, strict=True) if found == kind]

    def begin(self, kind: int) -> int:
        """Where the first message of a type begins, if it does in the first piece of the header."""
        return FIRST + sum(EACH + len(body) for body in self.bodies[: self.kinds.index(kind)]) + EACH


class Blocks:
    """The blocks of the HDF5 file in some bytes, which are read as they are asked for.

    Attributes:
        end: of the file, as it says.
        root: where the header of the root group is; places: of the tree and the heap of its names.
    """

    def __init__(self, data: memoryview, most: int) -> None:
        """Read the superblock.

        Args:
            most: bytes that may be read.

        Raises:
            NotPlainError: as all of this class: it has another form than libhdf5's usual one.
        """
        self._data, self.end, self._left = data, len(data), min(most, 2 * len(data))
        self._heaps: dict[int, dict[int, bytes]] = {}
        start = _START.unpack(self.part(0, _START.size))
        sign, versions, (leaf, inner, flags) = start[0], start[1:9], start[9:12]
        base, free, end, driver = start[12:]
        if sign != HDF5 or versions != (0, 0, 0, 0, 0, 8, 8, 0) or flags or not (leaf and inner):
            raise NotPlainError
        if base or free != NOWHERE or driver != NOWHERE or end > len(data):
            raise NotPlainError
        self.end = end
        self._node, self._tree = _NODE.size + 2 * leaf * _NAME.size, _TREE.size + 8 + 2 * inner * 16
        self._most_names, self._most_children = 2 * leaf, 2 * inner
        _, self.root, cached, *places = _ROOT.unpack(self.part(_START.size, _ROOT.size))
        self.places = tuple(places)
        if cached != 1:
            raise NotPlainError

    def part(self, begin: int, size: int) -> bytes:
        """Bytes of the file; those of all calls are counted."""
        self._left -= size
        if self._left < 0 or begin + size > self.end:
            raise NotPlainError
        return self._data[begin : begin + size].tobytes()

    def count(self, size: int) -> None:
        """Count what is made of bytes that were read as if it were read."""
        self._left -= size
        if self._left < 0:
            raise NotPlainError

    def header(self, at: int) -> bytes:
        """An object header, as far as it lies in one piece."""
        version, _, _, size = _HEADER.unpack(self.part(at, _HEADER.size))
        if version != 1:
            raise NotPlainError
        return self.part(at, _HEADER.size + size)

    def messages(self, header: bytes) -> tuple[tuple[int, ...], list[bytes]]:
        """The types and the bodies of all messages of an object header."""
        kinds: list[int] = []
        bodies: list[bytes] = []
        count = _HEADER.unpack_from(header)[1]
        blocks = [(header, _HEADER.size)]
        for block, place in blocks:  # which grow meanwhile
            while place < len(block):
                kind, size, flags = _MESSAGE.unpack_from(block, place)
                place += _MESSAGE.size + size
                body = block[place - size : place]
                if flags not in FLAGS or size % 8 or place > len(block) or len(kinds) == count:
                    raise NotPlainError
                if kind == CONTINUATION:
                    blocks.append((self.part(*places_of(body)), 0))
                    if not blocks[-1][0]:
                        raise NotPlainError
                kinds.append(kind)
                bodies.append(body)
        if len(kinds) != count:
            raise NotPlainError
        return tuple(kinds), bodies

    def links(self, tree: int, heap: int) -> Links:
        """The names in a group with the addresses that they lead to, in the order of their bytes."""
        names = self._names(heap)
        found: Links = []
        beside: dict[int, tuple[int, int]] = {}
        self._add(found, tree, names, None, beside)
        for _, right in beside.values():
            if right != NOWHERE:
                raise NotPlainError
        return found

    def _add(self, found: Links, at: int, names: bytes, level: int | None, beside: dict[int, tuple[int, int]]) -> None:
        """Add the links of a tree, or of its branch of a level.

        Args:
            beside: by level, the branch before this one and what it has for its neighbour on the right.
        """
        block = self.part(at, self._tree)
        sign, kind, own, count, left, right = _TREE.unpack_from(block)
        if sign != b"TREE" or kind or own > LEVELS or count > self._most_children:
            raise NotPlainError
        if level is not None and (own != level or not count):
            raise NotPlainError
        if beside.get(own, (NOWHERE, at)) != (left, at):
            raise NotPlainError
        beside[own] = at, right
        places = struct.unpack_from(f"<{2 * count + 1}Q", block, _TREE.size)
        for number in range(0, 2 * count, 2):
            first = len(found)
            if own:
                self._add(found, places[number + 1], names, own - 1, beside)
            else:
                self._add_node(found, places[number + 1], names)
            before, last = _name(names, places[number]), _name(names, places[number + 2])
            if not before < found[first][0] or found[-1][0] > last:  # where libhdf5 looks for a name
                raise NotPlainError

    def _add_node(self, found: Links, at: int, names: bytes) -> None:
        block = self.part(at, self._node)
        sign, version, count = _NODE.unpack_from(block)
        if sign != b"SNOD" or version != 1 or not 0 < count <= self._most_names:
            raise NotPlainError
        for place in range(_NODE.size, _NODE.size + count * _NAME.size, _NAME.size):
            begin, address, cached = _NAME.unpack_from(block, place)
            name = _name(names, begin)
            self.count(len(name))
            if cached > 1 or name == b"." or b"/" in name:  # a soft link, and what is no name
                raise NotPlainError
            if found and found[-1][0] >= name:
                raise NotPlainError
            found.append((name, address))

    def _names(self, at: int) -> bytes:
        """The data of a local heap."""
        sign, version, size, free, place = _HEAP.unpack(self.part(at, _HEAP.size))
        if sign != b"HEAP" or version:
            raise NotPlainError
        data, left = self.part(place, size), size
        while free != LAST:  # libhdf5 follows the list of what is free, and a forged one for ever
            if free > size:
                raise NotPlainError
            here = free
            free, taken = _PAIR.unpack_from(data, here)
            left -= taken
            if taken < _PAIR.size or left < 0 or here + taken > size:
                raise NotPlainError
        return data

    def held(self, at: int, number: int) -> bytes:
        """An object of a global heap."""
        if at not in self._heaps:
            self._heaps[at] = self._objects(at)
        found = self._heaps[at].get(number)
        if found is None:
            raise NotPlainError
        return found

    def _objects(self, at: int) -> dict[int, bytes]:
        sign, version, size = _GLOBAL.unpack(self.part(at, _GLOBAL.size))
        if sign != b"GCOL" or version != 1 or size < 4096:
            raise NotPlainError
        block = self.part(at, size)
        found: dict[int, bytes] = {}
        place = _GLOBAL.size
        while place + _HELD.size <= size:
            number, _, _, length = _HELD.unpack_from(block, place)
            begin = place + _HELD.size
            place = begin + -(-length // 8) * 8
            if not number:  # what is free: all the rest
                if begin - _HELD.size + length != size:
                    raise NotPlainError
                break
            if number in found or place > size:
                raise NotPlainError
            found[number] = block[begin : begin + length]
        return found


def _name(names: bytes, place: int) -> bytes:
    end = names.find(b"\0", place, place + LONGEST)
    if end < 0:
        raise NotPlainError
    return names[place:end]
