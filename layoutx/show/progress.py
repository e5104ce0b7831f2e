"""Progress on stderr: layer k of n, what is done now, how long it has taken; one line that is gone at the end."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TextIO, TypeVar

from layoutx.errors import UsageError
from layoutx.files.guarded import intact
from layoutx.progress import Progress, heard
from layoutx.show.tables import clean

PATIENCE = 1.0  # seconds before anything is shown: most jobs are done by then
WIDEST = 48
P = ParamSpec("P")
R = TypeVar("R")
_OPEN: list[Meter] = []


class Meter:
    """A line of progress, drawn by rich; nothing appears before PATIENCE, nor where stderr is no terminal.

    It is a `layoutx.progress.Progress`: called with (done, of how many, what comes now).
    """

    def __init__(self, stream: TextIO | None = None, patience: float = PATIENCE) -> None:
        self.stream = stream or sys.stderr
        self.patience = patience
        self._bar: Any = None
        self._task: Any = None
        self._over = not self.stream.isatty()

    def __call__(self, done: int, many: int, what: str) -> None:
        """Show it."""
        if self._over:
            return
        if self._bar is None:
            self._start()
        said = {"description": clean(what, WIDEST), "many": _of(done, many)}
        self._bar.update(self._task, completed=done, total=many or None, **said)

    def _start(self) -> None:
        from rich.console import Console

        _OPEN.append(self)
        console = Console(file=self.stream, force_terminal=True, highlight=False)
        self._bar = _late(self.patience, console)
        self._task = self._bar.add_task("", total=None, many="")
        self._bar.start()

    def close(self) -> None:
        """Take the line away: a result, or an error, is printed next."""
        self._over = True
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self in _OPEN:
            _OPEN.remove(self)


def _of(done: int, many: int) -> str:
    return f"{min(done + 1, many)} of {many}" if many else ""


def _late(patience: float, console: Any) -> Any:
    """rich's progress, which draws nothing until its time has come; in a terminal that cannot redraw, never."""
    from time import monotonic

    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    began = monotonic()

    class Late(Progress):
        def get_renderables(self) -> Any:
            return super().get_renderables() if monotonic() - began >= patience else ()

    columns = [TextColumn("{task.fields[many]}"), TextColumn("{task.description}", markup=False), TimeElapsedColumn()]
    # A pipe beside the terminal stays as it is: rich would print what is written to stdout above its own line.
    return Late(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)


def closed() -> None:
    """Take away every line of progress that stands."""
    for meter in tuple(_OPEN):
        meter.close()


@contextmanager
def metered(asked: bool | Progress | None) -> Iterator[None]:
    """Progress of what is done inside: True shows it on a terminal, a callable is called, None changes nothing.

    Raises:
        UsageError: something else.
    """
    if asked is None or asked is False:
        yield
    elif callable(asked) and not isinstance(asked, bool):
        with heard(asked):
            yield
    elif asked is True:
        meter = Meter()
        try:
            with heard(meter):
                yield
        finally:
            meter.close()
    else:
        raise UsageError(f"progress is {asked!r}", do="give progress=True, or a function of (done, of how many, what)")


def reported(function: Callable[P, R]) -> Callable[P, R]:
    """A main function whose keyword `progress` says who hears how far it is."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        asked: Any = kwargs.get("progress")
        with metered(asked), intact():
            return function(*args, **kwargs)

    return run
