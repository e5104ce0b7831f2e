"""What was written, read again piece by piece and compared with the checksums of what was made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from layoutx.errors import LayoutxError, VerificationError, raise_all
from layoutx.files.dtypes import Array, bits
from layoutx.files.open import open_store
from layoutx.files.store import Tensor
from layoutx.move.filled import Seen, cut_for, room
from layoutx.move.moves import Move
from layoutx.move.pieces import Cut
from layoutx.move.pool import Place, Unit, threads, units
from layoutx.move.sums import piece_sum


def check_again(places: Sequence[Place], seen: Sequence[Seen], jobs: int, final: Path) -> None:
    """Read every piece of the files again and compare its checksum with that of what was made.

    Raises:
        VerificationError: tensors whose bytes changed on their way; all of them together.
    """
    files = {path: os.open(path, os.O_RDONLY) for path in {p.path for p in places} if path is not None}
    wrong: set[str] = set()

    def one(unit: Unit) -> int:
        for at, number in unit:
            place = places[at]
            if place.path is None:
                continue
            width = place.move.dtype.itemsize
            runs = [(place.offset + first * width, size * width) for first, size in place.cut.runs(number)]
            if piece_sum(_read(files[place.path], runs)) != seen[at].sums[number]:
                wrong.add(place.move.name)
        return 0

    try:
        threads(one, units(places), jobs)
    finally:
        for file in files.values():
            os.close(file)
    problems = [
        VerificationError(f"{final.name} did not keep '{name}'", where=str(final), why="its bytes changed")
        for name in sorted(wrong)
    ]
    raise_all(problems, f"{final.name} was not written: it did not give back what was put in")


def _read(file: int, runs: Sequence[tuple[int, int]]) -> Array:
    """Runs of a file, (offset, bytes) each, end to end in this thread's buffer; short where the file is."""
    buffer = room("made", np.dtype(np.uint8), sum(size for _, size in runs))
    at = 0
    for offset, size in runs:
        end = at + size
        while at < end:
            got = os.preadv(file, [buffer[at:end].data], offset)
            if not got:
                return buffer[:at]
            at, offset = at + got, offset + got
    return buffer


def same_again(path: Path, moves: Sequence[Move], sums: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a finished file holds these tensors with these checksums, whatever else became of it."""
    try:
        tensors = open_store(path).tensors
    except LayoutxError:
        return False
    if {name: (t.dtype, t.shape) for name, t in tensors.items()} != {m.name: (m.dtype, m.shape) for m in moves}:
        return False
    return all(sums.get(move.name) == _sums(tensors[move.name], cut_for(move)) for move in moves)


def _sums(tensor: Tensor, cut: Cut) -> tuple[int, ...]:
    """The checksum of each piece of a stored tensor."""
    flat = tensor.read().reshape(-1)
    found = []
    for number in range(cut.many):
        runs = [bits(flat[first : first + size]) for first, size in cut.runs(number)]
        found.append(piece_sum(runs[0] if len(runs) == 1 else np.concatenate(runs)))
    return tuple(found)
