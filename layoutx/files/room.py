"""The space of a file asked for before it is written: a full disk is told at once, and not in the middle."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def probe_room(path: Path, nbytes: int) -> None:
    """Ask for the space of a file before it is written, and give it back; where the system cannot say, go on.

    HDF5 does not survive a disk that fills up under it: libhdf5 1.14 crashes the process at its exit.

    Raises:
        OSError: there is no room for so many bytes.
    """
    with path.open("rb+") as file:
        try:
            take_room(file.fileno(), nbytes)
        finally:
            file.truncate(0)


def reserve(path: Path, nbytes: int) -> None:
    """Make a file `nbytes` long, with the room on the disk where the system can say so; what it holds stays.

    Raises:
        OSError: there is no room for so many bytes.
    """
    with path.open("ab") as file:
        file.truncate(nbytes)
        take_room(file.fileno(), nbytes)


def take_room(handle: int, nbytes: int) -> None:
    """Ask for the space of an open file; where the system cannot say whether there is any, go on.

    Raises:
        OSError: there is no room for so many bytes.
    """
    if not hasattr(os, "posix_fallocate") or not nbytes:
        return
    if _in_memory(os.fstat(handle).st_dev):  # it would fill all of it with zeros, at the price of half a conversion
        found = os.fstatvfs(handle)
        if found.f_blocks and nbytes > found.f_bavail * found.f_frsize + os.fstat(handle).st_blocks * 512:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return
    try:
        os.posix_fallocate(handle, 0, nbytes)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _in_memory(device: int) -> bool:
    """Whether a file system keeps its files in memory (tmpfs), as Linux says it."""
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    for line in mounts.splitlines():
        head, _, tail = line.partition(" - ")
        if head.split()[2:3] == [name]:
            return tail.split()[:1] in (["tmpfs"], ["ramfs"])
    return False
