"""The hash of a tensor by what it holds: made in any order, by several threads, and checked again without the file.

The hash that anyone can compute again: the tensor's bytes in C order and little-endian, cut every 128 KiB (`LEAF`)
from its first byte, the last leaf shorter; the digest of each leaf; then the digest of `<dtype> <shape>\\n` (as in
`float32 128,64`; NumPy's and ml_dtypes' names) followed by the leaves' digests end to end, in hexadecimal. A tensor's
name is no part of it.

Digests are xxh3 of 128 bits (seed 0, as xxhash prints them), or SHA-256. An error that hits bytes by chance is missed
once in 2**128 times by either; what somebody forges on purpose only SHA-256 shows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from threading import Lock

import xxhash

from layoutx.files.dtypes import Array, DType, bits

LEAF = 128 << 10
SPAN = 16 * LEAF  # bytes that are read at a time
LOCK = Lock()  # of all ranges: it is held for moments, and a hundred thousand locks would take longer to make
XXH3, SHA256 = "xxh3-128", "sha256"


def _sha256(data: memoryview | bytes) -> bytes:
    import hashlib  # 3 ms that only those pay who ask for it

    return hashlib.sha256(data).digest()


KINDS: dict[str, Callable[[memoryview | bytes], bytes]] = {XXH3: xxhash.xxh3_128_digest, SHA256: _sha256}
WIDTHS = {XXH3: 16, SHA256: 32}  # bytes of a digest


def leaves_of(data: Array, kind: str = XXH3) -> bytes:
    """The digests of flat uint8, leaf by leaf."""
    digest, view = KINDS[kind], data.data
    if len(view) <= LEAF:
        return digest(view) if len(view) else b""
    return b"".join(digest(view[at : at + LEAF]) for at in range(0, len(view), LEAF))


def together(dtype: DType, shape: tuple[int, ...], leaves: bytes | bytearray, kind: str = XXH3) -> str:
    """The hash of a tensor from the digests of its leaves."""
    return KINDS[kind](_head(dtype, shape) + leaves).hex()


@lru_cache(4096)
def _head(dtype: DType, shape: tuple[int, ...]) -> bytes:
    """The line before the leaves; NumPy takes its time over a name."""
    return f"{dtype.name} {','.join(map(str, shape))}\n".encode()


def hash_of(array: Array, kind: str = XXH3) -> str:
    """The hash of a C-contiguous array."""
    return together(array.dtype, array.shape, leaves_of(bits(array), kind), kind)


class Leaves:
    """The digests of a range of bytes that arrive in any order, each byte once; from several threads."""

    def __init__(self, size: int, kind: str = XXH3) -> None:
        """`size`: bytes in the range."""
        self.size, self._kind, self._width = size, kind, WIDTHS[kind]
        self.digests = bytearray()
        self._left = size
        self._open: dict[int, tuple[bytearray, list[int]]] = {}  # leaf -> its bytes, how many are missing

    @property
    def complete(self) -> bool:
        """Whether all bytes have arrived."""
        return self._left == 0

    def taken(self) -> bytes:
        """All digests, in order; they are not kept, for those of a terabyte are many.

        Raises:
            ValueError: bytes are missing.
        """
        if self._left:
            raise ValueError("a hash was asked for before all bytes were there")
        found, self.digests = bytes(self.digests), bytearray()
        return found

    def feed(self, at: int, data: Array) -> bool:
        """Bytes, flat uint8, that begin `at` bytes into the range; True where they are the last ones missing."""
        end = at + len(data)
        if end - at == self._left == self.size:
            self.digests, self._left = bytearray(leaves_of(data, self._kind)), 0
            return end > 0
        with LOCK:
            if not self.digests:
                self.digests = bytearray(self._width * -(-self.size // LEAF))
        begin = min(-(-at // LEAF) * LEAF, end)
        if at < begin:
            self._part(at, data[: begin - at])
        stop = end if end == self.size else max(end // LEAF * LEAF, begin)
        if begin < stop:
            found = leaves_of(data[begin - at : stop - at], self._kind)
            first = begin // LEAF * self._width
            self.digests[first : first + len(found)] = found
        if stop < end:
            self._part(stop, data[stop - at :])
        with LOCK:
            self._left -= len(data)
            return self._left == 0 and len(data) > 0

    def _part(self, at: int, data: Array) -> None:
        """A part of one leaf, kept until the rest of it comes."""
        leaf, start = divmod(at, LEAF)
        with LOCK:
            if leaf not in self._open:
                size = min(LEAF, self.size - leaf * LEAF)
                self._open[leaf] = (bytearray(size), [size])
            room, missing = self._open[leaf]
            room[start : start + len(data)] = data.data
            missing[0] -= len(data)
            if missing[0] > 0:
                return
            del self._open[leaf]
        first = leaf * self._width
        self.digests[first : first + self._width] = KINDS[self._kind](bytes(room))
