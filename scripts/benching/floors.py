"""What the machine itself can do, measured in the same run: memory, the page cache, new files, the disk."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIZE = 1 << 29
PIECE = 1 << 23


@dataclass(frozen=True, slots=True)
class Floors:
    """Bytes a second, each byte counted once, by number of threads."""

    copied: dict[int, float]
    read: dict[int, float]
    written: dict[int, float]
    synced: float  # of a file that was just written

    def least(self, read: float, written: float, jobs: int = 2) -> float:
        """Seconds that reading and writing so many bytes of files takes at least."""
        return read / self.read[jobs] + written / self.written[jobs]

    def lines(self) -> list[tuple[str, str]]:
        """What was measured, and GB/s with one and two threads."""
        named = {
            "memory to memory (memcpy, warm)": self.copied,
            "page cache to a used buffer (pread, 8 MB)": self.read,
            "buffer to a new file (pwrite, 8 MB)": self.written,
        }
        found = [(name, " / ".join(f"{v / 1e9:.1f}" for v in many.values())) for name, many in named.items()]
        return [*found, ("page cache to the disk (fsync)", f"{self.synced / 1e9:.1f}")]


def floors(folder: Path, size: int = SIZE, runs: int = 5) -> Floors:
    """Measure them in files of `size` bytes in a folder, medians."""
    path = folder / "floor.bin"
    buffers = [memoryview(bytearray(b"\1" * PIECE)) for _ in range(2)]
    starts = range(0, size, PIECE)

    def write(thread: int, start: int) -> None:
        os.pwrite(handle, buffers[thread], start)

    def read(thread: int, start: int) -> None:
        os.preadv(handle, [buffers[thread]], start)

    def copy(thread: int, start: int) -> None:
        np.copyto(large[1][start : start + PIECE], large[0][start : start + PIECE])

    copied, gets, puts, syncs = {}, {}, {}, []
    large = [np.ones(size, np.uint8), np.ones(size, np.uint8)]
    for jobs in (1, 2):
        copied[jobs] = size / statistics.median(_timed(copy, starts, jobs) for _ in range(runs))
    large.clear()
    for jobs in (1, 2):
        taken = []
        for _ in range(runs):
            path.unlink(missing_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT)
            try:
                taken.append(_timed(write, starts, jobs))
                if jobs == 2:
                    started = time.perf_counter()
                    os.fsync(handle)
                    syncs.append(time.perf_counter() - started)
            finally:
                os.close(handle)
        puts[jobs] = size / statistics.median(taken)
    handle = os.open(path, os.O_RDONLY)
    try:
        for jobs in (1, 2):
            gets[jobs] = size / statistics.median(_timed(read, starts, jobs) for _ in range(runs))
    finally:
        os.close(handle)
        path.unlink()
    return Floors(copied, gets, puts, size / statistics.median(syncs))


def _timed(step: Callable[[int, int], None], starts: range, jobs: int) -> float:
    """Seconds for all pieces, the threads taking them in turn."""
    shares = [starts[i::jobs] for i in range(jobs)]

    def run(thread: int) -> None:
        for start in shares[thread]:
            step(thread, start)

    started = time.perf_counter()
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, range(jobs)))
    return time.perf_counter() - started
