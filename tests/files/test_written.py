"""Numbers reach a file whole, whatever the system takes of them at once, and in calls that are short."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest

from layoutx.files import written
from layoutx.files.dtypes import bits
from layoutx.files.written import CALL, Appended, append_all, write_all

NUMBERS = np.random.default_rng(3).integers(0, 1 << 60, 131_101).astype(np.int64)  # four calls, the last one short


@pytest.mark.parametrize("most", [CALL, 4099, 65_537])
def test_all_is_written_where_the_system_takes_a_part(tmp_path, monkeypatch, most):
    path, sizes = tmp_path / "numbers", []

    def pwrite(file, data, offset, real=os.pwrite):
        sizes.append(len(data))
        return real(file, data[:most], offset)

    monkeypatch.setattr(written.os, "pwrite", pwrite)
    with path.open("wb") as file:
        assert write_all(file.fileno(), bits(NUMBERS), 7) == NUMBERS.nbytes
    assert path.read_bytes() == bytes(7) + NUMBERS.tobytes()
    assert max(sizes) <= CALL < 1 << 19, "for calls of 512 kB ext4 takes pages that are slow to get"


def test_what_is_appended_comes_in_short_calls():
    class Raw(io.RawIOBase):
        def __init__(self) -> None:
            self.parts: list[bytes] = []

        def writable(self) -> bool:
            return True

        def write(self, data) -> int:
            self.parts.append(bytes(data))
            return len(data)

    raw = Raw()
    with io.BufferedWriter(raw) as file:
        file.write(b"head")
        append_all(file, bits(NUMBERS).data)
        assert Appended(file).write(NUMBERS[:3].tobytes()) == 24
        file.flush()
        assert b"".join(raw.parts) == b"head" + NUMBERS.tobytes() + NUMBERS[:3].tobytes()
        assert max(map(len, raw.parts)) <= CALL
