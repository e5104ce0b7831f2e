"""A process that answers: forked or started, heard frame by frame, and ended for certain.

It is forked where that is safe and cheap (a command line), else started afresh, without the caller's main module.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass

from layoutx.files.apart import HEAD, above, serve

PATIENCE = 120.0  # seconds without a sign of life: a disk may be slow, a loop is ended by its computing time
START = "import sys; sys.path[:] = sys.argv[1:]; from layoutx.files.apart import serve; serve(0, 1)"
# what has threads of its own, or state that a fork would share
UNFORKABLE = {"torch", "tensorflow", "jax", "paddle", "mlx", "onnxruntime", "ray", "grpc", "pyarrow", "h5py"}
FORKED = 300 << 20  # bytes: a larger process takes its time to be forked, and pages that it changes would count twice


class DeadError(Exception):
    """The process ended, or was ended, before its answer did."""


@dataclass(eq=False, slots=True)
class Child:
    """A process that answers.

    Attributes:
        pid, popen: a forked one's number, or the started one.
        to, back: file descriptors of requests and of answers.
        ready: whether it has said that it is.
    """

    pid: int
    popen: subprocess.Popen[bytes] | None
    to: int
    back: int
    ready: bool = False

    def send(self, data: bytes | memoryview) -> None:
        """Raises DeadError: nobody reads it."""
        view = memoryview(data).cast("B")
        try:
            while view:
                view = view[os.write(self.to, view) :]
        except OSError as error:
            raise DeadError from error

    def gone(self) -> bool:
        """Whether it has ended since its last answer, or says what nobody asked for."""
        return hasattr(select, "poll") and _readable(self.back, 0)

    def frame(self, largest: int) -> tuple[bytes, bytearray]:
        """The next frame: its kind and content.

        Raises:
            DeadError: there is none, or it claims to be longer than `largest`.
        """
        kind, size = HEAD.unpack(self._read(HEAD.size))
        if size > largest:
            raise DeadError(f"it sent {size} bytes")
        return kind, self._read(size)

    def _read(self, size: int) -> bytearray:
        content = bytearray(size)
        view, last = memoryview(content), time.monotonic() + PATIENCE
        while view:
            if not _readable(self.back, last - time.monotonic()):
                raise DeadError(f"it was silent for {PATIENCE:.0f} s")
            count = os.readv(self.back, [view]) if hasattr(os, "readv") else _copied(self.back, view)
            if not count:
                raise DeadError
            view, last = view[count:], time.monotonic() + PATIENCE
        return content

    def end(self) -> int:
        """End it, if it has not; the answer is its exit status, negative for a signal, 0 where nobody knows."""
        for handle in (self.to, self.back):
            with suppress(OSError):
                os.close(handle)
        if self.popen is not None:
            with suppress(subprocess.TimeoutExpired):
                return self.popen.wait(0.2)
            self.popen.kill()
            return self.popen.wait()
        with suppress(OSError):  # somebody else may have waited for it
            for _ in range(100):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    return os.waitstatus_to_exitcode(status)
                time.sleep(0.002)
            os.kill(self.pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return 0


def _readable(handle: int, seconds: float) -> bool:
    """Whether something comes; always true where pipes cannot be watched."""
    if not hasattr(select, "poll"):
        return True
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def _copied(handle: int, view: memoryview) -> int:
    got = os.read(handle, len(view))
    view[: len(got)] = got
    return len(got)


def started() -> Child:
    """A process that waits for its first request."""
    (asked, to), (back, answers) = (tuple(map(above, os.pipe())) for _ in range(2))
    try:
        if _can_fork():
            pid = _forked(asked, answers)
            return Child(pid, None, to, back)
        popen = subprocess.Popen(
            [sys.executable, "-c", START, *(place or os.getcwd() for place in sys.path)],
            stdin=asked,
            stdout=answers,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # it has nothing to multiply
        )
        return Child(popen.pid, popen, to, back)
    finally:
        os.close(asked)
        os.close(answers)


def _can_fork() -> bool:
    if sys.platform != "linux" or threading.active_count() > 1 or UNFORKABLE & sys.modules.keys():
        return False
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 < FORKED


def _forked(asked: int, answers: int) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from 3.12 on, for NumPy's own threads, which the other process does not use
        pid = os.fork()
    if pid:
        return pid
    try:
        gc.freeze()
        keep = sorted({asked, answers})
        for begin, end in zip([3, *(n + 1 for n in keep)], [*keep, os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(begin, end)  # pipes and files of the caller would stay open as long as this process lives
        serve(asked, answers)
    finally:
        os._exit(0)
