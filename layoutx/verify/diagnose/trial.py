"""Edits applied and measured: equal states once, on a part of the data first, and what fits told as explanations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from zlib import adler32, crc32

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.progress import Progress
from layoutx.verify.diagnose.evaluate import apart, computed, distance, matching, near, wanted
from layoutx.verify.diagnose.numbers import tensors_of
from layoutx.verify.diagnose.short import shortened
from layoutx.verify.diagnose.suspect import Edit, Explanation, Suspect

LARGE = 1 << 20  # bytes
ALONE = 3  # times the budget for edits alone, of a layer so large that these take longer
PATIENCE = 1.0  # seconds before progress is told


@frozen
class Trial:
    """Edits that were applied, and what came of it; not the state itself, which may be large.

    Attributes:
        residual: the largest difference of the outputs.
        right: the share of outputs that are right.
        apart: how many stored numbers are not the source's, where these are known.
        touched: names of the tensors that the last edit changed.
        useful: it leaves alone what holds the source's numbers already.
        certain: the source's weights are known, and the edited numbers are these.
    """

    edits: tuple[Edit, ...]
    residual: float
    right: float
    apart: int
    touched: frozenset[str]
    useful: bool
    certain: bool

    @property
    def rank(self) -> tuple[int, float, float]:
        """What promises most first."""
        return self.apart, -self.right, self.residual


@dataclass
class Bench:
    """The trials of one suspect.

    Attributes:
        limit: the residual up to which outputs agree; before: that without any edit.
        goal: what the target would hold with the source's weights, where these are known; right: what it holds so.
        best: the smallest residual of what does not repair the output.
        live: whether the target's own framework computes, since NumPy gives something else than the target does.
        dormant: edits that solve for a number, and find none as long as something else is wrong.
    """

    start: Suspect
    limit: float
    before: float
    budget: float
    progress: Progress | None = None
    live: bool = False
    count: int = 0
    late: int = 0
    best: float = float("inf")
    dormant: list[Edit] = field(default_factory=list)
    seen: dict[bytes, object] = field(default_factory=dict)
    sums: dict[str, bytes] = field(default_factory=dict)
    goal: Mapping[str, Array] = field(default_factory=dict)
    began: float = field(default_factory=monotonic)

    def __post_init__(self) -> None:
        self.goal = wanted(self.start)
        self.short = shortened(self.start)
        self.right = [n for n, a in self.goal.items() if np.array_equal(self.start.stored[n], a, equal_nan=True)]
        self.best = self.before
        self.summed = tensors_of(self.start.target, [r for g in self.start.target.kind.gauge for r in g.roles])

    @property
    def over(self) -> bool:
        """Whether the time is used up."""
        return monotonic() - self.began > self.budget

    def tried(self, edits: Iterable[Edit]) -> list[Trial]:
        """Single edits, measured; those that change nothing or make a state that another one made are left out."""
        every = list(edits)
        found = []
        for number, edit in enumerate(every):
            self.tell(number, len(every), edit.family)
            if monotonic() - self.began > ALONE * self.budget:
                self.late += len(every) - number
                break
            trial = self.measured((edit,), self.start)
            if trial is not None:
                found.append(trial)
            elif edit.solves:
                self.dormant.append(edit)
        return found

    def measured(self, chain: Sequence[Edit], state: Suspect, paired: bool = False) -> Trial | None:
        """The last edit of a chain applied to the state that the others made; None where nothing new comes of it.

        paired: of two edits, together they must make the source's numbers of what they touch, where it is known.
        """
        try:
            after = self._unrounded(chain[-1].apply(state), state)
        except (LayoutxError, ValueError, IndexError, KeyError, TypeError):
            return None
        if paired and not self._right(after):
            self.count += 1
            return None
        key = _key(after, self.start, self.sums)
        if key in self.seen or not key or key == _key(state, self.start, self.sums):
            return None
        self.count += 1
        touched = frozenset(n for n, array in after.stored.items() if array is not state.stored[n])
        goal = {n: np.array_equal(after.stored[n], array, equal_nan=True) for n, array in self.goal.items()}
        useful, certain = all(goal[name] for name in self.right), bool(goal) and all(goal.values())
        trial = Trial(tuple(chain), *self._measured(after), apart(after, self.goal), touched, useful, certain)
        self.seen[key] = (after.inputs, after.after)  # kept, since keys hold what tells them apart
        self.best = min(self.best, trial.residual) if trial.residual > self.limit else self.best
        return trial

    def _unrounded(self, after: Suspect, state: Suspect) -> Suspect:
        """The source's numbers in place of what an edit makes of rounded ones: 1 was added to a bias in float32."""
        exact = {
            name: self.goal[name]
            for name, array in after.stored.items()
            if name in self.goal and array is not state.stored[name] and _rounding(array, self.goal[name], state, name)
        }
        return replace(after, stored={**after.stored, **exact}) if exact else after

    def _right(self, state: Suspect) -> bool:
        """Whether every tensor that was touched holds the source's numbers; of added biases only the sum counts."""
        stored, start = state.stored, self.start.stored
        return all(
            stored[name] is start[name] or name in self.summed or near(stored[name], array)
            for name, array in self.goal.items()
        )

    def _measured(self, state: Suspect) -> tuple[float, float]:
        """The distance and the share of right outputs, on a part of the data; on all of it where that fits."""
        if self.live:
            found = _run(state, self.start)
            return distance(state.expected, found), matching(state.expected, found, self.limit)
        same = state.inputs is self.start.inputs and state.after is self.start.after
        if self.short is not None and same and (self.short.after is None or state.settings == self.start.settings):
            part = self.short.expected
            found = computed(replace(state, inputs=self.short.inputs, after=self.short.after))
            if not (apart := distance(part, found)) <= self.limit:
                return apart, matching(part, found, self.limit)
        found = computed(state)
        return distance(state.expected, found), matching(state.expected, found, self.limit)

    def state(self, trial: Trial) -> Suspect:
        """The state that a trial's edits make, made once more."""
        state = self.start
        for edit in trial.edits:
            state = edit.apply(state)
        return state

    def tell(self, done: int, many: int, what: str) -> None:
        """Progress, where the search takes long."""
        if self.progress is not None and monotonic() - self.began > PATIENCE:
            self.progress(done, many, what)


