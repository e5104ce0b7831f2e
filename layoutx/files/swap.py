"""Two paths exchanged in one step, where the system can: no moment at which one of them is missing."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

AT_FDCWD = -100  # Linux, fcntl.h
RENAME_EXCHANGE = 2  # renameat2(2)
RENAME_SWAP = 2  # macOS, renamex_np(2)
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


def swap(one: Path, other: Path) -> bool:
    """Exchange what two paths of one file system are names of; False where the system cannot.

    Raises:
        OSError: one of them is missing, or may not be renamed.
    """
    call = _call(os.fsencode(one), os.fsencode(other))
    if call is None:
        return False
    import ctypes

    function, arguments = call
    if function(*arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))


def _call(one: bytes, other: bytes) -> tuple[Any, tuple[Any, ...]] | None:
    """The system's function and what it is given; None where there is none."""
    system: str = sys.platform  # a plain text, else mypy knows only the one it runs on
    if system not in ("linux", "darwin"):
        return None
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if system == "linux":
        arguments: tuple[Any, ...] = (AT_FDCWD, one, AT_FDCWD, other, ctypes.c_uint(RENAME_EXCHANGE))
        return (library.renameat2, arguments) if hasattr(library, "renameat2") else None
    arguments = (one, other, ctypes.c_uint(RENAME_SWAP))
    return (library.renamex_np, arguments) if hasattr(library, "renamex_np") else None
