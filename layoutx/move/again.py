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
from layoutx.move.pool import jobs_for, threads


def check_again(places: Sequence[Place], seen: Sequence[Seen], jobs: int, final: Path, kind: str = XXH3) -> None:
    """Read every byte of the files again and compare its hash with that of what was made.

    Raises:
        VerificationError: tensors whose bytes changed on their way; all of them together.
    """
    files: dict[Path | None, int] = {}
    files |= {path: os.open(path, os.O_RDONLY) for path in {p.path for p in places} if path is not None}
    wrong = {place.move.name for place in places if place.path is not None and place.move.nbytes}
    found = {at: Leaves(place.length, kind) for at, place in enumerate(places) if place.length > SPAN}

    def one(unit: Unit) -> int:
        at, number = unit[0]
        if at in found:
            place, start = places[at], number * SPAN
            data = _read(files[place.path], place.begin + start, min(SPAN, place.length - start))
            same = found[at].feed(start, data) and _same(place, found[at].taken(), seen[at], kind)
            wrong.difference_update([place.move.name] if same else [])
            return 0
        base, end = places[at].begin, max(places[at].begin + places[at].length for at, _ in unit)
        data = _read(files[places[at].path], base, end - base)
        for at, _ in unit:
            place = places[at]
            own = data[place.begin - base : place.begin - base + place.length]
            if _same(place, leaves_of(own, kind), seen[at], kind):
                wrong.discard(place.move.name)
        return 0

    try:
        threads(one, _spans(places), jobs_for(places, jobs))
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


def _spans(places: Sequence[Place]) -> Iterator[Unit]:
    """What one thread takes at a time: a span of a tensor, or small whole tensors that lie near each other."""
    batch: Unit = []
    base = 0
    for at, place in enumerate(places):
        begin, length = place.begin, place.length
        if place.path is None or not length:
            continue
        same = bool(batch) and places[batch[0][0]].path == place.path
        if batch and not (same and base <= begin and begin + length - base <= SPAN):
            yield batch
            batch = []
        if length > SPAN:
            yield from ([(at, number)] for number in range(-(-length // SPAN)))
            continue
        base = base if batch else begin
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
