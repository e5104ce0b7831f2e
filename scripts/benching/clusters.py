"""A Dask cluster of separate processes on this machine, for as long as a block runs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where its scheduler listens, and the processes of its workers."""

    address: str
    workers: tuple[int, ...]


def why_not(options: frozenset[str]) -> str:
    """Why nothing runs on Dask; "" where it does."""
    if importlib.util.find_spec("distributed") is None:
        return "distributed is not installed"
    return "" if "--dask" in options else "`layoutx convert` has no --dask"


@contextmanager
def cluster(folder: Path, workers: int, root: Path) -> Iterator[Cluster]:
    """A scheduler and so many workers of one thread each, on loopback, with layoutx on their path."""
    file = folder / "scheduler.json"
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> None:
        quiet = subprocess.DEVNULL
        call = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(file)]
        started.append(subprocess.Popen(call, cwd=root, stdout=quiet, stderr=quiet))

    try:
        start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        _wait(file)
        for _ in range(workers):
            start("worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0")
        address = str(json.loads(file.read_text(encoding="utf-8"))["address"])
        _join(address, workers)
        yield Cluster(address, tuple(one.pid for one in started[1:]))
    finally:
        for one in reversed(started):
            one.terminate()
        for one in started:
            _ended(one)
        file.unlink(missing_ok=True)


def _ended(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a process that was told to end; one that does not is killed."""
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(file: Path) -> None:
    for _ in range(300):
        if file.exists() and file.stat().st_size:
            return
        time.sleep(0.1)
    raise TimeoutError("the scheduler of Dask did not start")


def _join(address: str, workers: int) -> None:
    from distributed import Client

    with Client(address, timeout=30) as client:
        client.wait_for_workers(workers, timeout=60)
