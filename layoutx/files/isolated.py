"""A function's answer from a process that may die: what crashes, hangs or grows on a forged file takes nothing with it.

The process (`child`) is kept for the next question, and replaced after a crash or an error that was not layoutx's own.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from layoutx.errors import FileError, LayoutxError, UsageError
from layoutx.files.apart import END, FOREIGN, OWN, PART, SPAN, WISH, work_of
from layoutx.files.child import Child, DeadError, started
from layoutx.files.limits import PREFIX, limit

SWITCH = "LAYOUTX_ISOLATE"
WISHED = 1 << 20  # bytes of a wish at most
DO_AGAIN = "copy or download the file again, or save it again"

Each = Callable[[bytearray], object]


_lock = threading.Lock()
_kept: Child | None = None


def isolating() -> bool:
    """Whether a process of its own is used: not where LAYOUTX_ISOLATE=0 says so, nor in a program without a Python."""
    return os.environ.get(SWITCH) != "0" and bool(sys.executable) and not getattr(sys, "frozen", False)


def ask(
    work: str,
    args: Mapping[str, Any],
    each: Each,
    of: Path,
    what: str,
    *,
    lent: bytes | memoryview | None = None,
    largest: int = 1 << 24,
    memory: int | None = None,
    work_bytes: int = 0,
) -> None:
    """Have a generator function of layoutx run elsewhere, and get its parts one by one.

    Args:
        work: `module:function`; it is given `lent` (a function that fetches bytes, or None), then `args`.
        each: called with each part, in this process; it must not ask for anything itself.
        of, what: the file that is read, and as what: for errors.
        lent: bytes of this process that the function may fetch parts of.
        largest: bytes of a part at most.
        work_bytes: bytes that are unpacked for a part, which takes its time.
        memory: bytes by which the process may grow; None: the limit.

    Raises:
        FileError: the function's own, or the process died, hung, or grew.
    """
    global _kept
    if not isolating():
        for part in work_of(work)(None if lent is None else _fetch(lent), **args):
            each(bytearray(part))
        return
    request = {"work": work, "args": dict(args), "lent": lent is not None}
    request["milliseconds"] = limit("COMPUTING") + (work_bytes >> 14)
    line = json.dumps({**request, "memory": limit("MEMORY") if memory is None else memory}).encode() + b"\n"
    with _lock:
        child, _kept = _living(_kept) or _started(), None
        problem: Exception | None = None
        good, status = False, 0
        try:
            child.send(line)
            problem = _listen(child, each, lent, largest)
            good = not isinstance(problem, _ForeignError)
        except DeadError as error:
            problem = error
        finally:  # a process that met a damaged file may be damaged itself; one that was left has more to say
            if good:
                _kept = child
            else:
                status = child.end()
    if isinstance(problem, _ForeignError):
        problem = _unread(of, what, str(problem), _remedy(str(problem)))
    elif isinstance(problem, DeadError):
        problem = _died(child, status, str(problem), of, what)
    if problem is not None:
        raise problem


class _ForeignError(Exception):
    """An error of libhdf5, h5py or Python in the process, as text."""


def _listen(child: Child, each: Each, lent: bytes | memoryview | None, largest: int) -> Exception | None:
    """Hear an answer to its end; the answer is the error that it ended in."""
    if not child.ready:
        kind, content = child.frame(1 << 16)
        if kind != END:
            raise _unready(content.decode("utf-8", "replace"))
        child.ready = True
    while True:
        kind, content = child.frame(largest)
        if kind == PART:
            each(content)
        elif kind == WISH and lent is not None and len(content) == SPAN.size:
            offset, size = SPAN.unpack(content)
            if size > WISHED or offset + size > len(lent):
                raise DeadError(f"it wanted {size} bytes from {offset} on")
            child.send(memoryview(lent)[offset : offset + size])
        elif kind == END:
            return None
        elif kind == OWN:
            said = json.loads(content)
            return FileError(said["what"], where=[str(w) for w in said["where"]], why=said["why"], do=said["do"])
        elif kind == FOREIGN:
            return _ForeignError(": ".join(map(str, json.loads(content))))
        else:
            raise DeadError(f"it answered {kind!r}")


def _living(child: Child | None) -> Child | None:
    """The kept process, if it is still there: that it died between two questions is not the fault of the next file."""
    if child is not None and child.gone():
        child.end()
        return None
    return child


def _started() -> Child:
    try:
        return started()
    except OSError as error:
        raise _unready(str(error)) from error


def _unready(why: str) -> UsageError:
    return UsageError(
        "the process that reads HDF5 files cannot be started",
        where=sys.executable,
        why=why,
        do=f"set {SWITCH}=0 to read in this process, without its protection",
    )


def _fetch(lent: bytes | memoryview) -> Callable[[int, int], bytes]:
    return lambda offset, size: bytes(memoryview(lent)[offset : offset + size])


def _died(child: Child, status: int, said: str, of: Path, what: str) -> LayoutxError:
    """The error for a process that did not answer to the end."""
    if not child.ready:
        return _unready(f"it ended at once, exit status {status} {said}".strip())
    name = signal.Signals(-status).name if -status in {one.value for one in signal.Signals} else ""
    if name == "SIGPROF":
        most = limit("COMPUTING")
        why = f"its library computes for {most} milliseconds without a result, and may never end"
        return _unread(of, what, why, f"if you trust the file, set {PREFIX}COMPUTING={100 * most}")
    if said:
        return _unread(of, what, f"the process that read it was ended: {said}", DO_AGAIN)
    how = f"signal {-status}, {name}" if name else f"exit status {status}"
    return _unread(of, what, f"its library crashed on it ({how}), in a process of its own", DO_AGAIN)


def _remedy(said: str) -> str:
    if not re.search("memory|alloc|H5MM", said, re.IGNORECASE):
        return DO_AGAIN
    most = limit("MEMORY")
    return f"it may have asked for more than {most} bytes; if you trust the file, set {PREFIX}MEMORY={10 * most}"


def _unread(of: Path, what: str, why: str, do: str) -> FileError:
    return FileError(f"cannot read {of.name} as {what}", where=str(of), why=why, do=do)


def _forget() -> None:
    """In a fork of this process: the answering one belongs to the other, and so may the lock."""
    global _kept, _lock
    _lock = threading.Lock()
    if _kept is not None:
        for handle in (_kept.to, _kept.back):
            with suppress(OSError):
                os.close(handle)
        if _kept.popen is not None:
            _kept.popen.returncode = 0  # nothing to wait for
    _kept = None


def close() -> None:
    """End the process that is kept; the next question starts another."""
    global _kept
    with _lock:
        if _kept is not None:
            _kept.end()
        _kept = None


atexit.register(close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
