"""A laid file: its room is taken, the place of every tensor is known, the numbers are still missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from layoutx.frozen import frozen


@frozen
class Laid:
    """A file between `lay` and `finish`.

    In between, anyone may write and read tensor bytes (native, C order) at their offsets, from several threads and
    processes; nothing else of the file is valid, and no reader takes it for a whole one.

    Attributes:
        path: the temporary file that is written.
        offsets: entry name -> where its first byte goes in `path`; 0 or the next tensor's place for one without bytes.
        end: the bytes that are reserved, metadata included; the finished file may be shorter, never longer than this
            unless its metadata needs more than it was said to.
        finish: `finish(metadata, jobs)` writes all that is no tensor; then the file is whole. `jobs` threads at most.
    """

    path: Path
    offsets: Mapping[str, int]
    end: int
    finish: Callable[[Mapping[str, str], int], None]
