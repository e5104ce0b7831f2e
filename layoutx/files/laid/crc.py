"""The CRC-32 of a part of a file, computed by several threads and put together."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PIECE = 1 << 26  # what one thread takes at a time
STEP = 1 << 20  # read into one buffer that stays in the cache
POLYNOMIAL = 0xEDB88320  # of CRC-32, bit-reversed: bit 31 is the coefficient of x**0
ONE, BYTE = 1 << 31, 1 << 23  # x**0 and x**8


def crc32(path: Path, begin: int, size: int, jobs: int) -> int:
    """The CRC-32 (as zip files use it) of `size` bytes from `begin` on.

    Raises:
        OSError: the file cannot be read, or ends before.
    """
    pieces = [(at, min(PIECE, begin + size - at)) for at in range(begin, begin + size, PIECE)]
    found = 0
    with ThreadPoolExecutor(max(1, min(jobs, len(pieces)))) as pool:
        parts = pool.map(lambda piece: _piece(path, *piece), pieces)
        for (_, length), part in zip(pieces, parts, strict=True):
            found = joined(found, part, length)
    return found


def joined(first: int, second: int, size: int) -> int:
    """The CRC-32 of two runs of bytes end to end, from theirs; `size` is the length of the second.

    A CRC is the remainder of a polynomial over GF(2), so the first is multiplied by x**(8 * size).
    """
    power, base = ONE, BYTE
    while size:
        if size & 1:
            power = _product(power, base)
        base = _product(base, base)
        size >>= 1
    return _product(power, first) ^ second


def _product(a: int, b: int) -> int:
    """The product of two polynomials modulo that of CRC-32."""
    result = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            result ^= b
        b = b >> 1 ^ (POLYNOMIAL if b & 1 else 0)
    return result


def _piece(path: Path, begin: int, size: int) -> int:
    found, buffer = 0, memoryview(bytearray(min(STEP, size)))
    with path.open("rb", buffering=0) as file:
        file.seek(begin)
        while size:
            count = file.readinto(buffer[: min(size, STEP)])
            if not count:
                raise OSError(f"the file ends {size} bytes too early")
            found = zlib.crc32(buffer[:count], found)
            size -= count
    return found
