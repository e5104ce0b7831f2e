"""safetensors: single files and shards, read in place, written in the order given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

from layoutx.errors import FileError, UsageError
from layoutx.files.blob import DO_AGAIN, Blob, reading, stored, whole
from layoutx.files.dtypes import Array, DType, bits, is_extra, named
from layoutx.files.index import parse_object
from layoutx.files.laid.entry import Entry
from layoutx.files.limits import within
from layoutx.files.names import shown
from layoutx.files.remote import opened
from layoutx.files.store import Store, Tensor
from layoutx.files.written import append_all

# huggingface/safetensors README.md and safetensors 0.8 Dtype; F4 and F6 pack elements across bytes and are refused
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "C64": "complex64",
    "BOOL": "bool",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
CODES = {name: code for code, name in DTYPES.items()}
SAID = frozenset(("dtype", "shape", "data_offsets"))
HEADER_LIMIT = 100_000_000  # the library's own, for what is written; what is read has the limit HEADER
USUAL_RANK = 8  # axes for which no limit is looked up
LARGEST = 1 << 63  # bytes and elements: no file has more


def read_safetensors(path: Path) -> Store:
    """One safetensors file, in the order of its header.

    Raises:
        FileError: the header is damaged or larger than the limits, or the tensors do not fill the file exactly.
    """
    with reading(path, "safetensors"):
        header, start = _header(path)
        metadata = header.pop("__metadata__", None) or {}  # mlx 0.32 writes null
        if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
            raise _broken(path, "__metadata__ is not an object of texts")
        blob = whole(path)
        blob = replace(blob, offset=start, size=blob.size - start)
        spans = {name: _span(name, entry, path) for name, entry in header.items()}
        del header  # as large as all tensors
        _check_spans(spans, blob)
        tensors = {name: _tensor(name, *span, blob) for name, span in spans.items()}
        return Store(path, "safetensors", tensors, metadata)


def write_safetensors(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write C-contiguous native arrays; the header keeps their order, wide dtypes lie first so that all are aligned.

    Raises:
        UsageError: a dtype or a name that the format has no word for.
    """
    entries = [Entry(name, array.dtype, array.shape) for name, array in arrays.items()]
    places = placed(entries)
    text = header_text(entries_text(entries, places), metadata)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in places:
            append_all(file, bits(arrays[name]).data)


def placed(entries: Sequence[Entry]) -> dict[str, tuple[int, int]]:
    """Name -> (begin, end) after the header, in the order of the data: wide dtypes first, so that all are aligned."""
    places: dict[str, tuple[int, int]] = {}
    begin = 0
    for entry in sorted(entries, key=lambda entry: -entry.dtype.itemsize):
        end = begin + entry.nbytes
        places[entry.name] = (begin, end)
        begin = end
    return places


@lru_cache(4096)
def _said(dtype: DType, shape: tuple[int, ...]) -> str | None:
    """What a header says of a tensor before its offsets; None of a dtype that the format has no word for."""
    code = CODES.get(dtype.name)
    return code and f'{{"dtype":"{code}","shape":[{",".join(map(str, shape))}],"data_offsets":['


def entries_text(entries: Sequence[Entry], places: Mapping[str, tuple[int, int]]) -> bytes:
    """What a header says of the tensors, as JSON without the outer braces.

    Raises:
        UsageError: a dtype or a name that the format has no word for.
    """
    texts = []
    for entry in entries:
        said = _said(entry.dtype, entry.shape)
        if said is None or entry.name == "__metadata__":
            raise UsageError(
                f"safetensors cannot hold '{entry.name}'",
                where=f"dtype {entry.dtype}",
                do="convert it to another dtype or choose another format",
            )
        begin, end = places[entry.name]
        texts.append(f"{encode_basestring(entry.name)}:{said}{begin},{end}]}}")
    return ",".join(texts).encode()


