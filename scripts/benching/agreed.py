"""Whether two weights files hold the same tensors, bit for bit; read without layoutx."""

from __future__ import annotations

import json
import math
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PIECE = 1 << 23


@dataclass(frozen=True, slots=True)
class Held:
    """Where the bytes of one tensor lie."""

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str
    nbytes: int


def held(path: Path) -> dict[str, Held]:
    """Every tensor of a `.safetensors`, its index, a `.weights.h5` or a `.keras`."""
    if path.name.endswith(".index.json"):
        shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        return {name: one for shard in shards for name, one in held(path.parent / shard).items()}
    if path.suffix == ".safetensors":
        return _safetensors(path)
    return _hdf5(path, _inner(path) if path.suffix == ".keras" else 0)


def differences(one: Path, other: Path) -> list[str]:
    """What is different between two files; [] where every tensor is the same."""
    here, there = held(one), held(other)
    found = [f"{name} is in one file only" for name in sorted(here.keys() ^ there.keys())]
    maps = {file: np.memmap(file, np.uint8, "r") for file in {h.file for h in (*here.values(), *there.values())}}
    for name in here.keys() & there.keys():
        a, b = here[name], there[name]
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            found.append(f"{name}: {a.dtype} {a.shape}, {b.dtype} {b.shape}")
        elif not _same(maps[a.file], a, maps[b.file], b):
            found.append(f"{name}: other numbers")
    return found


def _same(one: Any, a: Held, other: Any, b: Held) -> bool:
    for start in range(0, a.nbytes, PIECE):
        size = min(PIECE, a.nbytes - start)
        # bytes of both are compared by memcmp
        left = memoryview(one)[a.offset + start : a.offset + start + size].tobytes()
        if left != memoryview(other)[b.offset + start : b.offset + start + size].tobytes():
            return False
    return True


def _safetensors(path: Path) -> dict[str, Held]:
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    return {
        name: Held(
            path,
            8 + size + one["data_offsets"][0],
            tuple(one["shape"]),
            one["dtype"],
            one["data_offsets"][1] - one["data_offsets"][0],
        )
        for name, one in header.items()
    }


def _inner(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("model.weights.h5").header_offset
    with path.open("rb") as file:
        file.seek(at + 26)
        names, extra = struct.unpack("<HH", file.read(4))
    return int(at + 30 + names + extra)


def _hdf5(path: Path, base: int) -> dict[str, Held]:
    import h5py

    found: dict[str, Held] = {}

    def visit(name: str, one: Any) -> None:
        if isinstance(one, h5py.Dataset):
            dtype = str(one.attrs.get("dtype", one.dtype))
            nbytes = math.prod(one.shape) * one.dtype.itemsize
            found[name] = Held(path, base + (one.id.get_offset() or 0), one.shape, dtype, nbytes)

    with path.open("rb") as plain, h5py.File(_Part(plain, base) if base else path, "r") as file:
        file.visititems(visit)
    return found


class _Part:
    """A file from an offset on, for h5py."""

    def __init__(self, file: Any, base: int) -> None:
        self._file, self._base = file, base
        file.seek(base)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset + (self._base if whence == 0 else 0), whence)) - self._base

    def tell(self) -> int:
        return int(self._file.tell()) - self._base

    def readinto(self, buffer: Any) -> int:
        return int(self._file.readinto(buffer))

    def read(self, size: int = -1) -> bytes:
        return bytes(self._file.read(size))
