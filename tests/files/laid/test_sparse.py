"""A sparse file behaves as a file in memory does, and keeps only what was written."""

from __future__ import annotations

import io
import random

from layoutx.files.laid.sparse import PAGE, Sparse


def test_any_calls_do_what_a_file_does():
    rng = random.Random(11)
    ours, plain = Sparse(), io.BytesIO()
    for _ in range(3000):
        at = rng.choice([rng.randrange(20), rng.randrange(5 * PAGE)])
        what = rng.random()
        if what < 0.5:
            data = rng.randbytes(rng.choice([0, 1, 7, 512, PAGE, 2 * PAGE + 3]))
            assert ours.seek(at) == plain.seek(at)
            assert ours.write(data) == plain.write(data)
        elif what < 0.95:
            ours.seek(at)
            plain.seek(at)
            size = rng.randrange(3 * PAGE)
            assert ours.read(size) == plain.read(size)
        else:
            ours.truncate(min(at, ours.size))
            plain.truncate(min(at, len(plain.getvalue())))
        assert ours.size == len(plain.getvalue())
        assert ours.seek(0, io.SEEK_END) == plain.seek(0, io.SEEK_END)
    assert ours.part(0, ours.size) == plain.getvalue()


def test_what_was_not_written_takes_no_room():
    file = Sparse()
    file.seek(1 << 40)
    file.write(b"end")
    assert file.size == (1 << 40) + 3
    assert file.part((1 << 40) - 2, 5) == b"\0\0end"
    assert len(file._pages) == 1
