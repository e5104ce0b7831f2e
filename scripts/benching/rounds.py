"""Contenders in turn, some rounds; every output of layoutx is compared with the script's, tensor by tensor."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benching.agreed import differences
from benching.contenders import CP, Contender
from benching.hot import heat
from benching.measured import FailedError, Taken, taken

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Session:
    """All runs on one source: contender -> what each round took."""

    title: str
    nbytes: int
    runs: dict[str, list[Taken]]
    ours: tuple[str, ...]
    compared: int  # outputs of layoutx that were compared
    wrong: tuple[str, ...] = field(default=())  # what was different, or why a contender gave nothing

    def ratio(self, one: str, other: str, what: str = "work") -> tuple[float, float, float]:
        """Median of one over that of the other; least and largest of the rounds."""
        ups: list[float] = [getattr(run, what) for run in self.runs[one]]
        downs: list[float] = [getattr(run, what) for run in self.runs[other]]
        rounds = [up / down for up, down in zip(ups, downs, strict=True)]
        return statistics.median(ups) / statistics.median(downs), min(rounds), max(rounds)

    def has(self, *names: str) -> bool:
        """Whether all of these ran."""
        return all(self.runs.get(name) for name in names)

    def memory(self, name: str) -> int:
        """Peak anonymous bytes over all rounds."""
        return max(run.memory for run in self.runs[name])

    def median(self, name: str, what: str = "wall") -> float:
        """Median seconds."""
        return float(statistics.median(getattr(run, what) for run in self.runs[name]))


def session(
    title: str,
    source: Path,
    contenders: Sequence[Contender],
    folder: Path,
    runs: int,
    reference: Path,
    tell: Tell,
) -> Session:
    """Run the contenders on a source, so many rounds, each but the first in an order of its own.

    Who always ran after the same other one would always find the memory that this one left; for large sources, memory
    is taken and freed before each run.

    Args:
        reference: the file that every output of layoutx has to equal; where it does not exist, the first output of a
            script by hand, the first contender then, becomes it.
    """
    found: dict[str, list[Taken]] = {one.name: [] for one in contenders}
    wrong: list[str] = []
    compared = 0
    out = folder / "out"
    for number in range(runs):
        for one in Random(number).sample(contenders, len(contenders)) if number else contenders:
            if found.get(one.name) is None:
                continue
            tell(f"{title}: round {number + 1} of {runs}, {one.name}")
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            path = out / f"out{one.ending}"
            heat(source.stat().st_size)
            try:
                found[one.name].append(taken(one.command(source, path), one.tells, one.helpers))
            except FailedError as error:
                wrong.append(f"{title}, {one.name}: {error}")
                del found[one.name]
                continue
            made = next(iter(out.glob("*.index.json")), path)
            if one.name == CP:
                continue
            if not reference.exists():
                os.replace(made, reference)
                os.sync()  # it stays: what of it is not on the disk yet would be written while others are timed
            elif one.ours or number == 0:
                compared += one.ours
                wrong += [f"{title}, {one.name}: {what}" for what in differences(made, reference)[:3]]
    shutil.rmtree(out, ignore_errors=True)
    ran = tuple(one.name for one in contenders if one.ours and one.name in found)
    return Session(title, source.stat().st_size, found, ran, compared, tuple(wrong))


def table(done: Session, floor: float) -> list[list[str]]:
    """A line a contender, see HEADS; `rounds`: least and largest work ÷ cp of one round."""
    lines = []
    for name, some in done.runs.items():
        if not some:
            continue
        work, least, most = done.ratio(name, CP)
        wall = done.ratio(name, CP, "wall")[0]
        spread = f"{least:.2f}–{most:.2f}"
        seconds = [f"{done.median(name, what):.2f}" for what in ("wall", "work", "cpu")]
        above = f"{done.median(name, 'work') / floor:.1f}"
        lines.append([name, *seconds, f"{wall:.2f}", f"{work:.2f}", spread, above, f"{done.memory(name) / 1e6:.0f}"])
    return lines


HEADS = ["contender", "process s", "work s", "CPU s", "process ÷ cp", "work ÷ cp", "rounds", "÷ floor", "anon. MB"]
