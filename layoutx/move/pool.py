"""Pieces made by several threads from one shared queue and written in place, each with its checksum."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from time import monotonic

from layoutx.errors import LayoutxError, raise_all
from layoutx.files.blob import holding
from layoutx.files.dtypes import Array
from layoutx.move.filled import Seen, Sources, cut_for, filled
from layoutx.move.moves import Move
from layoutx.move.pieces import Cut
from layoutx.move.sums import piece_sum
from layoutx.progress import tell

Unit = list[tuple[int, int]]  # places and the numbers of their pieces
BATCH = 1 << 20  # bytes of small neighbours that are written in one call
TICK = 0.2  # seconds between two words of progress


@dataclass(frozen=True, slots=True)
class Place:
    """A move and where its bytes go: the file, and the first byte in it; no file for what is only compared.

    `only` are the numbers of the pieces that are made here, where others make the rest.
    """

    move: Move
    cut: Cut
    path: Path | None
    offset: int
    only: range | None = None

    @property
    def pieces(self) -> range:
        """The numbers of the pieces that are made."""
        return range(self.cut.many) if self.only is None else self.only


def placed(moves: Iterable[Move], path: Path, offsets: Mapping[str, int]) -> list[Place]:
    """Moves in the order of their bytes in one file, so that the file is written from its beginning to its end."""
    found = [Place(move, cut_for(move), path, offsets.get(move.name, 0)) for move in moves]
    return sorted(found, key=lambda place: place.offset)


def jobs_of(jobs: int | None) -> int:
    """How many threads: as many as asked for, or one for each core that this process may use."""
    return jobs or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def carry_out(places: Sequence[Place], jobs: int, begin: int = 0, many: int = 0) -> list[Seen]:
    """Make and write every piece; what was seen, place by place.

    Args:
        jobs: threads. begin, many: bytes that were done before, and of the whole, for progress.

    Raises:
        LayoutxError: sums that overflow, sources that cannot be read; all of them together.
        OSError: a file that cannot be written.
    """
    seen = [Seen() for _ in places]
    sources = Sources((place.move, len(place.pieces)) for place in places)
    files = {path: os.open(path, os.O_RDWR) for path in {p.path for p in places} if path is not None}
    problems: list[LayoutxError] = []

    def one(unit: Unit) -> int:
        if len(unit) == 1:
            ((at, number),) = unit
            piece = _made(places[at], number, seen[at], sources, problems)
            return _put(places[at], number, piece, files)
        made = []
        for at, number in unit:
            piece = _made(places[at], number, seen[at], sources, problems)
            made.append(piece.tobytes() if piece is not None else b"")
        first = places[unit[0][0]]
        return write_all(files[first.path], b"".join(made), first.offset) if all(made) and first.path else 0

    try:
        with holding():
            threads(one, units(places), jobs, begin, many or sum(place.move.nbytes for place in places))
    finally:
        for file in files.values():
            os.close(file)
    raise_all(problems, f"{len(problems)} tensors were not converted")
    return seen


def _made(place: Place, number: int, seen: Seen, sources: Sources, problems: list[LayoutxError]) -> Array | None:
    """One piece and its checksum; None where it cannot be made."""
    try:
        piece = filled(place.move, place.cut, number, sources.flat(place.move), seen)
    except LayoutxError as error:
        problems.append(error.at(place.move.name))
        return None
    finally:
        sources.done(place.move)
    seen.sums[number] = piece_sum(piece)
    return piece


def _put(place: Place, number: int, piece: Array | None, files: Mapping[Path, int]) -> int:
    """Write the runs of a piece; how many bytes."""
    if piece is None or place.path is None:
        return 0
    width = place.move.dtype.itemsize
    at = 0
    for first, size in place.cut.runs(number):
        at += write_all(files[place.path], piece[at : at + size * width], place.offset + first * width)
    return at


def write_all(file: int, data: bytes | Array, offset: int) -> int:
    """Write all of it, for a system may write less than it is given; how many bytes."""
    view = memoryview(data if isinstance(data, bytes) else data.data)
    while len(view):
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
    return len(data)


def units(places: Sequence[Place]) -> Iterator[Unit]:
    """What one thread takes at a time: a piece, or small whole tensors that lie side by side in the file."""
    batch: Unit = []
    size = 0
    for at, place in enumerate(places):
        last = places[batch[-1][0]] if batch else None
        small = place.cut.many == 1 and place.move.nbytes < BATCH and place.path is not None
        beside = last is not None and last.path == place.path and last.offset + last.move.nbytes == place.offset
        if batch and not (small and beside and size + place.move.nbytes <= BATCH):
            yield batch
            batch, size = [], 0
        if small:
            batch.append((at, 0))
            size += place.move.nbytes
        else:
            yield from ([(at, number)] for number in place.pieces)
    if batch:
        yield batch


def threads(one: Callable[[Unit], int], queue: Iterator[Unit], jobs: int, begin: int = 0, many: int = 0) -> None:
    """Units from one shared queue; the first failure stops all threads after the piece that they are at."""
    stop, lock = Event(), Lock()
    done = [begin]

    def work() -> None:
        while not stop.is_set():
            with lock:
                unit = next(queue, None)
            if unit is None:
                return
            done[0] += one(unit)

    if jobs <= 1:
        began = monotonic()
        for unit in queue:
            done[0] += one(unit)
            _say(done[0] - begin, done[0], many, began)
        return
    with ThreadPoolExecutor(jobs, "layoutx") as pool:
        futures = [pool.submit(work) for _ in range(jobs)]
        try:
            began = monotonic()
            pending = set(futures)
            while pending:
                finished, pending = wait(pending, TICK, FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                _say(done[0] - begin, done[0], many, began)
        finally:
            stop.set()


def _say(here: int, done: int, many: int, began: float) -> None:
    """Progress in bytes, with the time that is left at the speed so far."""
    spent = monotonic() - began
    left = f", {spent / here * (many - done):.0f} s left" if here and spent > 1 else ""
    tell(done >> 20, many >> 20, f"MiB{left}")
