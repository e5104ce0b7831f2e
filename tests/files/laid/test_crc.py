"""A CRC-32 put together from its parts is that of the whole."""

from __future__ import annotations

import random
import zlib

import pytest

from layoutx.files.laid import crc


@pytest.mark.parametrize("size", [0, 1, 2, 63, 64, 65, 1000, 70_001])
def test_two_runs_end_to_end(size):
    rng = random.Random(size)
    first, second = rng.randbytes(997), rng.randbytes(size)
    assert crc.joined(zlib.crc32(first), zlib.crc32(second), size) == zlib.crc32(first + second)
    assert crc.joined(zlib.crc32(second), zlib.crc32(first), 997) == zlib.crc32(second + first)


def test_a_run_of_terabytes_is_quick():
    zeros = zlib.crc32(bytes(1 << 20))
    found = zlib.crc32(b"x")
    for _ in range(3):
        found = crc.joined(found, zeros, 1 << 20)
    assert found == zlib.crc32(b"x" + bytes(3 << 20))
    assert crc.joined(1, 0, 1 << 42) == crc.joined(crc.joined(1, 0, 1 << 41), 0, 1 << 41) != 0


@pytest.mark.parametrize("jobs", [1, 2, 7, 100])
@pytest.mark.parametrize("piece", [1, 13, 4096, 1 << 26])
def test_a_part_of_a_file(tmp_path, monkeypatch, jobs, piece):
    data = random.Random(5).randbytes(10_007 if piece > 1 else 211)
    (tmp_path / "x").write_bytes(data)
    monkeypatch.setattr(crc, "PIECE", piece)
    monkeypatch.setattr(crc, "STEP", 1000)
    for begin, size in ((0, len(data)), (17, 101), (len(data) - 1, 1), (5, 0)):
        assert crc.crc32(tmp_path / "x", begin, size, jobs) == zlib.crc32(data[begin : begin + size])


def test_a_file_that_ends_before(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    with pytest.raises(OSError, match="2 bytes too early"):
        crc.crc32(tmp_path / "x", 1, 4, 2)
