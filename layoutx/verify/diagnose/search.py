"""The search: every known mistake undone, alone and then two together, until the source's output comes back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from time import thread_time

from layoutx.errors import LayoutxError
from layoutx.progress import Progress
from layoutx.verify.diagnose.evaluate import computed, distance, outputs, tolerance
from layoutx.verify.diagnose.families import LAYER, Family, edits
from layoutx.verify.diagnose.heads import heads
from layoutx.verify.diagnose.loaded import WHOLE
from layoutx.verify.diagnose.masks import masks
from layoutx.verify.diagnose.observed import observed
from layoutx.verify.diagnose.pairs import pairs
from layoutx.verify.diagnose.settings import epsilons, functions
from layoutx.verify.diagnose.suspect import Diagnosis, Edit, Explanation, Suspect
from layoutx.verify.diagnose.trial import Bench, Trial, explained, families_of
from layoutx.verify.diagnose.turns import turned

BUDGET = 4.5  # seconds for one layer; small ones take far less
EARLY = 0.7  # the share of it after which edits that only say which numbers are wrong are paired too
BEHAVIOURS = 1.0  # seconds of computing for the state that a layer's output shows
SHORT = 2.0  # seconds for two mistakes in one tensor that may just as well hold other numbers


def search(
    suspect: Suspect,
    families: Iterable[Family] = LAYER,
    *,
    budget: float = BUDGET,
    progress: Progress | None = None,
) -> Diagnosis:
    """Explain why a layer's output differs.

    Args:
        families: generators of edits.
        budget: seconds after which pairs of edits are no longer tried.
        progress: called with (tried, of how many, what is tried) once the search takes longer than a second.

    Returns:
        The explanations, the simplest first: one edit before two, and what is certain before what only fits. None
        where the outputs agree, or where no known mistake repairs them; `note` then says which.
    """
    limit = tolerance(suspect)
    before = distance(suspect.expected, suspect.found)
    if before <= limit:
        return Diagnosis(suspect, (), 0, before, "the outputs agree: there is nothing to explain")
    start, note, live = _start(suspect, limit, families)
    if start is None:
        return Diagnosis(suspect, (), 0, before, note)
    bench = Bench(start, limit, before, budget, progress, live)
    singles = bench.tried(edits(start, families))
    early = [trial for trial in singles if not trial.edits[0].late]
    late = _explained([trial for trial in singles if trial.edits[0].late], bench)
    whole = [one for one in late if one.edits[0].family == WHOLE]  # nothing of it is the source's: no two edits do it
    found = _explained(early, bench) or whole or pairs(early, bench, SHORT if late else EARLY * budget) or late
    found = found or pairs(singles, bench, budget, late=True)
    if not found:
        untried = f" ({bench.late} edits or pairs were not tried for lack of time)" if bench.late else ""
        none = f"none of these: no known mistake repairs the output{untried}"
        note = "; ".join(part for part in (note, none, *observed(suspect)) if part)
    kinds = Counter(trial.edits[0].family for trial in singles)
    return Diagnosis(suspect, tuple(found), bench.count, bench.best, note, dict(kinds))


def _start(suspect: Suspect, limit: float, families: Iterable[Family]) -> tuple[Suspect | None, str, bool]:
    """The suspect in the state that its output shows, a note, and whether only the real framework computes it.

    Its config may say another state than the one it is in. None: nothing can be tried.
    """
    try:
        apart = distance(suspect.found, outputs(suspect))
    except (LayoutxError, ValueError, IndexError, KeyError) as error:
        what = error.what if isinstance(error, LayoutxError) else str(error)
        note = f"NumPy does not compute the layer: {what}"
        return (suspect, note, True) if suspect.run is not None else (None, note, False)
    if apart <= limit:
        return suspect, "", False
    shown = replace(suspect, expected=suspect.found)
    end = thread_time() + BEHAVIOURS
    for chain in _chains(_behaviours(shown, families)):
        if thread_time() > end:
            break
        try:
            state = shown
            for edit in chain:
                state = edit.apply(state)
            if distance(suspect.found, outputs(state)) <= limit:
                said = ", ".join(edit.short or edit.what for edit in chain)
                note = f"the target does not compute what its config tells: {said}"
                return replace(state, expected=suspect.expected), note if state.target is suspect.target else "", False
        except (LayoutxError, ValueError, IndexError, KeyError):
            continue
    note = f"the target does not compute what its weights and config tell (it is {apart:.3g} away from that)"
    if distance(suspect.expected, computed(suspect)) <= limit:
        return (
            None,
            f"{note}; these would give the source's output: look for a mode (train, eval), a hook, a cast",
            False,
        )
    return suspect, note, suspect.run is not None


def _chains(behaviours: Iterable[Edit]) -> Iterator[tuple[Edit, ...]]:
    """Each behaviour alone, and then every two of different families."""
    every = list(behaviours)
    yield from ((edit,) for edit in every)
    yield from ((a, b) for a, b in combinations(every, 2) if a.family != b.family)


def _behaviours(suspect: Suspect, families: Iterable[Family]) -> Iterable[Edit]:
    """The edits that leave the weights alone."""
    own = [family for family in families if family in (epsilons, functions, heads, masks, turned)]
    return edits(suspect, own)


def _explained(trials: Sequence[Trial], bench: Bench) -> list[Explanation]:
    """One explanation for each family of which an edit fits."""
    tried = Counter(families_of(trial.edits) for trial in trials)
    return explained([trial for trial in trials if trial.residual <= bench.limit], tried, bench)
