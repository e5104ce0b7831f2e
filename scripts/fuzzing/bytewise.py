"""Mutations of bytes that know nothing of what they mean."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

INTERESTING = (0, 1, -1, 7, 8, 64, 127, 128, 255, 256, 0x7FFF, 0xFFFF, 1 << 31, (1 << 31) - 1, 0xFFFFFFFF)
LARGE = (*INTERESTING, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
Mutation = Callable[[random.Random, bytearray, bytes], None]


def _flip(rng: random.Random, data: bytearray, other: bytes) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, data: bytearray, other: bytes) -> None:
    data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _number(rng: random.Random, data: bytearray, other: bytes) -> None:
    """An integer that programs trip over, or the one that stands there a little larger or smaller."""
    width, code = rng.choice(((2, "H"), (4, "I"), (8, "Q")))
    if len(data) < width:
        return
    at, order = rng.randrange(len(data) - width + 1), rng.choice("<<<>")
    (now,) = struct.unpack_from(order + code, data, at)
    new = rng.choice(LARGE) if rng.random() < 0.6 else now + rng.choice((-1, 1, len(data), -len(data)))
    struct.pack_into(order + code, data, at, new % (1 << 8 * width))


def _cut(rng: random.Random, data: bytearray, other: bytes) -> None:
    del data[rng.randrange(len(data)) :]


def _remove(rng: random.Random, data: bytearray, other: bytes) -> None:
    at, end = _span(rng, data)
    del data[at:end]


def _double(rng: random.Random, data: bytearray, other: bytes) -> None:
    at, end = _span(rng, data)
    data[at:at] = data[at:end] * rng.choice((1, 1, 2, 30))


def _move(rng: random.Random, data: bytearray, other: bytes) -> None:
    at, end = _span(rng, data)
    piece = data[at:end]
    del data[at:end]
    at = rng.randrange(len(data) + 1)
    data[at:at] = piece


def _fill(rng: random.Random, data: bytearray, other: bytes) -> None:
    at, end = _span(rng, data)
    data[at:end] = bytes([rng.choice((0, 0xFF, rng.randrange(256)))]) * (end - at)


def _splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    """A piece of another input, in place of one here or between."""
    if not other:
        return
    at, end = _span(rng, data)
    start, stop = _span(rng, other)
    data[at : rng.choice((at, end))] = other[start:stop]


def _append(rng: random.Random, data: bytearray, other: bytes) -> None:
    data += rng.randbytes(rng.choice((1, 8, 100)))


MUTATIONS: tuple[Mutation, ...] = (
    *(_flip, _flip, _byte, _byte, _number, _number, _number),
    *(_cut, _remove, _double, _move, _fill, _splice, _append),
)


def _span(rng: random.Random, data: bytes | bytearray) -> tuple[int, int]:
    """Where a piece begins and ends: short ones more often."""
    at = rng.randrange(len(data))
    return at, min(len(data), at + int(2 ** rng.uniform(0, 9)))


def mutated(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """One to four mutations on top of each other."""
    new = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if new:
            rng.choice(MUTATIONS)(rng, new, other)
    return bytes(new)
