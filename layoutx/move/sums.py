"""Checksums by pieces: xxh3 of 8 MiB at a time, and of those sums for a whole tensor.

The checksum of a tensor that anyone can compute again: its bytes in C order and little-endian, cut every 8 MiB
(`PIECE`) counted from its own first byte, the last piece shorter; xxh3 (64 bits, seed 0) of each piece; then xxh3 of
those sums end to end, each as 8 bytes little-endian, written as 16 hexadecimal digits.

An error that hits bytes by chance is missed once in 2**64 times. It is no protection against intent: that is what
SHA-256 is for (`files.certificate.sha256`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xxhash

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
