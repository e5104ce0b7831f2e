"""An ONNX file without its numbers: messages are walked in place, and large raw data is left in the file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN, viewed
from layoutx.files.limits import LIMITS, PREFIX, limit, within

KEEP = 256  # raw data of so many bytes stays in the message: shapes, axes, scalars, which shape inference wants to read
IN_PLACE = "layoutx_offset"  # external_data key of a tensor whose raw data lies in the model file itself

# message -> field number -> message of that field (onnx.proto3, onnx 1.23.2)
INNER = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
MODEL_FIELDS = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26))
DIMS, RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 1, 9, 13, 14
MOST_FIELDS = 100_000  # of a model itself: opsets, metadata and functions
MOST_DIMS = 640  # bytes: NumPy has 64 axes, and a number takes at most ten

Data = bytes | mmap.mmap
Span = tuple[int, int, int, int]  # field number, start of the tag, start and end of the content


def looks_like_onnx(path: Path) -> bool:
    """Whether the file is one protobuf message whose fields are those of an ONNX model, with a graph."""
    with viewed(path) as data:
        numbers = set()
        try:
            for count, (number, _, start, end) in enumerate(fields(data, 0, len(data))):
                numbers.add(number)
                if number not in MODEL_FIELDS or (number == 7 and start == end) or count > MOST_FIELDS:
                    return False
        except ValueError:
            return False
    return 7 in numbers


def thinned(path: Path) -> bytes:
    """The model's own bytes with each large raw_data replaced by its place in the file, as an external tensor.

    Raises:
        FileError: the file is no protobuf message, or ends within one; what is no tensor is larger than the limits.
    """
    with viewed(path) as data:
        walk = _Walk(data, path)
        try:
            out = walk.message(0, len(data), "model", 0)
        except ValueError as error:
            raise FileError(
                f"{path.name} is truncated or damaged", where=str(path), why=str(error), do=DO_AGAIN
            ) from error
    return out


def fields(data: Data, start: int, end: int) -> Iterator[Span]:
    """The fields of one message, in order; ValueError where the bytes are none."""
    at = start
    while at < end:
        tag = at
        key = data[at]  # most tags and lengths are one byte: no call for those
        key, at = (key, at + 1) if key < 128 else varint(data, at, end)
        kind, begin = key & 7, at
        if kind == 0:
            _, at = varint(data, at, end)
        elif kind == 2:
            length = data[at] if at < end else 128
            length, begin = (length, at + 1) if length < 128 else varint(data, at, end)
            at = begin + length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"byte {tag} begins no protobuf field")
        if at > end or not key >> 3:
            raise ValueError(f"the field at byte {tag} reaches to byte {at} of {end}")
        yield key >> 3, tag, begin, at


def varint(data: Data, at: int, end: int) -> tuple[int, int]:
    """The number that begins at a byte, and where it ends; ValueError where it has no end."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError(f"the number at byte {at} has no end")


class _Walk:
    """One walk through a model's messages, which counts what it meets."""

    def __init__(self, data: Data, path: Path) -> None:
        self.data, self.path, self.met, self.kept = data, path, 0, 0
        self.most, self.deepest = limit("FIELDS"), limit("DEPTH")

    def fields(self, start: int, end: int) -> Iterator[Span]:
        """The fields of one message, counted."""
        room = self.most - self.met
        for count, span in enumerate(fields(self.data, start, end), 1):
            if count > room:
                raise self.too_many()
            yield span
        self.met += count if end > start else 0

    def too_many(self) -> FileError:
        return FileError(
            f"{self.path.name}: its graph has more than {self.most} fields",
            where=str(self.path),
            why=LIMITS["FIELDS"].why,
            do=f"if you trust the file, set {PREFIX}FIELDS={len(self.data) // 2}",  # a field has two bytes
        )

    def keep(self, start: int, end: int) -> bytes:
        """Bytes of the structure, which is read whole."""
        self.kept += end - start
        within("HEADER", self.kept, self.path, "the graph without its tensors")
        return self.data[start:end]

    def message(self, start: int, end: int, name: str, depth: int) -> bytes:
        """A message without the large numbers in it; what is too small to hold any is not looked into."""
        if depth > self.deepest:
            within("DEPTH", depth, self.path, "a message in a message")
        if name == "tensor":
            return self.tensor(start, end)
        inner = INNER.get(name, {})
        out, done = bytearray(), start
        for number, tag, begin, stop in self.fields(start, end):
            if stop - begin > KEEP and number in inner and _is_block(self.data, tag, end):
                out += self.keep(done, tag)
                out += field(number, self.message(begin, stop, inner[number], depth + 1))
                done = stop
        return bytes(out + self.keep(done, end))

    def tensor(self, start: int, end: int) -> bytes:
        """A tensor; large raw data stays where it is."""
        raw, kept, outside = None, bytearray(), bytearray()
        for number, tag, begin, stop in self.fields(start, end):
            block = _is_block(self.data, tag, end)
            if number == DIMS and block and stop - begin > MOST_DIMS:
                raise ValueError(f"the tensor at byte {start} has more than 64 axes")
            if number == RAW_DATA and block and stop - begin > KEEP:
                raw = begin, stop - begin
            elif number in (EXTERNAL_DATA, DATA_LOCATION):
                outside += self.data[tag:stop]
            else:
                kept += self.data[tag:stop]
        if raw is None:
            return self.data[start:end]
        if any(number == EXTERNAL_DATA for number, *_ in fields(bytes(outside), 0, len(outside))):
            raise ValueError(f"the tensor at byte {start} has its numbers twice, here and in another file")
        entry = field(1, IN_PLACE.encode()) + field(2, f"{raw[0]} {raw[1]}".encode())
        return bytes(kept) + field(EXTERNAL_DATA, entry) + bytes((DATA_LOCATION << 3, 1))


def _is_block(data: Data, tag: int, end: int) -> bool:
    return varint(data, tag, end)[0] & 7 == 2


def field(number: int, content: bytes) -> bytes:
    """One length-delimited field."""
    return _number(number << 3 | 2) + _number(len(content)) + content


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
