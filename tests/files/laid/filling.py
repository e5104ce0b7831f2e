"""What a conversion does with a laid file: pieces of arrays, written in any order by several threads."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from layoutx.files.atomic import replacing
from layoutx.files.dtypes import settled
from layoutx.files.laid.entry import Entry
from layoutx.files.laid.lay import lay

PIECE = 37  # bytes: never a whole number of elements for long, so that every boundary is met


def entries_of(arrays):
    return [Entry(name, settled(array).dtype, array.shape) for name, array in arrays.items()]


def fill(laid, arrays, seed=3):
    """Write every byte of the arrays at its place, in random order, and read it back there."""
    pieces = []
    for name, array in arrays.items():
        data = settled(array).tobytes()
        pieces += [(laid.offsets[name] + at, data[at : at + PIECE]) for at in range(0, len(data), PIECE)]
    handle = os.open(laid.path, os.O_RDWR)
    try:
        order = np.random.default_rng(seed).permutation(len(pieces))
        with ThreadPoolExecutor(3) as pool:
            counts = list(pool.map(lambda k: os.pwrite(handle, pieces[k][1], pieces[k][0]), order))
        assert counts == [len(pieces[k][1]) for k in order]
        assert all(os.pread(handle, len(data), at) == data for at, data in pieces)
    finally:
        os.close(handle)


def write(path, arrays, metadata, template=None, room=None, jobs=2, seed=3):
    """Lay out, fill, finish and put in place; the answer is what was laid."""
    room = len(json.dumps(metadata)) if room is None else room
    with replacing(path) as temporary:
        laid = lay(temporary, path, entries_of(arrays), room, template)
        assert temporary.stat().st_size <= laid.end
        fill(laid, arrays, seed)
        laid.finish(metadata, jobs)
        assert temporary.stat().st_size <= laid.end
    return laid
