"""flax msgpack: a tree of named arrays, read in place without the msgpack package, and written as flax does."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN, Blob, array_at, reading, viewed, whole
from layoutx.files.dtypes import Array, DType, bits, is_extra, is_numeric, named
from layoutx.files.limits import within
from layoutx.files.msgpack import Reader, Span
from layoutx.files.names import shown
from layoutx.files.nested import nested
from layoutx.files.notes import KEY, from_text, to_text
from layoutx.files.store import Store, Tensor
from layoutx.files.written import append_all
from layoutx.frozen import frozen

# flax 0.12.8 flax/serialization.py _MsgpackExtType, _chunk: an array is ext 1, (shape, dtype name, bytes) packed again;
# a NumPy scalar is ext 3 of the same; an array beyond 1 GiB is a map of flat pieces under "chunks".
NDARRAY, SCALAR = 1, 3
CHUNKED = "__msgpack_chunked_array__"
LARGEST = 1 << 56  # elements: NumPy makes no array, not even an empty one, with larger dimensions
LONGEST_DTYPE = 40  # characters
CHUNK = 1 << 30  # bytes: flax.serialization.MAX_CHUNK_SIZE


@frozen
class Leaf:
    """Where an array's numbers lie."""

    dtype: DType
    shape: tuple[int, ...]
    begin: int

    @property
    def nbytes(self) -> int:
        """Number of bytes, by Python's own integers: a forged shape must not wrap around."""
        size = self.dtype.itemsize
        for n in self.shape:
            size *= n
        return size


def read_msgpack(path: Path) -> Store:
    """A flax msgpack file in its own order; names joined with "/", `params/Dense_0/kernel`.

    Leaves that are no arrays (a step count, None) are listed in the metadata `msgpack:skipped`.

    Raises:
        FileError: the file is damaged, or is msgpack of something else than arrays.
    """
    with reading(path, "msgpack"):
        with viewed(path) as data:
            reader = Reader(data, path)
            tree, end = reader.value(0, 0)
            if end != len(data):
                raise _broken(path, f"{len(data) - end} bytes at its end belong to nothing")
            if not isinstance(tree, dict):
                raise _broken(path, "it holds no map of names")
            found: dict[str, Any] = {}
            for name, leaf in _leaves(reader, tree, ""):
                if name in found:
                    raise _broken(path, f"two ways lead to {shown(name)}")
                found[name] = leaf
        arrays = {name: leaf for name, leaf in found.items() if isinstance(leaf, list)}
        if not arrays:
            raise FileError(
                f"{path.name} is msgpack without arrays", where=str(path), why="flax writes arrays as ext 1"
            )
        blob = whole(path)
        note = arrays.pop(f"{KEY}/json", None)
        within("HEADER", sum(piece.nbytes for piece in note or ()), path, "its own note")
        metadata = from_text(_joined(blob, note).tobytes()) if note else {}
        skipped = [f"{name} ({type(leaf).__name__})" for name, leaf in found.items() if not isinstance(leaf, list)]
        if skipped:
            metadata["msgpack:skipped"] = ", ".join(skipped)
        return Store(path, "msgpack", {name: _tensor(name, leaf, blob) for name, leaf in arrays.items()}, metadata)


