"""Two mistakes at once: single edits, the most promising first, each with every edit of another family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import monotonic

from layoutx.verify.diagnose.loaded import WHOLE, left
from layoutx.verify.diagnose.suspect import Edit, Explanation
from layoutx.verify.diagnose.trial import Bench, Trial, explained, families_of

MANY = 250  # single edits beyond which the least promising are not paired
FEW = 24  # first edits after which tensors are held against the source's once more


def pairs(singles: Sequence[Trial], bench: Bench, seconds: float, late: bool = False) -> list[Explanation]:
    """Explanations by two edits of different families; [] where none fits in so many seconds.

    late: take edits too that say no more than which numbers are wrong.
    """
    until = monotonic() + seconds
    ordered = sorted((trial for trial in singles if trial.useful), key=lambda t: t.rank)[:MANY]
    every = list(_chains(ordered, bench, late))
    fits: list[Trial] = []
    tried: dict[tuple[str, ...], int] = {}
    wanted: set[tuple[str, ...]] = set()
    for number, (first, second) in enumerate(every):
        names = families_of((*first.edits, second))
        if wanted and names not in wanted:
            continue
        if bench.over or monotonic() > until:
            bench.late += len(every) - number
            break
        bench.tell(number, len(every), " and ".join(names))
        trial = bench.measured((*first.edits, second), bench.state(first), paired=True)
        if trial is None:
            continue
        tried[names] = tried.get(names, 0) + 1
        if trial.residual <= bench.limit:
            fits.append(trial)
            wanted.add(names)
            if trial.certain:
                break
    return explained(fits, tried, bench)


def _chains(ordered: Sequence[Trial], bench: Bench, late: bool) -> Iterator[tuple[Trial, Edit]]:
    """A trial and the edit that follows it: what solves for numbers first, then the most promising of both."""
    for trial in ordered:
        for edit in bench.dormant:
            if edit.family != trial.edits[0].family:
                yield trial, edit
    for trial in ordered[:FEW] if bench.goal else ():
        for edit in left(bench.state(trial)):
            again = edit.family == WHOLE or any(edit.family == f"numbers of {name}" for name in trial.touched)
            if not edit.late or (late and not again):  # after a wrong edit any tensor holds other numbers
                yield trial, edit
    common = [trial for trial in ordered if not trial.edits[0].rare]
    yield from _both(common)
    if len(common) < len(ordered):
        yield from _both(ordered)


def _both(ordered: Sequence[Trial]) -> Iterator[tuple[Trial, Edit]]:
    """Every two trials of different families, by the sum of their places."""
    many = len(ordered)
    for total in range(1, 2 * many - 2):
        for i in range(max(0, total - many + 1), (total + 1) // 2):
            first, second = ordered[i], ordered[total - i]
            if first.edits[0].family != second.edits[0].family:
                yield first, second.edits[0]
                if first.touched & second.touched:  # two changes of one tensor need not commute
                    yield second, first.edits[0]
