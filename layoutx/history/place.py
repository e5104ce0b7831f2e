"""The file that a history grows in: made new, or continued behind its last whole frame; one writer at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from layoutx.errors import UsageError
from layoutx.files.atomic import check_place
from layoutx.frozen import frozen
from layoutx.history.frames import STEP, whole


@frozen
class Before:
    """What the file held: how many moments, the last step and epoch."""

    moments: int
    last: int
    epoch: int


class Place:
    """A path, open or not.

    Raises:
        UsageError: the file is there and is not to be continued; there is no folder for it.
    """

    def __init__(self, path: Path, resume: bool, sync: bool) -> None:
        check_place(path)
        if path.exists() and not resume:
            raise UsageError(
                f"{path.name} is there already",
                where=str(path),
                why="two runs in one file could not be told apart",
                do="use another name, delete it, or continue its run with resume=True",
            )
        self.path, self.resume, self.sync = path, resume, sync
        self.fresh = False  # whether the head is still to be written
        self._file: BinaryIO | None = None
        self._head: Mapping[str, Any] | None = None

    @property
    def file(self) -> BinaryIO:
        """The open file, at its end."""
        assert self._file is not None
        return self._file

    @property
    def is_open(self) -> bool:
        """Whether it can be written."""
        return self._file is not None

    def open(self, head: Mapping[str, Any]) -> Before | None:
        """Open the file for what a head describes; None where it is new, or was open for this run before.

        Raises:
            UsageError: the file is of another model, or another process writes it.
        """
        ours, self.fresh = self._head is not None, False
        if ours and self._head != head:
            raise _other(self.path)
        if self._file is not None:
            return None
        there = self.path.exists() and self.path.stat().st_size > 0 and (ours or self.resume)
        mode = "r+b" if there else "xb" if not self.path.exists() else "r+b"
        file = self._file = cast(BinaryIO, self.path.open(mode))
        try:
            _lock(file, self.path)
            found = self._continued(head) if there else None
        except BaseException:
            self.close()
            raise
        self._head, self.fresh = head, not there
        return None if ours else found

    def _continued(self, head: Mapping[str, Any]) -> Before:
        frames, _ = whole(self.path)
        if any(frames[0].text.get(key) != value for key, value in head.items() if key != "layoutx"):
            raise _other(self.path)
        end = frames[-1].end
        self.file.truncate(end)
        self.file.seek(end)
        moments = [f for f in frames if f.kind == STEP]
        last = moments[-1].text if moments else {"step": -1, "epoch": 0}
        return Before(len(moments), int(last["step"]), int(last["epoch"]))

    def settle(self) -> None:
        """Wait for the disk, where that was asked for."""
        if self.sync:
            os.fsync(self.file.fileno())

    def close(self) -> None:
        """Close the file; its lock goes with it."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None


def _other(path: Path) -> UsageError:
    return UsageError(
        f"{path.name} holds the history of another model",
        why="its layers, tensors or what is recorded of them differ",
        do="record this one into a file of its own",
    )


def _lock(file: BinaryIO, path: Path) -> None:
    """One writer at a time, where the system can say so."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"another run writes {path.name} now", do="use another name") from error
    except OSError:
        return  # a file system without locks