def _rounding(made: Array, right: Array, state: Suspect, name: str) -> bool:
    """Whether numbers are the right ones but for the rounding of those, in float32, from which they were made."""
    held = state.stored[name]
    if held.dtype != np.float32 or not made.shape == right.shape == held.shape or np.array_equal(made, right):
        return False
    with np.errstate(all="ignore"):
        room = np.spacing(np.maximum(np.abs(held), np.abs(right)).astype(np.float32))
        return bool(np.all(np.abs(np.asarray(made, np.float64) - right) <= room))


def _run(state: Suspect, start: Suspect) -> Mapping[str, Array]:
    """What the target's own framework computes; {} for what it cannot be told, or where it refuses."""
    if state.run is None or dict(state.settings) != dict(start.settings) or dict(state.facts) != dict(start.facts):
        return {}
    if state.target is not start.target:
        return {}
    try:
        found = state.run(state.stored, state.inputs)
        return state.after(found) if state.after is not None else found
    except Exception:  # frameworks raise what they like
        return {}


def explained(fits: Sequence[Trial], tried: Mapping[tuple[str, ...], int], bench: Bench) -> list[Explanation]:
    """One explanation for each set of families of which edits fit: the certain first, then the closest."""
    groups: dict[tuple[str, ...], list[Trial]] = {}
    for trial in fits:
        groups.setdefault(families_of(trial.edits), []).append(trial)
    found = []
    for names, trials in groups.items():
        ordered = sorted(trials, key=lambda t: (not t.certain, t.residual > 0.1 * bench.limit))
        first = ordered[0]
        rivals = tuple(" and ".join(e.what for e in t.edits) for t in ordered[1:])
        many = tried.get(names, len(trials)) + 1
        sure = first.certain
        found.append(Explanation(first.edits, bench.before, first.residual, rivals, many, sure))
    return sorted(found, key=lambda e: not e.certain)


def families_of(edits: Iterable[Edit]) -> tuple[str, ...]:
    """The families of a set of edits, in a fixed order."""
    return tuple(sorted(edit.family for edit in edits))


def _key(state: Suspect, start: Suspect, sums: dict[str, bytes]) -> bytes:
    """What tells two states apart; the same bytes for the same numbers, settings and data; b"" for no change.

    sums: of the start's tensors, filled as they are needed.
    """
    parts = []
    for name, array in state.stored.items():
        if array is start.stored[name]:
            continue
        if name not in sums:
            sums[name] = _sum(start.stored[name])
        own = _sum(array)
        if own != sums[name] or not np.array_equal(array, start.stored[name], equal_nan=True):
            parts.append(name.encode() + own)
    for now, then in ((state.settings, start.settings), (state.facts, start.facts)):
        parts += [f"{name}={value!r}".encode() for name, value in now.items() if then.get(name) != value]
    if state.target is not start.target:
        parts.append(repr((sorted(state.target.config.items(), key=str), sorted(state.target.sizes.items()))).encode())
    if state.inputs is not start.inputs or state.after is not start.after:
        parts.append(f"{id(state.inputs)} {id(state.after)}".encode())
    return b" ".join(parts)


def _sum(array: Array) -> bytes:
    """A checksum; of a small array, of which many states are tried, two."""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    more = adler32(raw.data).to_bytes(4, "little") if raw.size < LARGE else b""
    return crc32(raw.data).to_bytes(4, "little") + more
