"""Temporaries: hidden beside their output, locked while their run lives, removed by the next run when it is dead."""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from zlib import crc32

from layoutx.errors import UsageError
from layoutx.files.remedy import remedy

LOCK = "lock"  # the file in a hidden folder that is locked
JOURNAL = "parts.json"  # in the work folder of shards: which of them are finished
OLD = "old"  # in a hidden folder: what was at the output's place, where two folders cannot be exchanged
DAY = 86_400  # seconds after which a temporary is dead where the system has no locks
LONGEST = 120  # bytes of the output's name in that of its temporary: names have at most 255

NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)

_HELD: set[int] = set()  # open locks of this process


def _forget() -> None:
    """A forked process does not hold the locks of its parent: it may outlive it by far."""
    for handle in _HELD:
        with suppress(OSError):
            os.close(handle)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def temporary_of(target: Path, folder: bool = False) -> Iterator[Path]:
    """A new file, or folder, hidden beside an output, and held; whatever is left of it goes when the block ends.

    What dead runs left of the same output goes first. A folder that was moved aside into the new one goes back, if
    nothing took its place.

    Raises:
        UsageError: nothing can be made there.
    """
    sweep(target)
    place = _place(target)
    handle: int | None = None
    try:
        try:
            while (handle := _made(place, folder)) is None:  # a sweeping run took it before its lock was on it
                place = _place(target)
        except OSError as error:
            raise UsageError(
                f"no {'folder' if folder else 'file'} can be made beside {target.name}",
                where=str(target.parent),
                why=str(error),
                do=remedy(error),
            ) from error
        yield place
    finally:
        _gone(place, target)
        let_go(handle)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for what is only needed inside the block, in the system's place for such things (TMPDIR).

    Raises:
        UsageError: there is no such place.
    """
    import tempfile

    with temporary_of(Path(tempfile.gettempdir()) / "layoutx", folder=True) as folder:
        yield folder


def work_folder(final: Path) -> Path:
    """The hidden folder beside an output in which its shards are made; a run that stops leaves them for the next."""
    stem, name = _stem(final), os.fsencode(final.name)
    return final.with_name(f".{stem}.parts" if stem == final.name else f".{stem}.{crc32(name):08x}.parts")


def sweep(target: Path) -> None:
    """Remove what dead runs left of this output; an old folder that one of them had moved aside is put back."""
    mine = re.compile(re.escape(f".{_stem(target)}.") + "([0-9a-f]{8})" + re.escape(".tmp"))
    try:
        names = os.listdir(target.parent)
    except (OSError, ValueError):  # what is wrong with the place is said by `check_place`
        return
    for name in names:
        if found := mine.fullmatch(name):
            with suppress(OSError):
                _swept(target.with_name(name), target, found[1])


def held(folder: Path) -> int | None:
    """Hold a folder for this run, made if it is not there; the answer goes to `let_go`. None: another run holds it.

    Raises:
        OSError: it cannot be made.
    """
    for _ in range(100):  # it may be removed between two of these lines
        try:
            folder.mkdir(exist_ok=True)
        except FileExistsError:  # of what was a folder a moment ago, too: pathlib looks twice
            if folder.exists() and not folder.is_dir():
                raise
            continue
        if folder.is_symlink():  # a stranger's, to have removed what lies elsewhere
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
        try:
            handle = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR | NOFOLLOW, 0o666)
        except FileNotFoundError:
            continue
        if _lock(handle, alone=True) is False:
            os.close(handle)
            return None
        if _is(handle, folder / LOCK):
            _HELD.add(handle)
            return handle
        os.close(handle)
    return None


def let_go(handle: int | None) -> None:
    """Give a lock back."""
    if handle is not None:
        _HELD.discard(handle)
        with suppress(OSError):
            os.close(handle)


def _made(place: Path, folder: bool) -> int | None:
    if folder:
        place.mkdir()
        return held(place)
    handle = os.open(place, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    if _lock(handle, alone=False) is not False and _is(handle, place):
        _HELD.add(handle)
        return handle
    os.close(handle)
    return None


def _swept(place: Path, target: Path, token: str) -> None:
    """Remove one temporary, if its run is dead."""
    about = place.lstat()
    if stat.S_ISDIR(about.st_mode):
        handle = os.open(place / LOCK, os.O_CREAT | os.O_RDWR | NOFOLLOW, 0o666)
        dead = _lock(handle, alone=True)
    elif stat.S_ISREG(about.st_mode):
        handle = os.open(place, os.O_RDWR | NOFOLLOW)
        dead = _lock(handle, alone=False)
    else:
        return
    try:
        if dead or (dead is None and time.time() - about.st_mtime > DAY):
            with suppress(OSError):  # a name that is too long for it
                target.with_name(f"{target.name}.{token}.data").unlink()  # see `onnx_write.data_beside`
            _gone(place, target)
    finally:
        os.close(handle)


def _lock(handle: int, alone: bool) -> bool | None:
    """Take the lock of an open file: False where another run has it, None where the system cannot say.

    Args:
        alone: nobody else opens the file. HDF5 locks what it opens with flock, and would find ours in its way: what
            is written is locked as Linux's open file description (fcntl(2), F_OFD_SETLK), or not at all.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        if alone:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif hasattr(fcntl, "F_OFD_SETLK"):
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        else:
            return None
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK) else None
    return True


def _is(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _place(target: Path) -> Path:
    return target.with_name(f".{_stem(target)}.{os.urandom(4).hex()}.tmp")


def _gone(place: Path, target: Path) -> None:
    """Remove a temporary as far as it lets itself be removed."""
    if (place / OLD).exists() and not target.exists():
        try:
            os.rename(place / OLD, target)
        except OSError:
            return  # the only copy of the old output is in there: the next run tries again
    try:
        place.unlink()
    except FileNotFoundError:
        return
    except OSError:  # a folder: EISDIR, on some systems EPERM
        import shutil

        shutil.rmtree(place, ignore_errors=True)


def _stem(target: Path) -> str:
    """The output's name as far as there is room for it, in whole characters."""
    name = os.fsencode(target.name)
    return target.name if len(name) <= LONGEST else name[:LONGEST].decode("utf-8", "ignore")
