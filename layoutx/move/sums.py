"""Checksums by pieces: xxh3 of 8 MiB at a time, and of those sums for a whole tensor.

The checksum of a tensor that anyone can compute again: its bytes in C order and little-endian, cut every 8 MiB
(`PIECE`) counted from its own first byte, the last piece shorter; xxh3 (64 bits, seed 0) of each piece; then xxh3 of
those sums end to end, each as 8 bytes little-endian, written as 16 hexadecimal digits.

An error that hits bytes by chance is missed once in 2**64 times. It is no protection against intent: that is what
SHA-256 is for (`files.certificate.sha256`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import RawIOBase
from pathlib import Path

import numpy as np
import xxhash

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN, reading
from layoutx.files.dtypes import Array

PIECE = 8 << 20


def piece_sum(piece: Array | bytes | bytearray | memoryview) -> int:
    """xxh3 of the bytes of a contiguous buffer; other threads run meanwhile.

    Raises:
        ValueError: an array whose numbers do not lie end to end.
    """
    if isinstance(piece, np.ndarray):
        if not piece.flags.c_contiguous:
            raise ValueError("a checksum is of bytes that lie end to end")
        piece = piece.reshape(-1).view(np.uint8).data  # bfloat16 has no buffer of its own
    return int(xxhash.xxh3_64_intdigest(piece))


def tensor_sum(pieces: Iterable[int]) -> str:
    """The checksum of a tensor, from the sums of its pieces of `PIECE` bytes in order; none for an empty one."""
    return str(xxhash.xxh3_64_hexdigest(b"".join(one.to_bytes(8, "little") for one in pieces)))


def array_sum(array: Array) -> str:
    """The checksum of a contiguous array as a tensor."""
    data = array.reshape(-1).view(np.uint8)
    return tensor_sum(piece_sum(data[start : start + PIECE]) for start in range(0, data.size, PIECE))


def file_pieces(path: Path, offset: int, nbytes: int, piece: int = PIECE) -> Iterator[Array]:
    """The bytes of a run of a file, a piece at a time, each in the same buffer: it holds until the next one.

    Raises:
        FileError: the file ends before the run does, or cannot be read.
    """
    buffer = np.empty(min(piece, nbytes), np.uint8)
    with reading(path, "the file it was a moment ago"), path.open("rb", buffering=0) as file:
        file.seek(offset)
        for start in range(0, nbytes, piece):
            wanted = buffer[: min(piece, nbytes - start)]
            _fill(wanted.data, file, path)
            yield wanted


def file_sum(path: Path, offset: int, nbytes: int) -> str:
    """The checksum of the tensor that lies in a run of a file.

    Raises:
        FileError: as `file_pieces`.
    """
    return tensor_sum(piece_sum(piece) for piece in file_pieces(path, offset, nbytes))


def _fill(wanted: memoryview, file: RawIOBase, path: Path) -> None:
    """Read on until the buffer is full: a system may read less than it is asked for."""
    while len(wanted):
        got = file.readinto(wanted)
        if not got:
            raise FileError(f"{path.name} is truncated", where=str(path), why="it ends inside a tensor", do=DO_AGAIN)
        wanted = wanted[got:]
