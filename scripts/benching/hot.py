"""Free memory as a run finds it on a machine of its own: a virtual one hands it back, and whoever takes it next waits.

A page that the host has to give again costs four times what a page of a new file costs otherwise. Linux tells the host
of free memory two seconds after some became free (mm/page_reporting.c, page_reporting_delay). What ends within them,
as `cp` does, found its pages still there or did not, by the chance of who ran before.
"""

from __future__ import annotations

import mmap
import time
from pathlib import Path

LARGE = 1 << 30  # bytes of a source, from which memory is heated: it takes seconds
FOR_EACH = 2.5  # bytes to heat for each byte of a source: a new file, and what a script by hand holds of it
HELD = 2.4  # seconds that it is held: what was freed before is told of meanwhile, and then nothing for two seconds
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14, for which Python has no name


def heat(source: int) -> int:
    """Take memory for a source of so many bytes, and free it again.

    Returns:
        Bytes that were taken: 0 for a small source, and where the system cannot.
    """
    nbytes = min(int(source * FOR_EACH), available() // 2)
    if source < LARGE or nbytes <= 0:
        return 0
    with mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        try:
            memory.madvise(POPULATE_WRITE)
        except (AttributeError, OSError):
            return 0
        time.sleep(HELD)
    return nbytes


def available() -> int:
    """Bytes that Linux can give without swapping; 0 elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), 0)
