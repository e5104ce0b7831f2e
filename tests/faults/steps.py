"""The calls to the system that a piece of work makes, counted in a process of its own: one of them kills it, or fails.

As SQLite's tests do: not some moments, but every one between the first call and the last.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from layoutx.errors import LayoutxError

CHANGES = {
    "posix": {
        *("open", "write", "pwrite", "pwritev", "ftruncate", "truncate", "posix_fallocate", "fsync", "close", "chmod"),
        *("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "link", "symlink"),
    },
    "_io": {"open", "write", "truncate", "flush", "close", "__exit__"},
    "nt": set[str](),
}
READS = {
    "posix": {"read", "pread", "preadv", "fstat", "scandir", "listdir"},
    "_io": {"read", "readinto", "seek"},
}
WORSE = {  # what a call may fail with
    "open": (errno.EMFILE, errno.EACCES, errno.ENOSPC),
    "write": (errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "replace": (errno.EIO, errno.EACCES, errno.ENOSPC),
}
EVERY = 1 if os.environ.get("LAYOUTX_FAULTS") == "all" else 9  # each call is disturbed, or each ninth
STRANGE = 99  # exit status of a child that raised what is no error of layoutx
Act = Callable[[str], None]


def kill(call: str) -> None:
    """End the process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def failing(number: int) -> Act:
    """The call fails with an errno."""

    def act(call: str) -> None:
        raise OSError(number, os.strerror(number))

    return act


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        status: its exit status; negative: the signal that ended it. calls: how many were counted.
        call: the one that was disturbed. said: the error that it ended with.
    """

    status: int
    calls: int
    call: str
    said: str
    do: str

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL


class Steps:
    """A profiler that counts calls, and disturbs the n-th."""

    def __init__(self, at: int, act: Act, reads: bool) -> None:
        self.at, self.act = at, act
        self.calls, self.call = 0, ""
        self.watched = {k: v | (READS.get(k, set()) if reads else set()) for k, v in CHANGES.items()}

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        if event != "c_call":
            return
        own = getattr(arg, "__self__", None)
        home = getattr(own, "__name__", None) if type(own) is type(os) else type(own).__module__
        if arg.__name__ not in self.watched.get(str(home), ()):
            return
        if arg.__name__ == "write" and own in (sys.stderr, sys.stdout):
            return
        self.calls += 1
        if self.calls == self.at:
            self.call = arg.__name__
            self.act(self.call)


def disturbed(work: Callable[[], object], at: int = 0, act: Act = kill, reads: bool = False) -> Ended:
    """Do the work in a child, whose `at`-th call to the system is disturbed; 0: none is."""
    inward, outward = os.pipe()
    child = os.fork()
    if not child:
        os.close(inward)
        _work(work, Steps(at, act, reads), outward)
    os.close(outward)
    with open(inward, "rb") as file:
        told = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    calls, call, said, do = json.loads(told) if told else (0, "", "", "")
    return Ended(status, calls, call, said, do)


def _work(work: Callable[[], object], steps: Steps, outward: int) -> None:
    status, said, do = STRANGE, "", ""
    try:
        threading.setprofile(steps)
        sys.setprofile(steps)
        try:
            work()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        status = 0
    except LayoutxError as error:
        status, said, do = error.exit_code, str(error), error.do
    except BaseException:
        said = traceback.format_exc()
    finally:
        os.write(outward, json.dumps([steps.calls, steps.call, said, do]).encode())
        os._exit(status)
