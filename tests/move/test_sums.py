"""Checksums that anyone can compute again, and that change with every byte."""

from __future__ import annotations

import threading

import ml_dtypes
import numpy as np
import pytest
import xxhash

from layoutx.move.sums import PIECE, array_sum, piece_sum, tensor_sum

RNG = np.random.default_rng(3)
DATA = np.frombuffer(RNG.bytes(2 * PIECE + 4_567), np.uint8)


def by_the_docstring(data: bytes) -> str:
    """The checksum from the words of the module alone."""
    found = b""
    while data:
        found += xxhash.xxh3_64(data[: 8 * 1024 * 1024]).intdigest().to_bytes(8, "little")
        data = data[8 * 1024 * 1024 :]
    return xxhash.xxh3_64(found).hexdigest()


def test_the_sum_of_a_tensor_is_what_the_docstring_says() -> None:
    for size in (0, 1, PIECE, PIECE + 1, DATA.size):
        assert array_sum(DATA[:size]) == by_the_docstring(DATA[:size].tobytes())
    assert tensor_sum([]) == "2d06800538d394c2"  # xxh3 of nothing
    assert array_sum(np.arange(6, dtype="<f4").reshape(2, 3)) == by_the_docstring(np.arange(6, dtype="<f4").tobytes())


def test_a_piece_is_summed_whatever_holds_it() -> None:
    expected = xxhash.xxh3_64_intdigest(DATA[:4096].tobytes())
    bits = DATA[:4096].copy()
    brain = bits.view(ml_dtypes.bfloat16).reshape(64, 32)
    for piece in (bits, brain, bits.data, bits.tobytes(), bytearray(bits.tobytes()), bits.view("V16")):
        assert piece_sum(piece) == expected
    with pytest.raises(ValueError, match="end to end"):
        piece_sum(brain.T)


def test_every_byte_and_the_order_of_pieces_count() -> None:
    first = array_sum(DATA)
    for at in (0, PIECE - 1, PIECE, DATA.size - 1):
        other = DATA.copy()
        other[at] ^= 1
        assert array_sum(other) != first
    swapped = np.concatenate([DATA[PIECE : 2 * PIECE], DATA[:PIECE], DATA[2 * PIECE :]])
    assert array_sum(swapped) != first


def test_threads_agree() -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(array_sum(DATA))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [by_the_docstring(DATA.tobytes())] * 4
