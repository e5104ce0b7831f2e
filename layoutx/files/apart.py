"""The other side of `isolated`: a process that works with little memory, little time and no files to write.

A request is one line of JSON. The answer is frames, each a kind, eight bytes of length, and so many bytes: a part of
the answer, its end, an error, or a wish for bytes that the asking process holds. Nothing is ever pickled.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from layoutx.errors import LayoutxError

PART, END, OWN, FOREIGN, WISH = b"p", b"e", b"o", b"x", b"w"
HEAD = struct.Struct("<cQ")
SPAN = struct.Struct("<QQ")  # of a wish: offset, size
BEYOND = 3  # file descriptors below belong to the standard streams

_milliseconds = 0  # of computing between two signs of life; 0: in the process of a user

Lent = Callable[[int, int], bytes]  # (offset, size) -> bytes that the asking process holds
Work = Callable[..., Iterator[bytes | memoryview]]


def work_of(name: str) -> Work:
    """`package.module:function`, a generator function of parts."""
    module, _, function = name.partition(":")
    found: Work = getattr(importlib.import_module(module), function)
    return found


def above(handle: int) -> int:
    """The same file under a number that is no standard stream's; the given one is closed.

    A process that was started without standard streams would give their numbers to the next files that it opens.
    """
    if handle >= BEYOND:
        return handle
    found = above(os.dup(handle))
    os.close(handle)
    return found


def serve(requests: int, answers: int) -> None:
    """Answer requests until there are no more; the first frame says that all is ready.

    Args:
        requests, answers: file descriptors.
    """
    global _milliseconds
    requests, answers = above(os.dup(requests)), above(os.dup(answers))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in range(BEYOND):  # what a library prints is no answer
        os.dup2(nothing, stream)
    sys.stdout = sys.stderr = open(1, "w", closefd=False)  # noqa: SIM115 - in a fork they are whatever they were
    _quiet()
    with open(requests, "rb") as asked, open(answers, "wb", buffering=0) as out:
        first = True
        for line in asked:
            request = json.loads(line)
            try:
                work = work_of(request["work"])
            except Exception as error:  # not the fault of any file: the asking process hears that nothing is ready
                _frame(out, FOREIGN, _told(error))
                return
            if first:
                base, first = _size(), False
                _frame(out, END, b"")
            _milliseconds = request["milliseconds"]
            _bound(base + request["memory"] if base else 0)
            alive()
            _answer(work, request, asked, out)
            _stop()


def _answer(work: Work, request: dict[str, Any], asked: BinaryIO, out: BinaryIO) -> None:
    def lent(offset: int, size: int) -> bytes:
        _frame(out, WISH, SPAN.pack(offset, size))
        return asked.read(size)

    try:
        for part in work(lent if request["lent"] else None, **request["args"]):
            _frame(out, PART, part)
            alive()
        _frame(out, END, b"")
    except LayoutxError as error:
        said = {"what": error.what, "where": error.where, "why": error.why, "do": error.do}
        _frame(out, OWN, json.dumps(said).encode())
    except Exception as error:  # h5py raises nearly every type there is
        _frame(out, FOREIGN, _told(error))


def _told(error: Exception) -> bytes:
    return json.dumps([type(error).__name__, " ".join(str(error).split())[:300]]).encode()


def _frame(out: BinaryIO, kind: bytes, content: bytes | memoryview) -> None:
    view = memoryview(content).cast("B")
    out.write(HEAD.pack(kind, len(view)))
    while view:  # a pipe takes what it has room for
        view = view[out.write(view) :]


def _quiet() -> None:
    """No traces, no core dumps, and no end by a Ctrl-C that is meant for the asking process."""
    import faulthandler

    os.environ["HDF5_PLUGIN_PRELOAD"] = "::"  # libhdf5 then loads no library for a filter that a file asks for
    faulthandler.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGPROF"):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _size() -> int:
    """Bytes of the address space, 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _bound(size: int) -> None:
    """From here on: address space of `size` bytes at most (0: any), and no files written."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        if size:
            resource.setrlimit(resource.RLIMIT_AS, (size if hard < 0 else min(size, hard), hard))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def alive() -> None:
    """The time to compute counts from now: each part of an answer has its own, and each step of a long one."""
    if _milliseconds and hasattr(signal, "ITIMER_PROF"):
        signal.setitimer(signal.ITIMER_PROF, _milliseconds / 1000)  # its signal ends the process, whatever it is in


def _stop() -> None:
    if hasattr(signal, "ITIMER_PROF"):
        signal.setitimer(signal.ITIMER_PROF, 0)
