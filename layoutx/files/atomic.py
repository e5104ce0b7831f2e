"""An output that appears whole or not at all: written beside its place, synced, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layoutx.errors import UsageError
from layoutx.files.remote import url_of


def check_place(path: Path, ours: Callable[[Path], bool] | None = None) -> None:
    """Refuse a place where no file can go; given `ours`, one where no folder can go.

    Args:
        ours: whether an existing folder may be replaced: an empty one always may.

    Raises:
        UsageError: the folder does not exist or cannot be written, or the output is a folder.
    """
    if url_of(path) is not None:
        from layoutx.files.remote_write import check_remote

        check_remote(path)
        return
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # said below in other words
    except (OSError, ValueError) as error:  # a name that is too long, or that holds a zero byte
        raise UsageError(f"the output cannot be called {path.name[:40]!r}...", why=str(error)[:80]) from error
    if path.is_dir() and ours is None:
        raise UsageError(f"the output {path.name or path} is a folder", where=str(path), do="name a file in it")
    if ours is not None and path.exists():
        _check_old(path, ours)
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder for {path.name}", where=str(path.parent), do="create the folder first")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(
            f"the folder of {path.name} cannot be written",
            where=str(path.parent),
            why="the result goes to a temporary file beside it first",
            do="choose another folder",
        )


def _check_old(path: Path, ours: Callable[[Path], bool]) -> None:
    if not path.is_dir():
        raise UsageError(
            f"the output {path.name} is a file, and would be a folder", where=str(path), do="choose another name"
        )
    if any(path.iterdir()) and not ours(path):
        raise UsageError(
            f"the output {path.name} is a folder of something else",
            where=str(path),
            why="a folder is replaced whole, and only where layoutx wrote it",
            do="choose another name, or remove the folder first",
        )


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path in the same folder; put it in the place of `path` when the block ends well.

    On any exception, KeyboardInterrupt too, the temporary file goes and an old output stays as it was.

    Args:
        durable: wait until the disk has it before the rename: then even a power failure leaves the old or the new.

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
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync_folder(target.parent)


@contextmanager
def replacing_folder(path: Path, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Give a place for a new folder, hidden beside `path`; put it in the place of `path` when the block ends well.

    On any exception, KeyboardInterrupt too, the new folder goes and an old one stays as it was. No system call
    exchanges two full folders everywhere: the old one is moved aside first, and back if the second rename fails.

    Args:
        ours: as for `check_place`.

    Raises:
        UsageError: as `check_place`.
    """
    check_place(path, ours)
    target = Path(os.path.realpath(path))
    hidden = target.with_name(f".{target.name[:120]}.{secrets.token_hex(4)}.tmp")
    new, old = hidden / target.name, hidden / f".{target.name[:120]}.old"
    try:
        hidden.mkdir()
    except OSError as error:
        raise UsageError(
            f"no folder can be made beside {target.name}", where=str(target.parent), why=str(error)
        ) from error
    try:
        yield new
        _sync_tree(new)
        if target.exists():
            new.chmod(stat.S_IMODE(target.stat().st_mode))
            os.rename(target, old)
        os.rename(new, target)
    finally:
        if old.exists() and not target.exists():
            os.rename(old, target)
        shutil.rmtree(hidden, ignore_errors=True)
    sync_folder(target.parent)


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
    """Ask for the space of an open file; where the system cannot say whether there is any, go on."""
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


def _sync_tree(folder: Path) -> None:
    """Make all that lies in a folder durable."""
    for place, _, files in os.walk(folder):
        for name in files:
            with (Path(place) / name).open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(Path(place))


def sync_folder(folder: Path) -> None:
    """Make a rename durable; systems that cannot sync a folder are left alone."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
