"""An output that appears whole or not at all: written beside its place, synced, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layoutx.errors import UsageError


def check_place(path: Path) -> None:
    """Refuse a place where no file can go.

    Raises:
        UsageError: the folder does not exist or cannot be written, or the output is a folder.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # said below in other words
    except (OSError, ValueError) as error:  # a name that is too long, or that holds a zero byte
        raise UsageError(f"the output cannot be called {path.name[:40]!r}...", why=str(error)[:80]) from error
    if path.is_dir():
        raise UsageError(f"the output {path.name or path} is a folder", where=str(path), do="name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder for {path.name}", where=str(path.parent), do="create the folder first")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(
            f"the folder of {path.name} cannot be written",
            where=str(path.parent),
            why="the result goes to a temporary file beside it first",
            do="choose another folder",
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; put it in the place of `path` when the block ends well.

    On any exception, KeyboardInterrupt too, the temporary file goes and an old output stays as it was.

    Raises:
        UsageError: as `check_place`.
    """
    check_place(path)
    target = Path(os.path.realpath(path))  # a link stays a link: its target is replaced
    temporary = target.with_name(f".{target.name[:120]}.{secrets.token_hex(4)}.tmp")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise UsageError(
            f"no file can be made beside {target.name}", where=str(target.parent), why=str(error)
        ) from error
    try:
        yield temporary
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_folder(target.parent)


def probe_room(path: Path, nbytes: int) -> None:
    """Ask for the space of an output before it is written, and give it back; where the system cannot say, go on.

    HDF5 does not survive a disk that fills up under it: libhdf5 1.14 crashes the process at its exit.

    Raises:
        OSError: there is no room for so many bytes.
    """
    if not hasattr(os, "posix_fallocate") or not nbytes:
        return
    with path.open("rb+") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, nbytes)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        finally:
            file.truncate(0)


def sync_folder(folder: Path) -> None:
    """Make a rename durable; systems that cannot sync a folder are left alone."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
