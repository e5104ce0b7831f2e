"""Victims started, watched, replaced when they die; their findings kept as folders that can be opened again."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.fuzzing.corpus import ROOT, cases

PATIENCE = 60.0  # seconds without an input done, beyond which a victim hangs where no signal reaches it
Run = Sequence[tuple[str, int, float]]  # reader, inputs, seconds: one victim after the other


@dataclass
class Tally:
    """What was tried of one reader."""

    reader: str
    inputs: int = 0
    refused: int = 0
    opened: int = 0
    found: int = 0
    reached: int = 0
    seconds: float = 0.0

    @staticmethod
    def sum(name: str, several: Iterable[Tally]) -> Tally:
        total = Tally(name)
        for one in several:
            for key in ("inputs", "refused", "opened", "found", "reached", "seconds"):
                setattr(total, key, getattr(total, key) + getattr(one, key))
        return total


@dataclass(frozen=True)
class Finding:
    """One thing that must not happen, with the folder that holds what made it happen."""

    reader: str
    kind: str
    where: str
    about: str
    seed: int
    number: int
    folder: Path

    def text(self) -> str:
        lines = [f"\n{self.kind} in {self.reader}, {self.where} (seed {self.seed}, input {self.number})"]
        lines += [f"  {line}" for line in self.about.strip().splitlines()[-6:]]
        lines.append(f"  again: python scripts/fuzz.py --replay {self.folder}")
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.name != "finding.json" and path.stat().st_size <= 600:
                lines.append(f"  {path.relative_to(self.folder)}: {base64.b64encode(path.read_bytes()).decode()}")
        return "\n".join(lines)


def fuzzed(runs: Sequence[Run], seed: int, jobs: int, out: Path) -> tuple[list[Tally], list[Finding]]:
    """All runs, `jobs` at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        done = list(pool.map(lambda run: _run(run, seed, out), runs))
    return [tally for tallies, _ in done for tally in tallies], [one for _, findings in done for one in findings]


def _run(run: Run, seed: int, out: Path) -> tuple[list[Tally], list[Finding]]:
    """One victim after the other, until every reader had its inputs or its time."""
    tallies, findings = {reader: Tally(reader) for reader, _, _ in run}, list[Finding]()
    waiting = [(reader, 0, inputs, seconds) for reader, inputs, seconds in run]
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    while waiting:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=shared, prefix="layoutx-fuzz-") as folder:
            victim = Watched(Path(folder), seed, waiting)
            for said in victim.lines():
                if "finding" in said:
                    findings.append(_kept(said, out))
                else:
                    tally = tallies[said["done"]]
                    for key in ("inputs", "refused", "opened", "found"):
                        setattr(tally, key, getattr(tally, key) + said[key])
                    tally.reached = max(tally.reached, said["reached"])
                    tally.seconds += time.monotonic() - began
                    began = time.monotonic()
                    waiting.pop(0)
            if not waiting:
                break
            # It died: the input that it was at is the finding, the next one is where another goes on.
            _, first, inputs, seconds = waiting.pop(0)
            reader, number = victim.at()
            findings.append(_kept(victim.finding(reader, number), out))
            tallies[reader].inputs += max(number + 1 - first, 0)
            tallies[reader].found += 1
            left = seconds - (time.monotonic() - began)
            if number >= 0 and left > 0 and number + 1 < inputs:
                waiting.insert(0, (reader, number + 1, inputs, left))
    return list(tallies.values()), findings


class Watched:
    """A victim and its last words."""

    def __init__(self, folder: Path, seed: int, jobs: Sequence[tuple[str, int, int, float]]) -> None:
        self.folder, self.seed, self.ended = folder, seed, ""
        (folder / "at").write_text(f"{jobs[0][0]} -1")
        task = json.dumps({"folder": str(folder), "seed": seed, "jobs": jobs})
        self.errors = (folder / "errors").open("w")
        settings = {**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONHASHSEED": "0", "CUDA_VISIBLE_DEVICES": ""}
        settings.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        call = [sys.executable, "-m", "scripts.fuzzing.victim", task]
        self.process = subprocess.Popen(call, cwd=ROOT, stdout=subprocess.PIPE, stderr=self.errors, env=settings)

    def lines(self) -> Any:
        """What it says, until it ends or nothing moves any more."""
        assert self.process.stdout
        last = (self.at(), time.monotonic())
        buffer = b""
        while True:
            if select.select([self.process.stdout], [], [], 1.0)[0]:
                data = os.read(self.process.stdout.fileno(), 1 << 16)
                if not data:
                    break
                *whole, buffer = (buffer + data).split(b"\n")
                yield from map(json.loads, whole)
                last = (last[0], time.monotonic())
            if self.at() != last[0]:
                last = (self.at(), time.monotonic())
            # Before the first input it imports frameworks, which takes as long as it takes.
            if time.monotonic() - last[1] > (PATIENCE if last[0][1] >= 0 else 10 * PATIENCE):
                self.ended = "hang"
                self.process.kill()
                break
        code = self.process.wait()
        self.ended = self.ended or f"ended with {code}"
        self.errors.close()

    def at(self) -> tuple[str, int]:
        """Reader and number of the input at hand; -1 before the first."""
        try:
            reader, number = (self.folder / "at").read_text().split()
        except (OSError, ValueError):
            return "", -1
        return reader, int(number)

    def finding(self, reader: str, number: int) -> dict[str, Any]:
        """Its end as a finding."""
        place = self.folder / "input"
        files = {
            str(path.relative_to(place)): base64.b64encode(path.read_bytes()).decode()
            for path in place.rglob("*")
            if path.is_file()
        }
        said = (self.folder / "errors").read_text(errors="replace")[-3000:]
        about = {"kind": "hang" if self.ended == "hang" else "crash", "where": self.ended, "text": said}
        return {
            "finding": reader,
            "number": number,
            "seed": self.seed,
            "opened": cases(reader)[0].opened,
            **about,
            "files": files,
        }


def _kept(said: dict[str, Any], out: Path) -> Finding:
    """A finding as a folder."""
    key = hashlib.sha256(f"{said['kind']} {said['where']}".encode()).hexdigest()[:8]
    folder = out / f"{said['finding']}-{said['kind']}-{key}"
    if folder.exists():
        shutil.rmtree(folder)
    for name, content in said["files"].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(content))
    folder.mkdir(parents=True, exist_ok=True)
    about = {"reader": said["finding"], **{k: said[k] for k in ("opened", "kind", "where", "text", "seed", "number")}}
    (folder / "finding.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    return Finding(
        said["finding"], said["kind"], said["where"], said["text"], said["seed"], said["number"], folder.resolve()
    )
