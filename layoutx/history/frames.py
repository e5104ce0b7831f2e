"""The file of a history: frames put one behind the other, so that a crash costs the frame that was being written.

A frame is a header of 28 bytes (little endian: b"lxhf", kind, length of the text, length of the data, CRC-32 of the
text, CRC-32 of the header), JSON text, then the data. The kinds are `head` (once, at the start: what is recorded),
`step` (one moment) and `note`. What stands behind the last whole frame is what a crash left of the next one.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from layoutx.errors import FileError
from layoutx.files.magic import HISTORY as MAGIC
from layoutx.files.written import append_all
from layoutx.frozen import frozen

HEADER = struct.Struct("<4s4sIQI")
LENGTH = HEADER.size + 4
HEAD, STEP, NOTE = "head", "step", "note"
Array = np.ndarray[Any, Any]


@frozen
class Frame:
    """One whole frame: its text, and where its data begins and ends in the file."""

    kind: str
    text: Mapping[str, Any]
    start: int
    end: int


def is_history(path: Any) -> bool:
    """Whether a path is that of a file which begins like a history."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, TypeError, ValueError):
        return False


def packed(kind: str, text: Mapping[str, Any], nbytes: int) -> bytes:
    """Header and text of a frame that `nbytes` of data follow."""
    body = json.dumps(text, separators=(",", ":")).encode()
    header = HEADER.pack(MAGIC, kind.encode(), len(body), nbytes, zlib.crc32(body))
    return header + struct.pack("<I", zlib.crc32(header)) + body


def append(file: BinaryIO, kind: str, text: Mapping[str, Any], arrays: Sequence[Array] = ()) -> None:
    """Write one frame and hand it to the system; a process that is killed afterwards does not lose it.

    Args:
        arrays: C-contiguous; their CRC-32 go into the text as `crc`.
    """
    flat = [np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in arrays]
    views = [memoryview(a) for a in flat]  # type: ignore[arg-type]  # numpy says so from 3.12 on only
    sums = {"crc": [zlib.crc32(v) for v in views]} if views else {}
    file.write(packed(kind, {**text, **sums}, sum(v.nbytes for v in views)))
    for v in views:
        append_all(file, v)
    file.flush()


def frames(file: BinaryIO, name: str) -> Iterator[Frame]:
    """The whole frames of a file, in order; what is cut off or damaged ends it.

    Raises:
        FileError: the file does not begin like a history, or begins with a torn head.
    """
    size = file.seek(0, os.SEEK_END)
    at, first = 0, True
    while at < size:
        found = _frame(file, at, size)
        if first and (found is None or found.kind != HEAD):
            raise FileError(f"{name} is not a history of layoutx", why="it does not begin with a whole head")
        if found is None:
            return
        first = False
        yield found
        at = found.end


def _frame(file: BinaryIO, at: int, size: int) -> Frame | None:
    file.seek(at)
    header = file.read(LENGTH)
    if len(header) < LENGTH or struct.unpack("<I", header[HEADER.size :])[0] != zlib.crc32(header[: HEADER.size]):
        return None
    magic, kind, length, nbytes, crc = HEADER.unpack(header[: HEADER.size])
    start = at + LENGTH + length
    if magic != MAGIC or start + nbytes > size:
        return None
    body = file.read(length)
    if zlib.crc32(body) != crc:
        return None
    try:
        text = json.loads(body)
    except (ValueError, RecursionError):  # its checksum is right: no writer of ours made it
        return None
    return Frame(kind.decode(errors="replace"), text, start, start + nbytes) if isinstance(text, dict) else None


def whole(path: Path) -> tuple[list[Frame], int]:
    """The whole frames of a file and how many bytes of a torn one stand behind them; the last one's data is checked.

    Raises:
        UsageError: no such file. FileError: it is no history.
    """
    try:
        with path.open("rb") as file:
            found = list(frames(file, path.name))
            size = file.seek(0, os.SEEK_END)
            if found and found[-1].kind == STEP and not _sound(file, found[-1], found[0]):
                found.pop()
    except FileNotFoundError as error:
        from layoutx.files.open import no_file

        raise no_file(path) from error
    except OSError as error:
        raise FileError(f"{path.name or path} cannot be read", where=str(path), why=str(error)) from error
    if not found:
        raise FileError(f"{path.name} is empty", why="not even its head was written")
    return found, size - found[-1].end


def _sound(file: BinaryIO, frame: Frame, head: Frame) -> bool:
    """Whether the data of a step is what was written: a machine that lost its power may have kept the length alone."""
    file.seek(frame.start)
    left = frame.end - frame.start
    try:
        for slot, crc in zip(head.text["slots"], frame.text.get("crc", ()), strict=False):
            data = file.read(min(slot["nbytes"], left))
            if zlib.crc32(data) != crc:
                return False
    except (KeyError, TypeError, ValueError):  # no texts of ours: `sound.check` says what is wrong with them
        return False
    return True
