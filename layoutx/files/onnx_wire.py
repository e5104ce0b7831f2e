"""An ONNX file without its numbers: messages are walked in place, and large raw data is left in the file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN

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
RAW_DATA, EXTERNAL_DATA, DATA_LOCATION = 9, 13, 14
DEEPEST = 64

Data = bytes | mmap.mmap
Span = tuple[int, int, int, int]  # field number, start of the tag, start and end of the content


def looks_like_onnx(path: Path) -> bool:
    """Whether the file is one protobuf message whose fields are those of an ONNX model, with a graph."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        numbers = set()
        try:
            for number, _, start, end in fields(data, 0, len(data)):
                numbers.add(number)
                if number not in MODEL_FIELDS or (number == 7 and start == end):
                    return False
        except ValueError:
            return False
    return 7 in numbers


def thinned(path: Path) -> bytes:
    """The model's own bytes with each large raw_data replaced by its place in the file, as an external tensor.

    Raises:
        FileError: the file is no protobuf message, or ends within one.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _message(data, 0, len(data), "model", 0)
        except ValueError as error:
            raise FileError(
                f"{path.name} is truncated or damaged", where=str(path), why=str(error), do=DO_AGAIN
            ) from error


def fields(data: Data, start: int, end: int) -> Iterator[Span]:
    """The fields of one message, in order; ValueError where the bytes are none."""
    at = start
    while at < end:
        tag = at
        key, at = _varint(data, at, end)
        kind, begin = key & 7, at
        if kind == 0:
            _, at = _varint(data, at, end)
        elif kind == 2:
            length, begin = _varint(data, at, end)
            at = begin + length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"byte {tag} begins no protobuf field")
        if at > end or not key >> 3:
            raise ValueError(f"the field at byte {tag} reaches to byte {at} of {end}")
        yield key >> 3, tag, begin, at


def _varint(data: Data, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError(f"the number at byte {at} has no end")


def _message(data: Data, start: int, end: int, name: str, depth: int) -> bytes:
    if depth > DEEPEST:
        raise ValueError(f"messages lie more than {DEEPEST} deep")
    if name == "tensor":
        return _tensor(data, start, end)
    inner = INNER.get(name, {})
    out = bytearray()
    for number, tag, begin, stop in fields(data, start, end):
        if number in inner and _is_block(data, tag, end):
            out += field(number, _message(data, begin, stop, inner[number], depth + 1))
        else:
            out += data[tag:stop]
    return bytes(out)


def _tensor(data: Data, start: int, end: int) -> bytes:
    spans = list(fields(data, start, end))
    raw = next((span for span in reversed(spans) if span[0] == RAW_DATA and _is_block(data, span[1], end)), None)
    if raw is None or raw[3] - raw[2] <= KEEP:
        return bytes(data[start:end])
    kept = b"".join(
        data[tag:stop] for number, tag, _, stop in spans if number not in (RAW_DATA, EXTERNAL_DATA, DATA_LOCATION)
    )
    entry = field(1, IN_PLACE.encode()) + field(2, f"{raw[2]} {raw[3] - raw[2]}".encode())
    return kept + field(EXTERNAL_DATA, entry) + bytes((DATA_LOCATION << 3, 1))


def _is_block(data: Data, tag: int, end: int) -> bool:
    return _varint(data, tag, end)[0] & 7 == 2


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
