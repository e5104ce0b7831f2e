"""What the issue asks for, figure by figure: measured, must, aim, reached or missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benching import contenders as who
from benching.rounds import Session

HEADS = ["figure", "measured", "rounds", "must", "aim", ""]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure; `times`: larger is better. Without `must` it is told, not judged."""

    name: str
    measured: float
    rounds: tuple[float, float] | None = None
    must: float | None = None
    aim: float | None = None
    times: bool = False
    unit: str = ""

    @property
    def verdict(self) -> str:
        """`aim`, `ok`, `MISSES`; nothing where nothing is asked."""
        if self.must is None or self.aim is None:
            return ""
        sign = -1 if self.times else 1
        if sign * self.measured <= sign * self.aim:
            return "aim"
        return "ok" if sign * self.measured <= sign * self.must else "MISSES"

    def line(self) -> list[str]:
        """The cells of HEADS."""
        sign = "≥" if self.times else "≤"
        bounds = ["" if bound is None else f"{sign} {bound:g}{self.unit}" for bound in (self.must, self.aim)]
        spread = f"{self.rounds[0]:.2f}–{self.rounds[1]:.2f}" if self.rounds else ""
        shown = f"{self.measured:.0f}" if self.unit == " MB" else f"{self.measured:.2f}"
        return [self.name, shown + self.unit, spread, *bounds, self.verdict]


def slower(name: str, done: Session, one: str, bounds: tuple[float, float] | None, what: str = "work") -> list[Figure]:
    """How many times the time of `cp`."""
    if not done.has(one, who.CP):
        return []
    value, *rounds = done.ratio(one, who.CP, what)
    must, aim = bounds or (None, None)
    return [Figure(name, value, (rounds[0], rounds[1]), must, aim)]


def faster(name: str, done: Session, other: str, one: str, bounds: tuple[float, float] | None) -> list[Figure]:
    """How many times faster than another contender, whole processes."""
    if not done.has(one, other):
        return []
    value, *rounds = done.ratio(other, one, "wall")
    must, aim = bounds or (None, None)
    return [Figure(name, value, (rounds[0], rounds[1]), must, aim, times=True, unit=" ×")]


def figures(done: Mapping[str, Session]) -> list[Figure]:
    """All figures of the sessions that were run: head (dense, largest size), head .keras, head back, small."""
    found: list[Figure] = []
    for key, kind in (("head", ".weights.h5"), ("head .keras", ".keras")):
        if key in done:
            found += _head(done[key], f"{done[key].nbytes / 1e9:.2g} GB {kind}")
    if "head" in done:
        found += _by_hand(done["head"], (who.NUMPY_TORCH, (7, 10)), (who.NUMPY, None), (who.TORCH, (4, 6)))
    if "head .keras" in done:
        found += _by_hand(done["head .keras"], (who.KERAS, (18, 25)))
    if "head back" in done:
        back = done["head back"]
        name = f"{back.nbytes / 1e9:.2g} GB torch safetensors → .weights.h5 ÷ cp"
        found += slower(f"{name}, no verification", back, who.OURS, (2, 1.3))
        found += slower(f"{name}, default", back, who.DEFAULT, None)
        found += faster("the same, faster than the NumPy script", back, who.BACK, who.OURS, None)
    found += _memory([one for key, one in done.items() if not key.startswith("dask")])
    if "small" in done:
        for ours in (who.OURS, who.DEFAULT):
            said = "no verification" if ours == who.OURS else "default"
            name = "many small tensors, faster than the NumPy script"
            found += faster(f"{name}, {said}", done["small"], who.NUMPY, ours, (1, 3))
    for workers, name in who.DASK.items():
        if (key := f"dask {workers}") in done:
            found += faster(f"{name}: faster than one process with its threads", done[key], who.SHARDS, name, None)
    return found


def _head(done: Session, what: str) -> list[Figure]:
    found = slower(f"{what} → safetensors ÷ cp, no verification", done, who.OURS, (1.3, 1.0))
    found += slower("the same, whole process", done, who.OURS, None, "wall")
    return found + slower(f"{what} → safetensors ÷ cp, default verification", done, who.DEFAULT, (2.2, 1.6))


def _by_hand(done: Session, *others: tuple[str, tuple[float, float] | None]) -> list[Figure]:
    found = []
    for other, bounds in others:
        found += faster(f"faster than the {other}, no verification", done, other, who.OURS, bounds)
        found += faster(f"faster than the {other}, default", done, other, who.DEFAULT, None)
    return found


def _memory(sessions: Sequence[Session]) -> list[Figure]:
    """The peak over all sizes and kinds."""
    found = []
    for name, said in ((who.OURS, "no verification"), (who.DEFAULT, "default")):
        peaks = [one.memory(name) / 1e6 for one in sessions if one.has(name)]
        if peaks:
            title = f"peak anonymous memory over {len(peaks)} sources, {said}"
            found.append(Figure(title, max(peaks), (min(peaks), max(peaks)), 80, 40, unit=" MB"))
    return found


def scaling(sessions: Sequence[Session]) -> list[list[str]]:
    """A line a size: time a GB, threads, memory."""
    lines = []
    for one in sessions:
        cells = [f"{one.nbytes / 1e6:.0f} MB"]
        for name in (who.CP, who.OURS, who.DEFAULT):
            cells.append(f"{one.median(name, 'work') / one.nbytes * 1e9:.2f}" if one.has(name) else "")
        threads = [f"layoutx, {n} thread{'s' * (n > 1)}" for n in (1, 2)]
        cells.append(f"{one.ratio(*threads)[0]:.2f}" if one.has(*threads) else "")
        cells += [f"{one.memory(name) / 1e6:.0f}" if one.has(name) else "" for name in (who.OURS, who.DEFAULT)]
        lines.append(cells)
    return lines


SCALING = ["size", "cp s/GB", "layoutx s/GB", "default s/GB", "1 thread ÷ 2", "MB", "default MB"]
