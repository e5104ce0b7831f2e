"""An output that appears whole or not at all: written beside its place, synced, then renamed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from layoutx.errors import FileError, UsageError
from layoutx.files.leftovers import OLD, sweep, temporary_of
from layoutx.files.remedy import remedy
from layoutx.files.remote import url_of
from layoutx.files.swap import swap

TRIES = 100  # renames of a folder that another run renames too


def check_place(path: Path, ours: Callable[[Path], bool] | None = None) -> None:
    """Refuse a place where no file can go; given `ours`, one where no folder can go.

    Args:
        ours: whether an existing folder may be replaced: an empty one always may.

    Raises:
        UsageError: the folder does not exist or cannot be written, or the output is a folder, a device, a pipe.
    """
    if url_of(path) is not None:
        from layoutx.files.remote_write import check_remote

        check_remote(path)
        return
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # said below in other words
    except PermissionError as error:
        what = f"the folder of {path.name} cannot be entered"
        raise UsageError(what, where=str(path.parent), why=str(error), do=remedy(error)) from error
    except (OSError, ValueError) as error:  # a name that is too long, or that holds a zero byte
        what, do = f"the output cannot be called {path.name[:40]!r}...", "choose another, shorter name"
        raise UsageError(what, why=str(error)[:80], do=do) from error
    if path.is_dir() and ours is None:
        raise UsageError(f"the output {path.name or path} is a folder", where=str(path), do="name a file in it")
    if ours is not None and path.exists():
        _check_old(path, ours)
    _check_kind(path)
    parent = Path(os.path.realpath(path)).parent  # that of a link's target
    if not path.parent.is_dir() or not parent.is_dir():
        raise UsageError(
            f"there is no folder for {path.name}",
            where=str(parent if path.parent.is_dir() else path.parent),
            do="create the folder first",
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(
            f"the folder of {path.name} cannot be written",
            where=str(parent),
            why="the result goes to a temporary file beside it first",
            do="choose another folder",
        )


def not_over(path: Path, read: Iterable[object]) -> None:
    """Refuse to write over a file that is read: `read`, of which what is no path counts as none.

    Raises:
        UsageError: with its name.
    """
    for one in [Path(given) for given in read if isinstance(given, (str, os.PathLike))]:
        if url_of(path) is None and path.exists() and one.exists() and path.samefile(one):
            raise UsageError(f"the output is {one.name} itself", where=str(path), do="give another name with -o")


def _check_kind(path: Path) -> None:
    """Refuse to put a file into the place of what is none."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UsageError(
                f"the output {path.name} is a link to itself", where=str(path), do=remedy(error)
            ) from error
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UsageError(
            f"the output {path.name} is no file",
            where=str(path),
            why="it is a device, a pipe or a socket, and would be replaced by a file",
            do="choose another name",
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

    On any exception, KeyboardInterrupt too, the temporary file goes and an old output stays as it was. What a killed
    run left of the same output goes first.

    Args:
        durable: wait until the disk has it before the rename: then even a power failure leaves the old or the new.

    Raises:
        UsageError: as `check_place`.
        FileError: the system failed: a full disk, a read error; whatever OSError or MemoryError the block raises.
    """
    check_place(path)
    target = Path(os.path.realpath(path))  # a link stays a link: its target is replaced
    with _told(path), temporary_of(target) as temporary:
        yield temporary
        with suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, target)
    sync_folder(target.parent)


@contextmanager
def replacing_folder(path: Path, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Give a place for a new folder, hidden beside `path`; put it in the place of `path` when the block ends well.

    On any exception, KeyboardInterrupt too, the new folder goes and an old one stays as it was. Old and new are
    exchanged in one step where the file system can; elsewhere the old one is moved aside first, and a run that is
    killed between the two leaves none: the next run puts the old one back.

    Args:
        ours: as for `check_place`.

    Raises:
        UsageError, FileError: as `replacing`.
    """
    target = Path(os.path.realpath(path))
    if url_of(path) is None:
        sweep(target)
    check_place(path, ours)
    with _told(path), temporary_of(target, folder=True) as hidden:
        new = hidden / f"new{target.suffix}"  # orbax lengthens the name, and hangs where it cannot
        yield new
        _sync_tree(new)
        if target.exists():
            _check_old(target, ours)  # it may have become something else meanwhile
            new.chmod(stat.S_IMODE(target.stat().st_mode))
        _put(new, target, hidden / OLD)
    sync_folder(target.parent)


def _put(new: Path, target: Path, old: Path) -> None:
    """Give a folder its last name, whatever other runs do there."""
    for last in range(TRIES - 1, -1, -1):
        try:
            if not target.exists():
                os.rename(new, target)
            elif not swap(new, target):
                _aside(new, target, old)
            return
        except OSError as error:
            if not last or error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST) or not new.exists():
                raise


def _aside(new: Path, target: Path, old: Path) -> None:
    """The old folder moved aside first; where it ends there, it goes back, see `temporary_of`."""
    import shutil

    shutil.rmtree(old, ignore_errors=True)  # another run put its own in the place of what was moved here
    os.rename(target, old)
    os.rename(new, target)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what the system refuses into a FileError."""
    try:
        yield
    except (OSError, MemoryError) as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
        raise FileError(f"cannot write {path.name}", where=str(path), why=said, do=remedy(error)) from error


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
