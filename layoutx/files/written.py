"""Numbers handed to the system in short calls, which take small pages of the page cache."""

from __future__ import annotations

import os
from typing import IO

from layoutx.files.dtypes import Array

# For a call of 512 kB and more, ext4 (Linux 6.18) takes pages of as much at once, which a virtual machine has to ask
# its host for: 2 GB took 1.5 to 4.9 s, and 0.31 s in calls of 128 to 384 kB; the longer ones leave the interpreter
# to the other thread for longer.
CALL = 384 << 10  # bytes


def write_all(file: int, data: bytes | Array, offset: int) -> int:
    """Write all of it from an offset on, for a system may write less than it is given; how many bytes."""
    view = memoryview(data if isinstance(data, bytes) else data.data)
    while len(view):
        written = os.pwrite(file, view[:CALL], offset)
        view, offset = view[written:], offset + written
    return len(data)


def append_all(file: IO[bytes], data: bytes | memoryview) -> None:
    """Write all of it at the place where a buffered file is."""
    view = memoryview(data).cast("B")
    for begin in range(0, len(view), CALL):
        file.write(view[begin : begin + CALL])


class Appended:
    """A file for a library that writes whole arrays: what it has to say goes on in short calls."""

    def __init__(self, file: IO[bytes]) -> None:
        """`file`: open for writing."""
        self._file = file

    def write(self, data: bytes | memoryview) -> int:
        """Write all of it; how many bytes."""
        append_all(self._file, data)
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Hand what is left to the system."""
        self._file.flush()
