"""Pieces made by several threads from one shared queue, hashed, and written in place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from threading import Condition, Event, Lock
from time import monotonic
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError, UsageError, raise_all
from layoutx.files.blob import holding
from layoutx.files.dtypes import Array
from layoutx.files.guarded import broken, check_since, intact
from layoutx.files.hashes import XXH3, Leaves, leaves_of, together
from layoutx.files.written import write_all
from layoutx.frozen import frozen
from layoutx.move.filled import Seen, Sources, filled, room
from layoutx.move.looks import Looks
from layoutx.move.moves import Move
from layoutx.move.place import Place as Place
from layoutx.move.place import Unit as Unit
from layoutx.move.place import place_of
from layoutx.move.small import Small
from layoutx.plan.strided import SMALL
from layoutx.progress import tell

BATCH = 1 << 20  # bytes of small neighbours that are written in one call
ALONE = 1 << 15  # bytes of a tensor on average, below which threads wait for each other at the interpreter's lock
MANY = 8  # threads that are as many as help unless more are asked for: one at a time writes, and each takes memory
TICK = 0.2  # seconds between two words of progress


@frozen
class Output:
    """An open file that one thread at a time writes to: in the kernel the others would spin until it is their turn."""

    handle: int
    turn: Lock = field(default_factory=Lock)

    def write(self, data: Array, offset: int) -> int:
        """Write all of it; how many bytes."""
        with self.turn:
            return write_all(self.handle, data, offset)


def placed(moves: Iterable[Move], jobs: int, path: Path, offsets: Mapping[str, int]) -> list[Place]:
    """Moves in the order of their bytes in one file, so that the file is written from its beginning to its end."""
    found = [place_of(move, jobs, path, offsets.get(move.name, 0)) for move in moves]
    return sorted(found, key=lambda place: place.offset)


def jobs_of(jobs: Any) -> int:
    """How many threads: as many as asked for, or one for each core that this process may use, up to eight.

    Raises:
        UsageError: fewer than one, or no number.
    """
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise UsageError(
            f"{jobs!r} threads cannot do anything", do="give 1 or more, or nothing for one for each core, up to 8"
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(jobs or min(cores, MANY))


def jobs_for(places: Sequence[Place], jobs: int) -> int:
    """How many threads are of use: where tensors are small, others only wait at the interpreter's lock."""
    return 1 if sum(place.move.recipe.nbytes for place in places) < ALONE * len(places) else jobs


def carry_out(places: Sequence[Place], jobs: int, kind: str = XXH3, looked: bool = False) -> list[Seen]:
    """Make and write every piece; what was seen, place by place.

    Args:
        jobs: threads. kind: of the hashes. looked: the sources are hashed too.

    Raises:
        LayoutxError: sums that overflow, sources that cannot be read; all of them together.
        OSError: a file that cannot be written.
    """
    small = [is_small(place) for place in places]
    seen = [
        Seen() if whole else Seen(leaves=Leaves(place.ends[1] - place.ends[0], kind))
        for place, whole in zip(places, small, strict=True)
    ]
    for place, empty in zip(places, seen, strict=True):
        if not place.move.recipe.nbytes:
            empty.hash = together(place.move.dtype, place.move.shape, b"", kind)
    sources = Sources((place.move, len(place.pieces)) for place in places)
    looks = Looks(places, sources, kind) if looked else None
    files = {path: Output(os.open(path, os.O_RDWR)) for path in {p.path for p in places} if path is not None}
    problems: list[LayoutxError] = []
    began, maker = broken(), Small(sources)

    def one(unit: Unit) -> int:
        check_since(began)
        if looks is not None and unit[0][0] < 0:
            return looks.look(unit)
        at, number = unit[0]
        if not small[at]:
            return _put(places[at], number, _made(places[at], number, seen[at], sources, problems, kind), files)
        made = _batch([(places[at].move, seen[at]) for at, _ in unit], maker, sources, problems, kind)
        path = places[at].path
        return files[path].write(made, places[at].offset) if made is not None and path is not None else 0

    try:
        with holding(), intact():
            queue = units(places, small) if looks is None else looks.before(units(places, small))
            threads(one, queue, jobs_for(places, jobs), many=sum(place.move.recipe.nbytes for place in places))
    finally:
        for file in files.values():
            os.close(file.handle)
    raise_all(problems, f"{len(problems)} tensors were not converted")
    if looks is not None:
        looks.tell(seen)
    return seen


