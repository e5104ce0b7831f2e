"""One strided copy at the speed of memory: np.copyto, with another order of the same moves where that is faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import local
from typing import Any, TypeVar

import numpy as np

from layoutx.plan import tiles, turns
from layoutx.plan.blas import flushes, transpose
from layoutx.plan.tiles import LINE, Way, move, starts
from layoutx.plan.turns import Turn

Array = np.ndarray[Any, Any]
T = TypeVar("T")

SMALL = 3 << 16  # bytes below which np.copyto is as fast: its own cost counts, and all is in the cache
SHARED = 1 << 24  # bytes from which it pays to start threads
SLABS = 4  # of a plain copy that threads share, for each thread

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
    matrices = turn(to, of)
    if matrices is None or not _turned(matrices, to, of, jobs):
        _tiled(way(to, of), to, of, jobs)


def is_plain(to: Array, of: Array) -> bool:
    """Whether np.copyto is as fast as anything on one thread: for small tensors, and where `way` says so."""
    if to.nbytes < SMALL or (to.flags.c_contiguous and of.flags.c_contiguous):
        return True
    return turn(to, of) is None and not way(to, of).box


def way(to: Array, of: Array) -> Way:
    """How a large copy is made by NumPy; see layoutx.plan.tiles."""
    return tiles.way(to.shape, to.strides, of.strides, to.itemsize)


def turn(to: Array, of: Array) -> Turn | None:
    """How a large copy is made by BLAS, if it is; see layoutx.plan.turns."""
    if to.itemsize != turns.WIDTH or not to.flags.aligned or transpose() is None:
        return None
    return turns.turn(to.shape, to.strides, of.strides, of.flags.aligned)


def _turned(found: Turn, to: Array, of: Array, jobs: int) -> bool:
    """Turn matrices over; False where numbers or the processor's state forbid it, and NumPy has to copy all of it."""
    call = transpose()
    if call is None or flushes() or not to.flags.writeable:
        return False
    to, of = found.plain.seen(to), found.plain.seen(of)
    todo = iter(starts(to.shape, found.box))
    return all(_shared(jobs, lambda: turns.move(found, call, to, of, todo, _scratch(found.nbytes))))


def _tiled(found: Way, to: Array, of: Array, jobs: int) -> None:
    to, of = found.seen(to), found.seen(of)
    box = found.box or (-(-to.shape[0] // (SLABS * jobs if jobs > 1 else 1)), *to.shape[1:])
    todo = iter(starts(to.shape, box))
    slabs = found if found.box else replace(found, box=box)
    size = found.scratch.nbytes(found.box) if found.scratch else 0
    _shared(jobs, lambda: move(slabs, to, of, todo, _scratch(size)))


def _shared(jobs: int, work: Callable[[], T]) -> list[T]:
    """The same work in several threads, which share what is to do; what each of them says."""
    if jobs == 1:
        return [work()]
    from concurrent.futures import ThreadPoolExecutor  # it loads much, for large copies alone

    with ThreadPoolExecutor(jobs - 1) as pool:
        others = [pool.submit(work) for _ in range(jobs - 1)]
        mine = work()
    return [mine, *(other.result() for other in others)]


def _scratch(size: int) -> Array:
    """This thread's scratch memory: at least so many bytes, kept for the next copy, at the start of a cache line."""
    kept: Array | None = getattr(_mine, "scratch", None)
    if kept is None or kept.size < size:
        memory = np.empty(size + LINE, np.uint8)
        kept = _mine.scratch = memory[-memory.ctypes.data % LINE :][:size]
    return kept
