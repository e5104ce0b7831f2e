"""One command in a process of its own: its wall time, the work time that it tells, and its peak anonymous memory."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

EVERY = 0.003  # seconds between two looks at a process' memory
LINE = re.compile(rb"RssAnon:\s+(\d+) kB")
SCRIPTS = Path(__file__).resolve().parent.parent
# as a user's shell: one cache of compiled modules, no greeting of TensorFlow
SHELL = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "", "NO_COLOR": "1"}
PATH = {"PYTHONPATH": os.pathsep.join((str(SCRIPTS), str(SCRIPTS.parent)))}


class FailedError(RuntimeError):
    """A contender ended with an error: what it said."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one run took.

    Attributes:
        wall: seconds of the whole process.
        work: seconds as it tells them, without its imports.
        cpu: seconds of all its threads on a core: says more than `wall` where others use the machine.
        memory: peak anonymous bytes.
    """

    wall: float
    work: float
    cpu: float
    memory: int


def taken(command: Sequence[str], tells: bool = True, helpers: Sequence[int] = ()) -> Taken:
    """Run a command; where it `tells`, the last line that it prints is the seconds of its work.

    Args:
        helpers: processes that work for it: the memory of the largest counts.

    Raises:
        FailedError: its exit status was not 0.
    """
    shell = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env={**shell, **SHELL, **PATH})
        try:
            with Watch([process.pid, *helpers]) as watch:
                _, ended, used = os.wait4(process.pid, 0)
                status = process.returncode = os.waitstatus_to_exitcode(ended)
                wall = time.perf_counter() - started
        except BaseException:
            process.kill()
            raise
        said.seek(0)
        text = said.read().decode(errors="replace").strip()
    if status:
        raise FailedError(f"{' '.join(command[:4])} ... ended with {status}:\n{text[-2000:]}")
    work = float(text.rsplit("\n", 1)[-1]) if tells else wall
    return Taken(wall, work, used.ru_utime + used.ru_stime, watch.peak)


class Watch:
    """Looks at the anonymous memory of processes while a block runs: the largest of them counts."""

    def __init__(self, pids: Sequence[int]) -> None:
        self.peak = 0
        self._paths = [Path(f"/proc/{pid}/status") for pid in pids]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(EVERY):
            for path in self._paths:
                self.peak = max(self.peak, anonymous(path))


def anonymous(status: Path) -> int:
    """Anonymous bytes of a process, by its /proc/PID/status; 0 where it has gone or the system does not say."""
    try:
        found = LINE.search(status.read_bytes())
    except OSError:
        return 0
    return int(found.group(1)) * 1024 if found else 0