def is_small(place: Place) -> bool:
    """Whether a tensor is made whole, together with those beside it."""
    return place.move.recipe.nbytes < SMALL and place.cut.many == 1 and place.only is None


def _batch(
    moves: Sequence[tuple[Move, Seen]], maker: Small, sources: Sources, problems: list[LayoutxError], kind: str
) -> Array | None:
    """Small tensors end to end, each with its hash; None where one cannot be made."""
    made = room("batch", np.dtype(np.uint8), sum(move.recipe.nbytes for move, _ in moves))
    at, whole = 0, True
    for move, seen in moves:
        recipe = move.recipe
        into = made[at : at + recipe.nbytes]
        try:
            maker.make(move, into, seen)
        except LayoutxError as error:
            problems.append(error.at(move.name))
            whole = False
        finally:
            sources.let_go(move.tensors)
        seen.hash = together(recipe.dtype, recipe.shape, leaves_of(into, kind), kind)
        at += recipe.nbytes
    return made if whole else None


def _made(
    place: Place, number: int, seen: Seen, sources: Sources, problems: list[LayoutxError], kind: str
) -> Array | None:
    """One piece, told to the hash of its tensor; None where it cannot be made."""
    assert seen.leaves is not None
    try:
        piece = filled(place.move, place.cut, number, sources.flat(place.move), seen)
    except LayoutxError as error:
        problems.append(error.at(place.move.name))
        return None
    finally:
        sources.let_go(place.move.tensors)
    width = place.move.dtype.itemsize
    at, begin = 0, 0 if place.only is None else place.span[0]
    for first, size in place.cut.runs(number):
        if seen.leaves.feed(first * width - begin, piece[at : at + size * width]) and place.only is None:
            seen.hash = together(place.move.dtype, place.move.shape, seen.leaves.taken(), kind)
        at += size * width
    return piece


def _put(place: Place, number: int, piece: Array | None, files: Mapping[Path, Output]) -> int:
    """Write the runs of a piece; how many bytes."""
    if piece is None or place.path is None:
        return 0
    width = place.move.dtype.itemsize
    at = 0
    for first, size in place.cut.runs(number):
        at += files[place.path].write(piece[at : at + size * width], place.offset + first * width)
    return at


def units(places: Sequence[Place], small: Sequence[bool]) -> Iterator[Unit]:
    """What one thread takes at a time: a piece, or small whole tensors that lie side by side in the file."""
    batch: Unit = []
    size = end = 0
    path: Path | None = None
    for at, place in enumerate(places):
        nbytes = place.move.recipe.nbytes
        beside = place.path is path and (path is None or place.offset == end)
        if batch and not (small[at] and beside and size + nbytes <= BATCH):
            yield batch
            batch, size = [], 0
        if small[at]:
            batch.append((at, 0))
            size, end, path = size + nbytes, place.offset + nbytes, place.path
        else:
            yield from ([(at, number)] for number in place.pieces)
    if batch:
        yield batch


def threads(one: Callable[[Unit], int], queue: Iterator[Unit], jobs: int, begin: int = 0, many: int = 0) -> None:
    """Units from one shared queue; the first failure stops all threads after the piece that they are at."""
    stop, lock, busy = Event(), Lock(), Condition()
    done, working = [begin], [0]

    def work() -> None:
        with busy:
            working[0] += 1
        try:
            while not stop.is_set():
                with lock:
                    unit = next(queue, None)
                if unit is None:
                    return
                done[0] += one(unit)
        finally:
            with busy:
                working[0] -= 1
                busy.notify_all()

    if jobs <= 1:
        began = monotonic()
        for unit in queue:
            done[0] += one(unit)
            _say(done[0] - begin, done[0], many, began)
        return
    from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait  # it loads logging: not for a small output

    with ThreadPoolExecutor(jobs, "layoutx") as pool:
        try:
            began = monotonic()
            pending = {pool.submit(work) for _ in range(jobs)}
            while pending:
                finished, pending = wait(pending, TICK, FIRST_EXCEPTION)
                for future in finished:
                    future.result()
                _say(done[0] - begin, done[0], many, began)
        finally:
            stop.set()
            with busy:  # a thread that an interrupt met while it started is not known to the pool, and writes as well
                busy.wait_for(lambda: not working[0])


def _say(here: int, done: int, many: int, began: float) -> None:
    """Progress in bytes, with the time that is left at the speed so far."""
    spent = monotonic() - began
    left = f", {spent / here * (many - done):.0f} s left" if here and spent > 1 else ""
    tell(done >> 20, many >> 20, f"MiB{left}")
