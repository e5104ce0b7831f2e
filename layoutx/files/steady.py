"""What a file was when it was opened, and that it is still that: what changed while it was read is refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from layoutx.errors import FileError, raise_all
from layoutx.files.guarded import DO, SourceError

KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def state_in(about: os.stat_result) -> str:
    """What changes when a file does: its size and the time of its last change."""
    return f"{about.st_size} {about.st_mtime_ns}"


def state_at(path: Path) -> str:
    """The state of a plain file; "" of everything else, and of what is not there."""
    try:
        about = path.stat()
    except (OSError, ValueError):
        return ""
    return state_in(about) if stat.S_ISREG(about.st_mode) else ""


def check_plain(path: Path) -> None:
    """Refuse, before it is opened, what is no file: opening a pipe would wait for a writer, a device has no end.

    Raises:
        FileError: a pipe, a socket, a device, a folder.
        OSError: there is nothing.
    """
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind != stat.S_IFREG:
        raise FileError(
            f"{path.name} is {KINDS.get(kind, 'no file')}",
            where=str(path),
            why="what is read lies in a file, and is looked at in any order",
            do="save it as a file first",
        )


def plain_file(path: Path) -> BinaryIO:
    """A plain file for reading.

    Raises:
        FileError: as `check_plain`. OSError: it cannot be opened.
    """
    check_plain(path)
    return path.open("rb")


def same_file(path: Path, state: str, about: os.stat_result | None) -> None:
    """Refuse a file that is not what it was.

    Args:
        state: what it was; "": not known. about: what it is now; None: it is gone.

    Raises:
        SourceError: it became shorter, changed, or is gone.
    """
    now = state_in(about) if about is not None else ""
    if not state or state == now:
        return
    size = int(state.split()[0])
    if about is None:
        how, why = "was removed", "nobody can say what it was in the end"
    elif about.st_size < size:
        how, why = "became shorter", f"it has {about.st_size} bytes now, and had {size}"
    else:
        how, why = "changed", "parts of it may be older than others"
        why += f": it has {about.st_size} bytes now, and had {size}" if about.st_size != size else ""
    raise SourceError(f"{path.name} {how} while it was read", where=str(path), why=why, do=DO)


def same_files(states: Iterable[tuple[Path, str]]) -> None:
    """Refuse files that are not what they were when they were opened.

    Args:
        states: files with the states that they had; each is looked at once.

    Raises:
        SourceError: as `same_file`; of all files together.
    """
    problems = []
    for path, state in dict.fromkeys(states):
        if not state:
            continue
        try:
            about = path.stat()
        except OSError:
            about = None
        try:
            same_file(path, state, about)
        except SourceError as error:
            problems.append(error)
    raise_all(problems, f"{len(problems)} files changed while they were read")
