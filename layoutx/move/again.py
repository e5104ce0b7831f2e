"""What was written, read again span by span and compared with the hashes of what was made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from layoutx.errors import LayoutxError, VerificationError, raise_all
from layoutx.files.dtypes import Array
from layoutx.files.hashes import SPAN, XXH3, Leaves, hash_of, leaves_of, together
from layoutx.files.open import open_store
from layoutx.move.filled import Seen, room
from layoutx.move.moves import Move
from layoutx.move.place import Place, Unit
from layoutx.move.pool import BATCH, jobs_for, threads


def check_again(places: Sequence[Place], seen: Sequence[Seen], jobs: int, final: Path, kind: str = XXH3) -> None:
    """Read every byte of the files again and compare its hash with that of what was made.

    Raises:
        VerificationError: tensors whose bytes changed on their way; all of them together.
    """
    files: dict[Path | None, int] = {}
    files |= {path: os.open(path, os.O_RDONLY) for path in {p.path for p in places} if path is not None}
    wrong = {place.move.name for place in places if place.path is not None and place.move.nbytes}
    ends = [place.ends for place in places]
    found = {at: Leaves(end - begin, kind) for at, (begin, end) in enumerate(ends) if end - begin > SPAN}

    def one(unit: Unit) -> int:
        at, number = unit[0]
        if at in found:
            start, (begin, end) = number * SPAN, ends[at]
            data = _read(files[places[at].path], begin + start, min(SPAN, end - begin - start))
            if found[at].feed(start, data) and _same(places[at], found[at].taken(), seen[at], kind):
                wrong.discard(places[at].move.name)
            return 0
        base = ends[at][0]
        data = _read(files[places[at].path], base, max(ends[at][1] for at, _ in unit) - base)
        for at, _ in unit:
            begin, end = ends[at]
            if _same(places[at], leaves_of(data[begin - base : end - base], kind), seen[at], kind):
                wrong.discard(places[at].move.name)
        return 0

    try:
        threads(one, _spans(places, ends), jobs_for(places, jobs))
    finally:
        for file in files.values():
            os.close(file)
    problems = [
        VerificationError(f"{final.name} did not keep '{name}'", where=str(final), why="its bytes changed")
        for name in sorted(wrong)
    ]
    raise_all(problems, f"{final.name} was not written: it did not give back what was put in")


def _same(place: Place, leaves: bytes, seen: Seen, kind: str) -> bool:
    """Whether what was read is what was made."""
    if place.only is not None:
        return seen.leaves is not None and leaves == seen.leaves.digests
    return together(place.move.dtype, place.move.shape, leaves, kind) == seen.hash


def _spans(places: Sequence[Place], ends: Sequence[tuple[int, int]]) -> Iterator[Unit]:
    """What one thread takes at a time: a span of a tensor, or small whole tensors that lie near each other."""
    batch: Unit = []
    base, path = 0, None
    for at, (begin, end) in enumerate(ends):
        own = places[at].path
        if own is None or begin == end:
            continue
        if batch and not (path is own and base <= begin and end - base <= BATCH):
            yield batch
            batch = []
        if end - begin > SPAN:
            yield from ([(at, number)] for number in range(-(-(end - begin) // SPAN)))
            continue
        base, path = (base, path) if batch else (begin, own)
        batch.append((at, 0))
    if batch:
        yield batch


def _read(file: int, offset: int, size: int) -> Array:
    """Bytes of a file in this thread's buffer; fewer where the file is shorter."""
    buffer = room("made", np.dtype(np.uint8), size)
    at = 0
    while at < size:
        got = os.preadv(file, [buffer[at:].data], offset + at)
        if not got:
            break
        at += got
    return buffer[:at]


def same_again(path: Path, moves: Sequence[Move], hashes: Mapping[str, str], kind: str = XXH3) -> bool:
    """Whether a finished file holds these tensors with these hashes, whatever else became of it."""
    try:
        tensors = open_store(path).tensors
    except LayoutxError:
        return False
    if {name: (t.dtype, t.shape) for name, t in tensors.items()} != {m.name: (m.dtype, m.shape) for m in moves}:
        return False
    return all(hashes.get(move.name) == hash_of(tensors[move.name].read(), kind) for move in moves)
