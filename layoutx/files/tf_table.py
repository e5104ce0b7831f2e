"""The index of a TensorFlow checkpoint, read entry by entry before TensorFlow's C++ sees it, which trusts it.

Format: tensorflow/core/lib/io/table_format.txt (a table of sorted keys in blocks), tensor_bundle.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from layoutx.errors import FileError
from layoutx.files.boxes import check_boxes
from layoutx.files.index import beside
from layoutx.files.limits import within
from layoutx.files.names import shown
from layoutx.files.onnx_wire import fields, varint

FOOTER, TRAILER = 48, 5  # bytes: two handles and the magic number; a block's compression and checksum
# DataType of tensorflow/core/framework/types.proto -> bytes of an element; text and resources have no fixed size
SIZES = {1: 4, 2: 8, 3: 4, 4: 1, 5: 2, 6: 1, 8: 8, 9: 8, 10: 1, 11: 1, 12: 1, 13: 4, 14: 2, 15: 2, 16: 2, 17: 2} | {
    18: 16,
    19: 2,
    22: 4,
    23: 8,
    24: 1,
    25: 1,
}
Box = tuple[tuple[int, int], ...]  # of a slice: where it starts on each axis, and how long it is (-1: all)


@dataclass(slots=True)
class Entry:
    """What the index says of one tensor, or of one slice of it."""

    dtype: int = 0
    shape: list[int] = field(default_factory=list)
    shard: int = 0
    offset: int = 0
    size: int = 0
    slices: list[Box] = field(default_factory=list)


def check_index(path: Path) -> None:
    """Refuse an index whose tensors do not lie in the data files beside it, as large as their shapes say.

    Raises:
        FileError: the table is damaged or larger than the limits; a data file is missing, short or elsewhere; shapes
            and sizes that do not fit, slices that cross.
        ValueError: the same, to be given its place by `blob.reading`.
    """
    within("HEADER", path.stat().st_size, path, "the index")
    data = path.read_bytes()
    shards, sizes = 1, dict[int, int]()
    count = 0
    for key, value in _table(data):
        if not key:
            shards = next((n for number, n in _numbers(value) if number == 1), 0)
            continue
        count += 1
        within("TENSORS", count, path, "the index") if count % 1000 == 0 else None
        entry = _entry(value)
        name = shown(key.decode("utf-8", "replace"))
        within("RANK", len(entry.shape), path, name)
        _check(name, entry)
        if entry.shard not in sizes:
            sizes[entry.shard] = _size_of(path, entry.shard, shards)
        if entry.offset + entry.size > sizes[entry.shard]:
            raise FileError(
                f"{path.name}: the data of {name} is cut short",
                where=[str(path), f"data file {entry.shard}"],
                why=f"it goes from byte {entry.offset} to {entry.offset + entry.size} of {sizes[entry.shard]}",
            )


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a table, in order."""
    if len(data) < FOOTER:
        raise ValueError("the index is too short")
    at = len(data) - FOOTER
    for _ in range(2):  # the handle of the index of blocks is the second
        start, at = varint(data, at, len(data))
        size, at = varint(data, at, len(data))
    before = b""
    for _, handle in _block(data, start, size):
        begin, then = varint(handle, 0, len(handle))
        for key, value in _block(data, begin, varint(handle, then, len(handle))[0]):
            if before and key <= before:
                raise ValueError("its keys are not in order")
            before = key
            yield key, value


def _block(data: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of one block."""
    end = start + size
    if size < 4 or end + TRAILER > len(data):
        raise ValueError(f"a block goes from byte {start} to {end} of {len(data)}")
    if data[end]:
        raise ValueError("a block is compressed, which TensorFlow does not do")
    end -= 4 + 4 * int.from_bytes(data[end - 4 : end], "little")  # the offsets of keys that are whole
    if end < start:
        raise ValueError("a block has more restarts than bytes")
    at, key = start, b""
    while at < end:
        shared, at = varint(data, at, end)
        own, at = varint(data, at, end)
        length, at = varint(data, at, end)
        if shared > len(key) or at + own + length > end:
            raise ValueError("a key or a value reaches out of its block")
        key = key[:shared] + data[at : at + own]
        yield key, data[at + own : at + own + length]
        at += own + length


def _numbers(message: bytes) -> Iterator[tuple[int, int]]:
    """The fields of a message that are whole numbers, with their sign."""
    for number, tag, begin, end in fields(message, 0, len(message)):
        if message[tag] & 7 == 0:
            value = varint(message, begin, end)[0] & ((1 << 64) - 1)
            yield number, value - (1 << 64) if value >> 63 else value


def _messages(message: bytes, wanted: int) -> Iterator[bytes]:
    for number, tag, begin, end in fields(message, 0, len(message)):
        if number == wanted and message[tag] & 7 == 2:
            yield message[begin:end]


def _entry(value: bytes) -> Entry:
    said = dict(_numbers(value))
    shape = [dict(_numbers(dim)).get(1, 0) for whole in _messages(value, 2) for dim in _messages(whole, 2)]
    boxes: list[Box] = []
    for found in _messages(value, 7):
        extents = [dict(_numbers(extent)) for extent in _messages(found, 1)]
        boxes.append(tuple((extent.get(1, 0), extent.get(2, -1)) for extent in extents))
    return Entry(said.get(1, 0), shape, said.get(3, 0), said.get(4, 0), said.get(5, 0), boxes)


def _check(name: str, entry: Entry) -> None:
    """Refuse sizes that are none, or contradict each other."""
    if min((*entry.shape, entry.shard, entry.offset, entry.size)) < 0:
        raise ValueError(f"{name} has a negative size or place")
    count = prod(entry.shape)
    if entry.slices:
        spans = [
            [(at, at + n) if n >= 0 else (at, whole) for (at, n), whole in zip(box, entry.shape, strict=True)]
            for box in entry.slices
        ]
        check_boxes(spans, entry.shape, name)
    else:  # a text takes a byte at least
        fits = count * SIZES[entry.dtype] == entry.size if entry.dtype in SIZES else count <= max(entry.size, 1)
        if not fits:
            raise ValueError(f"{name} of shape {entry.shape} does not fit into {entry.size} bytes")


def _size_of(path: Path, shard: int, shards: int) -> int:
    """The bytes of a data file, which lies beside the index."""
    name = f"{path.name.removesuffix('.index')}.data-{shard:05d}-of-{shards:05d}"
    place = beside(path, name)
    if place is None or not place.is_file():
        raise FileError(
            f"{path.name} misses a data file",
            where=[str(path), f"it should be {shown(name)} beside it"],
            do="copy all files of the checkpoint to one folder, links followed",
        )
    return place.stat().st_size
