"""Stored tensors read span by span from wherever they lie, so that a terabyte needs no more memory than a megabyte."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN, Blob, array_at, blob_of, reading
from layoutx.files.dtypes import Array, bits
from layoutx.files.hashes import SPAN, XXH3, Leaves, together
from layoutx.files.remote import fetch, url_of
from layoutx.files.store import Tensor
from layoutx.move.filled import room
from layoutx.move.place import Unit
from layoutx.move.pool import threads

FAR = Lock()  # one tensor of a remote file at a time: `fetch` makes several requests itself


def hashes_of(tensors: Sequence[Tensor], jobs: int, kind: str = XXH3) -> list[str]:
    """The hash of each stored tensor, every byte read once.

    A tensor that the file has compressed, or in another byte order or axis order, is read whole.

    Raises:
        FileError: one that cannot be read, or ends early.
    """
    leaves = [Leaves(tensor.nbytes, kind) for tensor in tensors]
    found = [together(t.dtype, t.shape, b"", kind) if not t.nbytes else "" for t in tensors]
    with Files() as files:

        def one(unit: Unit) -> int:
            for at, number in unit:
                if _look(tensors[at], number, leaves[at], files):
                    found[at] = together(tensors[at].dtype, tensors[at].shape, leaves[at].taken(), kind)
            return sum(min(SPAN, tensors[at].nbytes) for at, _ in unit)

        threads(one, _units(tensors), jobs, many=sum(tensor.nbytes for tensor in tensors))
    return found


class Files:
    """Files that are read at places of theirs; open until the block ends."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}
        self._lock = Lock()

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            os.close(file)

    def read(self, blob: Blob, offset: int, size: int, name: str = "stored") -> Array:
        """Bytes of a plain file, in this thread's buffer of that name.

        Raises:
            FileError: it cannot be read, or is shorter.
        """
        with reading(blob.path, "the file it was a moment ago"):
            with self._lock:
                if blob.path not in self._open:
                    self._open[blob.path] = os.open(blob.path, os.O_RDONLY)
                file = self._open[blob.path]
            buffer = room(name, np.dtype(np.uint8), size)
            at = 0
            while at < size:
                got = os.preadv(file, [buffer[at:].data], blob.offset + offset + at)
                if not got:
                    raise FileError(f"{blob.path.name} is truncated", where=str(blob.path), do=DO_AGAIN)
                at += got
        return buffer


def plain(tensor: Tensor) -> tuple[Blob, int] | None:
    """Where the bytes of a tensor lie end to end as they are; None where it has to be read whole."""
    blob = blob_of(tensor)
    if blob is None or blob.packed is not None or getattr(tensor.read, "func", None) is not array_at:
        return None
    _, offset, dtype, _, order = tensor.read.args  # type: ignore[attr-defined]
    straight = order == "C" or len([n for n in tensor.shape if n != 1]) < 2
    return (blob, offset) if straight and dtype == tensor.dtype else None


def _units(tensors: Sequence[Tensor]) -> Iterator[Unit]:
    """A span of a tensor, or small whole ones together."""
    batch: Unit = []
    size = 0
    for at, tensor in enumerate(tensors):
        if not tensor.nbytes:
            continue
        found = plain(tensor)
        if tensor.nbytes > SPAN and found is not None and url_of(found[0].path) is None:
            yield from ([(at, number)] for number in range(-(-tensor.nbytes // SPAN)))
            continue
        if size + tensor.nbytes > SPAN and batch:
            yield batch
            batch, size = [], 0
        batch.append((at, -1))
        size += tensor.nbytes
    if batch:
        yield batch


def _look(tensor: Tensor, number: int, leaves: Leaves, files: Files) -> bool:
    """Feed one span of a tensor, or (-1) all of it, to its hash; True where nothing is missing any more."""
    found = plain(tensor)
    if found is None:
        return leaves.feed(0, bits(tensor.read()))
    blob, offset = found
    if url_of(blob.path) is not None:
        begin = blob.offset + offset
        ranges = [(begin, begin + tensor.nbytes)]
        with FAR:
            fetch(blob.path, ranges, lambda at, data: leaves.feed(at - begin, np.frombuffer(data, np.uint8)))
        return leaves.complete
    start = max(number, 0) * SPAN
    return leaves.feed(start, files.read(blob, offset + start, min(SPAN, tensor.nbytes - start)))
