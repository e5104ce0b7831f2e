"""One strided copy at the speed of memory: np.copyto, with another order of the same moves where that is faster."""

from __future__ import annotations

from dataclasses import replace
from threading import local
from typing import Any

import numpy as np

from layoutx.plan import tiles
from layoutx.plan.tiles import LINE, Way, move, starts

Array = np.ndarray[Any, Any]

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
    found = way(to, of)
    to, of = found.seen(to), found.seen(of)
    box = found.box or (-(-to.shape[0] // (SLABS * jobs)), *to.shape[1:])
    todo = iter(starts(to.shape, box))
    if jobs == 1:
        move(found, to, of, todo, _scratch(found))
        return
    from concurrent.futures import ThreadPoolExecutor  # it loads much, for large copies alone

    slabs = found if found.box else replace(found, box=box)
    with ThreadPoolExecutor(jobs - 1) as pool:
        others = [pool.submit(lambda: move(slabs, to, of, todo, _scratch(found))) for _ in range(jobs - 1)]
        move(slabs, to, of, todo, _scratch(found))
    for other in others:
        other.result()


def is_plain(to: Array, of: Array) -> bool:
    """Whether np.copyto is as fast as anything on one thread: for small tensors, and where `way` says so."""
    if to.nbytes < SMALL or (to.flags.c_contiguous and of.flags.c_contiguous):
        return True
    return not way(to, of).box


def way(to: Array, of: Array) -> Way:
    """How a large copy is made; see layoutx.plan.tiles."""
    return tiles.way(to.shape, to.strides, of.strides, to.itemsize)


def _scratch(found: Way) -> Array:
    """This thread's scratch memory: at least what a way needs, kept for the next copy, at the start of a cache line."""
    size = found.scratch.nbytes(found.box) if found.scratch else 0
    kept: Array | None = getattr(_mine, "scratch", None)
    if kept is None or kept.size < size:
        memory = np.empty(size + LINE, np.uint8)
        kept = _mine.scratch = memory[-memory.ctypes.data % LINE :][:size]
    return kept
