"""Ctrl-C, SIGTERM, SIGHUP: the run ends in order, once, and one line says what became of its output."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic
from types import FrameType, TracebackType
from typing import Any

from layoutx.files.leftovers import JOURNAL, work_folder

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
PATIENCE = 2.0  # seconds for putting things away: who asks again later is obeyed at once
RETRY = 0.01  # seconds until an interrupt that a destructor swallowed comes again


class Interrupts:
    """What happens on a signal, inside a `with`: the first ends the run, those that follow at once change nothing.

    Attributes:
        number: the signal that came; 0: none.
        lasting: after the `with`, signals are ignored: all is done, and the process ends by itself.
    """

    def __init__(self, lasting: bool = False) -> None:
        self.number = 0
        self.lasting = lasting
        self._since = 0.0
        self._before: dict[int, Any] = {}
        self._hook = sys.unraisablehook
        self._output: Path | None = None
        self._state: object = None

    def __enter__(self) -> Interrupts:
        """Listen, in the main thread, to what nobody else listens to."""
        ours = (signal.SIG_DFL, signal.default_int_handler)
        for name in NAMES:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in ours:
                with suppress(ValueError):  # another thread
                    self._before[number] = signal.signal(number, self._heard)
        if self._before:
            sys.unraisablehook = self._swallowed
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Listen no more."""
        if hasattr(signal, "setitimer") and self.number:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_IGN if self.lasting else before)
        sys.unraisablehook = self._hook

    def about(self, output: Any) -> None:
        """Remember how an output is before anything happens."""
        if self._output is None and isinstance(output, str) and "://" not in output:
            self._state = _state(Path(output))
            self._output = Path(output)  # last: an interrupt may come between the two lines

    def said(self) -> str:
        """What became of the output, in one line; "" where the command has none."""
        if self._output is None:
            return ""
        name = self._output.name
        if _state(self._output) != self._state:
            return f"interrupted: {name} is whole, it was finished before"
        old = f"the old {name} is as it was" if self._state != (None, None) else f"{name} was not written"
        kept = "; finished shards are kept, go on with --resume" if _has_shards(self._output) else ""
        return f"interrupted: {old}{kept}"

    def _heard(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            if monotonic() - self._since > PATIENCE:
                os._exit(128 + number)
            return
        self.number, self._since = number, monotonic()
        raise KeyboardInterrupt

    def _swallowed(self, what: Any) -> None:
        """An interrupt that came while a destructor ran, which may raise nothing, comes again."""
        if not (self.number and what.exc_type is KeyboardInterrupt):
            self._hook(what)
        elif hasattr(signal, "setitimer"):
            signal.signal(signal.SIGALRM, self._again)
            signal.setitimer(signal.ITIMER_REAL, RETRY)

    def _again(self, number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt


def _state(output: Path) -> tuple[object, object]:
    """What changes when an output is put in its place: of a file or folder, and of the index of shards."""
    return _identity(output), _identity(output.parent / f"{output.name}.index.json")


def _identity(path: Path) -> object:
    try:
        about = path.stat()
    except (OSError, ValueError):
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


def _has_shards(output: Path) -> bool:
    return (work_folder(output) / JOURNAL).is_file()
