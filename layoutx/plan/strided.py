"""One strided copy at the speed of memory: np.copyto, with another order of the same moves where that is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import local
from time import thread_time
from typing import Any

import numpy as np

from layoutx.plan import tiles, turns
from layoutx.plan.blas import flushes, transpose
from layoutx.plan.contest import LEAST, Contest, alike, contest
from layoutx.plan.tiles import LINE, Way, move, starts
from layoutx.plan.turns import Turn

Array = np.ndarray[Any, Any]

SMALL = 3 << 16  # bytes below which np.copyto is as fast: its own cost counts, and all is in the cache
SHARED = 1 << 24  # bytes from which it pays to start threads
SLAB = 8 << 20  # bytes of a large copy that go one way
SLABS = 4  # of a copy that threads share, for each thread
RUN = 1024  # bytes that a slab keeps together of an axis that runs through memory on one side

_mine = local()


def copy(to: Array, of: Array, jobs: int = 1) -> None:
    """The same as np.copyto(to, of), for views of one shape and one dtype of raw bits.

    Args:
        to: any strides, writeable.
        of: any strides, aligned or not.
        jobs: threads for a copy of 16 MB and more.

    Raises:
        ValueError: another shape or dtype; a read-only target.
    """
    if to.shape != of.shape or to.dtype != of.dtype:
        raise ValueError(f"{of.dtype} {of.shape} is not copied to {to.dtype} {to.shape}")
    size = to.nbytes
    if size < SMALL:
        to[...] = of  # what np.copyto does, and less before it
        return
    jobs = max(1, jobs) if size >= SHARED else 1
    if (jobs == 1 and is_plain(to, of)) or np.may_share_memory(to, of):
        np.copyto(to, of)
        return
    parts = list(slabs(to, of, jobs))
    todo = iter(parts)

    def work() -> None:
        for slab in todo:
            _copied(*slab)

    _shared(min(jobs, len(parts)), work)


def is_plain(to: Array, of: Array) -> bool:
    """Whether np.copyto is as fast as anything on one thread: for small tensors, and where `way` says so."""
    if to.nbytes < SMALL or (to.flags.c_contiguous and of.flags.c_contiguous):
        return True
    return turn(to, of) is None and not way(to, of).box


def way(to: Array, of: Array, tall: bool = False) -> Way:
    """How a large copy is made by NumPy; see layoutx.plan.tiles."""
    return tiles.way(to.shape, to.strides, of.strides, to.itemsize, tall)


def turn(to: Array, of: Array) -> Turn | None:
    """How a large copy is made by BLAS, if it is; see layoutx.plan.turns."""
    if to.itemsize != turns.WIDTH or not to.flags.aligned or transpose() is None:
        return None
    return turns.turn(to.shape, to.strides, of.strides, of.flags.aligned)


def ways(to: Array, of: Array) -> list[Turn | Way]:
    """The ways of a large copy, of which none is the fastest everywhere (layoutx.plan.contest); one for less of it."""
    matrices = turn(to, of)
    if to.nbytes < LEAST:
        return [matrices or way(to, of)]
    tiled = dict.fromkeys((way(to, of), way(to, of, tall=True)))
    return [matrices, *tiled] if matrices else [*tiled]


def chosen(to: Array, of: Array) -> Turn | Way:
    """The way that a copy of one slab would take now."""
    those = ways(to, of)
    return those[_contest(to, of, len(those)).pick()]


def _contest(to: Array, of: Array, many: int) -> Contest:
    return contest(alike(to.shape, to.strides, of.strides), to.itemsize, many)


def _copied(to: Array, of: Array) -> None:
    """Copy one slab, and note how long it took."""
    those = ways(to, of)
    if len(those) == 1:
        _by(those[0], to, of)
        return
    timed = _contest(to, of, len(those))
    at = timed.pick()
    began = thread_time()  # not the clock: whoever else has the processor takes none of it
    _by(those[at], to, of)
    timed.took(at, (thread_time() - began) / to.nbytes)


def _by(found: Turn | Way, to: Array, of: Array) -> None:
    """Copy on one way."""
    if isinstance(found, Turn):
        if _turned(found, to, of):
            return
        found = way(to, of)
    to, of = found.seen(to), found.seen(of)
    if not found.box:
        np.copyto(to, of)
        return
    move(found, to, of, starts(to.shape, found.box), _scratch(found.scratch.nbytes(found.box) if found.scratch else 0))


def _turned(found: Turn, to: Array, of: Array) -> bool:
    """Turn matrices over; False where numbers or the processor's state forbid it, and NumPy has to copy all of it."""
    call = transpose()
    if call is None or flushes() or not to.flags.writeable:
        return False
    to, of = found.plain.seen(to), found.plain.seen(of)
    return turns.move(found, call, to, of, starts(to.shape, found.box), _scratch(found.nbytes))


def slabs(to: Array, of: Array, jobs: int) -> Iterator[tuple[Array, Array]]:
    """Parts of a copy, cut where both sides have the longest steps: so what lies together on one stays together."""
    size = min(SLAB, to.nbytes // (SLABS * jobs)) if jobs > 1 else SLAB
    if to.nbytes <= size:
        yield to, of
        return
    steps = [(min(abs(t), abs(s)), abs(t)) for t, s in zip(to.strides, of.strides, strict=True)]
    axis = max((axis for axis, n in enumerate(to.shape) if n > 1), key=lambda axis: steps[axis])
    lines = -(-to.shape[axis] // -(-to.nbytes // size))
    if steps[axis][0] <= to.itemsize:
        lines = max(lines, RUN // to.itemsize)
    for at in range(0, to.shape[axis], lines):
        index = (*[slice(None)] * axis, slice(at, at + lines))
        yield to[index], of[index]


def _shared(jobs: int, work: Callable[[], None]) -> None:
    """The same work in several threads, which share what is to do."""
    if jobs == 1:
        work()
        return
    from concurrent.futures import ThreadPoolExecutor  # it loads much, for large copies alone

    with ThreadPoolExecutor(jobs - 1) as pool:
        others = [pool.submit(work) for _ in range(jobs - 1)]
        work()
    for other in others:
        other.result()


def _scratch(size: int) -> Array:
    """This thread's scratch memory: at least so many bytes, kept for the next copy, at the start of a cache line."""
    kept: Array | None = getattr(_mine, "scratch", None)
    if kept is None or kept.size < size:
        memory = np.empty(size + LINE, np.uint8)
        kept = _mine.scratch = memory[-memory.ctypes.data % LINE :][:size]
    return kept
