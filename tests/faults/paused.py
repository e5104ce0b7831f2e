"""A process of its own in which layoutx stops at the moment that a test wants, and goes on when it is told to.

One line of JSON in: {"argv": [...]} for the command line or {"code": "..."} for Python, and {"stop": [function, call]}.
At that call it answers {"paused": ...} and waits for a line; at the end it says {"status": ..., "said": ...}.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from collections.abc import Iterator
from threading import Lock
from typing import IO, Any

OUT = sys.stdout


def _tell(**what: Any) -> None:
    print(json.dumps(what), file=OUT, flush=True)


@contextlib.contextmanager
def stopping(place: str, at: int) -> Iterator[list[int]]:
    """Wait in call number `at` of a function, before it does anything; gives the number of calls so far."""
    home, name = place.split(":")
    module = importlib.import_module(home)
    plain, calls, lock = getattr(module, name), [0], Lock()

    def call(*args: Any, **kwargs: Any) -> Any:
        with lock:
            calls[0] += 1
            here = calls[0] == at
        if here:
            _tell(paused=at)
            sys.stdin.readline()
        return plain(*args, **kwargs)

    setattr(module, name, call)
    try:
        yield calls
    finally:
        setattr(module, name, plain)


def carried_out(task: dict[str, Any], said: IO[str]) -> int:
    """The exit status of a task."""
    import layoutx as lx
    from layoutx.cli import main

    if "argv" in task:
        return main(task["argv"])
    try:
        exec(task["code"], {"lx": lx})
    except lx.LayoutxError as error:
        print(f"{type(error).__name__}: {error}", file=said)
        return error.exit_code
    return 0


def serve() -> None:
    for line in iter(sys.stdin.readline, ""):
        task = json.loads(line)
        said = io.StringIO()
        with stopping(*task["stop"]) as calls, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                status: Any = carried_out(task, said)
            except BaseException as error:  # what must not come out
                status = f"{type(error).__name__}, not layoutx's own: {error}"
        _tell(status=status, said=said.getvalue(), calls=calls[0])


if __name__ == "__main__":
    serve()