def header_text(own: bytes, metadata: Mapping[str, str], room: int = 0) -> bytes:
    """The header as JSON, padded with spaces to whole eights (the format allows them) and for `room` bytes more.

    Args:
        own: of the tensors, see `entries_text`.

    Raises:
        UsageError: a header that no reader takes.
    """
    about = json.dumps(dict(metadata), separators=(",", ":"), ensure_ascii=False).encode() if metadata else b""
    parts = [b'"__metadata__":', about, b"," * bool(own)] if about else []
    text = b"".join((b"{", *parts, own, b"}"))
    length = -(-(len(text) + room) // 8) * 8
    if length > HEADER_LIMIT:
        raise UsageError(
            f"a safetensors header of {length} bytes is too long",
            why=f"readers take at most {HEADER_LIMIT}",
            do="write the tensors in shards (--max-shard-size), or with less metadata",
        )
    return text.ljust(length)


def _header(path: Path) -> tuple[dict[str, Any], int]:
    with opened(path) as file:
        length = int.from_bytes(file.read(8), "little")
        within("HEADER", length, path, "the header")
        text = file.read(length)
    if len(text) < length:
        raise FileError(
            f"{path.name} is truncated",
            where=str(path),
            why=f"the header has {len(text)} of {length} bytes",
            do=DO_AGAIN,
        )
    within("TENSORS", text.count(b'"data_offsets"'), path, "the header")  # before it is parsed
    return parse_object(text, path, "the header"), 8 + length


def _span(name: str, entry: Any, path: Path) -> tuple[DType, tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or not entry.keys() >= SAID:
        raise _broken(path, f"{shown(name)} lacks dtype, shape or data_offsets")
    code, shape, places = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = _dtype(code) if isinstance(code, str) else None
    if dtype is None:
        raise _broken(path, f"{shown(name)} has the dtype {str(code)[:40]!r}, which layoutx does not read")
    if not isinstance(shape, list) or not isinstance(places, list) or len(places) != 2:
        raise _broken(path, f"{shown(name)} has a shape or offsets that are no sizes")
    if len(shape) > USUAL_RANK:
        within("RANK", len(shape), path, shown(name))
    for n in (*shape, *places):
        if type(n) is not int or not 0 <= n < LARGEST:
            raise _broken(path, f"{shown(name)} has a shape or offsets that are no sizes")
    return dtype, tuple(shape), places[0], places[1]


@lru_cache
def _dtype(code: str) -> DType | None:
    """The dtype of a code as it lies in the file; None where layoutx does not read it."""
    found = named(DTYPES[code]) if code in DTYPES else None
    return found if found is None or is_extra(found) else found.newbyteorder("<")


def _check_spans(spans: Mapping[str, tuple[DType, tuple[int, ...], int, int]], blob: Blob) -> None:
    """Tensors lie end to end, without holes or overlaps, and fill the file."""
    at = 0
    for name, (dtype, shape, begin, end) in sorted(spans.items(), key=lambda item: item[1][2:]):
        size = dtype.itemsize
        for n in shape:
            size *= n  # Python's own integers: a forged shape must not wrap around
        if begin != at or end - begin != size:
            why = f"bytes {begin} to {end} do not fit a {dtype} of shape {shape}"
            raise _broken(blob.path, f"{why} after byte {at}: {shown(name)}")
        at = end
    if at > blob.size:
        raise FileError(
            f"{blob.path.name} is truncated",
            where=str(blob.path),
            why=f"the tensors need {at} bytes, the file has {blob.size}",
            do=DO_AGAIN,
        )
    if at < blob.size:
        raise _broken(blob.path, f"{blob.size - at} bytes at its end belong to no tensor")


def _tensor(name: str, dtype: DType, shape: tuple[int, ...], begin: int, _: int, blob: Blob) -> Tensor:
    return stored(name, blob, begin, dtype, shape)


def _broken(path: Path, why: str) -> FileError:
    return FileError(f"{path.name} is not a valid safetensors file", where=str(path), why=why, do=DO_AGAIN)
