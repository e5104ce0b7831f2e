"""Who runs: `cp`, the scripts by hand, the way through Keras, and layoutx with its options."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benching.made import Files

HERE = Path(__file__).resolve().parent
CP, NUMPY, NUMPY_TORCH, TORCH, KERAS, BACK = (
    "cp",
    "NumPy script",
    "NumPy script, torch's writer",
    "torch script",
    "Keras route",
    "script",
)
OURS, CHECKED, DEFAULT = "layoutx", "layoutx, bytes", "layoutx, default"
SHARDS = "layoutx, shards"
DASK = {1: "layoutx, shards, Dask, 1 worker", 2: "layoutx, shards, Dask, 2 workers"}


@dataclass(frozen=True, slots=True)
class Contender:
    """A command that turns a source into an output."""

    name: str
    command: Callable[[Path, Path], list[str]]  # source, output
    ending: str = ".safetensors"
    tells: bool = True  # prints the seconds of its work
    ours: bool = False
    helpers: tuple[int, ...] = ()  # processes that work for it


@cache
def options() -> frozenset[str]:
    """Which of the options that matter here `layoutx convert` has."""
    call = [sys.executable, "-c", "import sys; from layoutx.cli import main; sys.exit(main(['convert', '--help']))"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=HERE.parent.parent, check=True)
    return frozenset(word for word in ("--verify", "--jobs", "--dask", "--max-shard-size") if word in done.stdout)


def copying(ending: str = ".safetensors") -> Contender:
    """`cp` to a new file."""
    return Contender(CP, lambda source, out: ["cp", str(source), str(out)], ending, tells=False)


def by_hand(files: Files, name: str) -> Contender:
    """One of the scripts by hand."""
    scripts = {
        NUMPY: ("script_numpy", ["numpy"], ".safetensors"),
        NUMPY_TORCH: ("script_numpy", ["torch"], ".safetensors"),
        TORCH: ("script_torch", [], ".safetensors"),
        KERAS: ("script_keras", [], ".safetensors"),
        BACK: ("script_back", [], ".weights.h5"),
    }
    script, more, ending = scripts[name]
    start = [sys.executable, "-m", f"benching.{script}"]
    return Contender(name, lambda source, out: [*start, str(source), str(files.plan), str(out), *more], ending)


def ours(files: Files, *, back: bool = False, jobs: Sequence[int] = (), bytes_too: bool = False) -> list[Contender]:
    """layoutx without verification (with other numbers of threads too) and as it is by default."""
    found = []
    if "--verify" in options():
        found.append(_ours(files, OURS, back, ["--verify", "none"]))
        found += [
            _ours(files, f"layoutx, {n} thread{'s' * (n > 1)}", back, ["--verify", "none", "--jobs", str(n)])
            for n in jobs
            if "--jobs" in options()
        ]
        if bytes_too:
            found.append(_ours(files, CHECKED, back, ["--verify", "bytes"]))
    return [*found, _ours(files, DEFAULT, back, [])]


def _ours(files: Files, name: str, back: bool, more: Sequence[str], profile: str = "-") -> Contender:
    def command(source: Path, out: Path) -> list[str]:
        start = [sys.executable, "-m", "benching.script_layoutx", profile]
        return [*start, *arguments(files, source, out, back), "--quiet", *more]

    return Contender(name, command, ".weights.h5" if back else ".safetensors", ours=True)


def with_options(files: Files, name: str, more: Sequence[str]) -> Contender:
    """layoutx with these options."""
    return _ours(files, name, False, more)


def profiled(files: Files, profile: Path) -> Contender:
    """layoutx with one thread, its calls counted into a file."""
    more = ["--verify", "none"] if "--verify" in options() else []
    more += ["--jobs", "1"] if "--jobs" in options() else []
    return _ours(files, "layoutx, profiled", False, more, str(profile))


def arguments(files: Files, source: Path, out: Path, back: bool = False) -> list[str]:
    """`convert SOURCE -o OUT ...` for a source of these files."""
    found = ["convert", str(source), "-o", str(out), "--to", "keras" if back else "torch"]
    if back:
        return [*found, "--like", str(files.keras)]
    if source.suffix == ".h5":
        found += ["--config", str(files.config)]
    return [*found, "--like", str(files.names)] if files.model.fused else found
