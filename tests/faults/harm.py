"""What becomes of a source while it is read, and the process that it happens to."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PATIENCE = 300.0  # seconds after which silence counts as hanging: a first import of torch may take a minute
OLD = 1_600_000_000  # a file of long ago: whatever writes to it now is seen by its time


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size * 3 // 4)
        file.write(np.random.default_rng(9).bytes(4096))


def replaced(path: Path) -> None:
    """As a training does that saves its next epoch: beside, then renamed."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[::-1])
    os.replace(other, path)


def deleted(path: Path) -> None:
    path.unlink()


SHRUNK: tuple[Callable[[Path], None], ...] = (half, emptied)
CHANGED: tuple[Callable[[Path], None], ...] = (appended, overwritten, replaced, deleted)


class Reader:
    """A process that reads, started when it is needed and again where it died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def run(self, task: dict[str, Any], harm: Callable[[], None]) -> dict[str, Any]:
        """What a task ends in, `harm` being done at its stop; {"died": ...} where the process did not survive it."""
        if self.process is None:
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("paused.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**environment, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
        self._say(json.dumps(task))
        found = self._hear()
        if "paused" in found:
            harm()
            self._say("")
            found = {"reached": True, **self._hear()}
        return found

    def _say(self, text: str) -> None:
        assert self.process
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # it died since the last answer: nothing will be heard
            print(text, file=self.process.stdin, flush=True)

    def _hear(self) -> dict[str, Any]:
        assert self.process
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
            self.end()
            return {"died": "it hangs"}
        line = self.process.stdout.readline()
        if line:
            return dict(json.loads(line))
        code = self.process.wait()
        self.end()
        return {"died": f"the process ended with {code}"}

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            with contextlib.suppress(BrokenPipeError):  # what it was never sent is still in the pipe's buffer
                self.process.communicate()
        self.process = None