def write_msgpack(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write a tree that `flax.serialization.msgpack_restore` gives back; "/" in a name goes one level down.

    Metadata is an array of bytes in a collection of its own, `layoutx/json`, which flax carries and does not use.

    Raises:
        UsageError: a name that is also the folder of another one.
    """
    if metadata:
        arrays = {**arrays, f"{KEY}/json": np.frombuffer(to_text(metadata).encode(), np.uint8)}
    tree = nested(arrays)
    with path.open("wb") as file:
        for piece in _packed(tree):
            append_all(file, piece)


def _tensor(name: str, pieces: list[Leaf], blob: Blob) -> Tensor:
    whole_shape = pieces[0].shape
    return Tensor(name, pieces[0].dtype, whole_shape, lambda: _joined(blob, pieces))


def _joined(blob: Blob, pieces: list[Leaf]) -> Array:
    """An array of one piece where it lies; one of several (the first says the whole shape) put together."""
    if len(pieces) == 1:
        return array_at(blob, pieces[0].begin, _little(pieces[0].dtype), pieces[0].shape)
    flat = [array_at(blob, p.begin, _little(p.dtype), p.shape) for p in pieces[1:]]
    return np.concatenate(flat).reshape(pieces[0].shape)


def _little(dtype: DType) -> DType:
    return dtype if is_extra(dtype) else dtype.newbyteorder("<")


def _leaves(reader: Reader, tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Name -> the pieces of an array, or the value that is none."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and CHUNKED in value:
            yield name, _chunks(reader, value)
        elif isinstance(value, dict):
            yield from _leaves(reader, value, f"{name}/")
        elif isinstance(value, Span) and value.code in (NDARRAY, SCALAR):
            yield name, [_leaf(reader, value)]
        else:
            yield name, tuple(value) if isinstance(value, list) else value


def _chunks(reader: Reader, value: Mapping[str, Any]) -> list[Leaf]:
    shape = tuple(value["shape"][str(i)] for i in range(len(value["shape"])))
    pieces = [_leaf(reader, value["chunks"][str(i)]) for i in range(len(value["chunks"]))]
    _check_shape(shape, reader.path)
    first = Leaf(pieces[0].dtype, shape, 0)
    if {len(p.shape) for p in pieces} != {1} or {p.dtype for p in pieces} != {first.dtype}:
        raise ValueError("the pieces of a chunked array are not flat arrays of one dtype")
    if sum(p.nbytes for p in pieces) != first.nbytes:
        raise ValueError("the pieces of a chunked array do not fill its shape")
    return [first, *pieces]


def _leaf(reader: Reader, span: Span) -> Leaf:
    """The array in an ext: shape, dtype name, bytes."""
    parts, end = reader.within(span.end).value(span.begin, 0)
    if not isinstance(parts, list) or [type(part) for part in (*parts[:1], *parts[2:])] != [list, Span]:
        raise ValueError("an array that is not (shape, dtype, bytes)")
    shape, name, body = tuple(parts[0]), parts[1], parts[2]
    _check_shape(shape, reader.path)
    word = name if isinstance(name, str) else reader.data[name.begin : min(name.end, name.begin + 99)].decode()
    dtype = named(word) if word.isidentifier() and len(word) < LONGEST_DTYPE else None
    if dtype is None or not is_numeric(dtype):
        raise ValueError(f"an array of dtype {shown(word)}")
    leaf = Leaf(dtype, shape, body.begin)
    if body.code or end != span.end or body.end - body.begin != leaf.nbytes:
        raise ValueError(f"{body.end - body.begin} bytes do not fit a {dtype} of shape {shape}")
    return leaf


def _check_shape(shape: tuple[Any, ...], path: Path) -> None:
    within("RANK", len(shape), path, "an array")
    if any(type(n) is not int or n < 0 for n in shape) or math.prod(n or 1 for n in shape) > LARGEST:
        raise ValueError(f"{shape} is no shape")


def _packed(tree: Any) -> Iterator[bytes | memoryview]:
    if isinstance(tree, dict):
        yield _sized(0xDF, len(tree))
        for key, value in tree.items():
            yield from _text(key)
            yield from _packed(value)
    elif tree.nbytes > CHUNK:
        step = max(1, CHUNK // tree.dtype.itemsize)
        flat = tree.reshape(-1)
        pieces = [flat[i : i + step] for i in range(0, flat.size, step)]
        yield _sized(0xDF, 3)
        yield from (*_text(CHUNKED), b"\xc3", *_text("shape"), _sized(0xDF, tree.ndim))
        for axis, n in enumerate(tree.shape):
            yield from (*_text(str(axis)), b"\xcf" + struct.pack(">Q", n))
        yield from _text("chunks")
        yield from _packed({str(i): piece for i, piece in enumerate(pieces)})
    else:
        head = _sized(0xDD, 3) + _sized(0xDD, tree.ndim)
        head += b"".join(b"\xcf" + struct.pack(">Q", n) for n in tree.shape)
        head += b"".join(_text(tree.dtype.name)) + _sized(0xC6, tree.nbytes)
        yield _sized(0xC9, len(head) + tree.nbytes) + bytes([NDARRAY]) + head
        yield bits(tree).data


def _sized(code: int, length: int) -> bytes:
    return bytes([code]) + struct.pack(">I", length)


def _text(text: str) -> tuple[bytes, bytes]:
    raw = text.encode()
    return _sized(0xDB, len(raw)), raw


def _broken(path: Path, why: str) -> FileError:
    return FileError(f"{path.name} is not a flax msgpack file", where=str(path), why=why, do=DO_AGAIN)
