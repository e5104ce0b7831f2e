"""Zip archives written by hand, field by field, so that each can lie."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Entry:
    """A member; `local` and `central` overrule what its two headers say: flags, method, crc, packed, size, ..."""

    name: bytes
    data: bytes
    method: int = 0
    local: dict[str, Any] = field(default_factory=dict)
    central: dict[str, Any] = field(default_factory=dict)

    def both(self, **said: Any) -> Entry:
        return replace(self, local={**self.local, **said}, central={**self.central, **said})


def deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def packed(name: str, data: bytes, **said: Any) -> Entry:
    return Entry(name.encode(), deflated(data), 8).both(crc=zlib.crc32(data), size=len(data), **said)


def plain(name: str, data: bytes = b"") -> Entry:
    return Entry(name.encode(), data)


def zip_bytes(
    entries: list[Entry], end: dict[str, Any] | None = None, before: bytes = b"", comment: bytes = b""
) -> bytes:
    """The archive; `end` overrules fields of its end: count, length, begin."""
    body, directory = before, b""
    for entry in entries:
        usual = {"flags": 0, "method": entry.method, "crc": zlib.crc32(entry.data), "packed": len(entry.data)}
        usual |= {"size": len(entry.data), "name": entry.name, "offset": len(body), "extra": b"", "attr": 0, "made": 20}
        here, there = usual | entry.local, usual | entry.central
        common = [
            (x["flags"], x["method"], 0, 33, x["crc"], x["packed"], x["size"], len(x["name"]), len(x["extra"]))
            for x in (here, there)
        ]
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, *common[0]) + here["name"] + here["extra"] + entry.data
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", there["made"], 20, *common[1], 0, 0, 0, there["attr"], there["offset"]
        )
        directory += there["name"] + there["extra"]
    said = {"count": len(entries), "length": len(directory), "begin": len(body)} | (end or {})
    tail = struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, said["count"], said["count"], said["length"], said["begin"], len(comment)
    )
    return body + directory + tail + comment


def npy(array: Any = None, header: bytes = b"", version: bytes = b"\1\0", data: bytes = b"") -> bytes:
    """A .npy file, of an array or with a header of one's own."""
    if array is not None:
        array = np.asarray(array)
        order = array.flags.f_contiguous and not array.flags.c_contiguous
        header = repr({"descr": array.dtype.str, "fortran_order": order, "shape": array.shape}).encode()
        data = array.tobytes("A")
    return b"\x93NUMPY" + version + len(header).to_bytes(2 if version[0] == 1 else 4, "little") + header + data


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
