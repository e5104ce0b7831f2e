"""The assignment over the whole model, in rounds: what is sure is fixed first and speaks for its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import exp

import numpy as np

from layoutx.frozen import frozen
from layoutx.model.keyed import Keyed
from layoutx.model.matching import evidence as ev
from layoutx.model.matching.assignment import PLACED, assigned, exchanged
from layoutx.model.matching.evidence import Clues, Scores, Table
from layoutx.model.matching.groups import together
from layoutx.model.matching.neighbours import known_as
from layoutx.model.matching.values import Numbers
from layoutx.model.places import Candidate

SURE = 1.9  # a margin that is fixed before the rest is looked at
ONLY = "the only place that fits"
# how sure a pair can be at most by its best evidence, however large the margin; numbers in names are a habit
AT_MOST = {
    ev.NUMBERS: 0.99, ev.NAME: 0.98, ev.WIRING: 0.95, ev.COUNT: 0.85, ev.IN_ORDER: 0.85, ev.WORD: 0.8, ev.PEERS: 0.8,
    ONLY: 0.97,
}  # fmt: skip
STACKED = 0.95  # the numbers of a stacked module's layers are a fact
# how people name and define layers, which is no fact about any model
HABITS = (ev.COUNT, ev.IN_ORDER, ev.WORD, ev.PEERS)


@frozen
class Choice:
    """The place of a layer, why it is that, and how sure that is (0 to 1).

    Attributes:
        reason: what decided against the nearest exchange.
        most: the kind of evidence that speaks most for the place, whether or not it does so for others; "" for none.
    """

    candidate: Candidate
    reason: str
    confidence: float
    most: str = ""


@dataclass
class Outcome:
    """What came of a matching.

    Attributes:
        chosen: layer -> its place.
        open: layer -> places between which nothing decides, the likeliest first.
        lost: layers whose every place belongs to another one.
    """

    chosen: dict[str, Choice] = field(default_factory=dict)
    open: dict[str, tuple[Candidate, ...]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    def owners(self) -> dict[str, str]:
        """Name of a tensor of the other model -> the layer that has it."""
        return {full: name for name, choice in self.chosen.items() for full in choice.candidate.names.values()}


def settle(clues: Clues, keyed: Keyed, later: Callable[[], Numbers] | None = None) -> Outcome:
    """Fix pairs round by round, the surest first, until nothing decides any more.

    Args:
        clues: the layers with their candidates, and what is known of both models.
        later: makes the fingerprints of values, which are then read only where nothing else decides.
    """
    outcome = Outcome()
    # what feeds what is a fact, numbers in names are a habit: these speak where wiring has told all that it can
    stages = [(False, False, SURE)] if clues.wires is not None else []
    stages += [(False, True, SURE), (True, True, SURE), (True, True, ev.DECIDES)]
    stage = 0
    while True:
        rest = _rest(clues, outcome)
        if not rest:
            return outcome
        ordered, counted, enough = stages[stage]
        known = {name: choice.candidate for name, choice in outcome.chosen.items()}
        scores = ev.table(clues, rest, known, keyed, ordered=ordered, counted=counted)
        if _fixed(clues, rest, scores, enough, outcome):
            stage = stages.index((True, True, SURE)) if ordered else 0
        elif stage + 1 < len(stages):
            stage += 1
        elif later is not None and clues.numbers is None:
            clues.numbers, stage = later(), 0
        else:
            _left(clues, rest, scores, outcome)
            return outcome


def _rest(clues: Clues, outcome: Outcome) -> dict[str, list[int]]:
    """Layer without a place -> its candidates that are still free; a layer without any is lost.

    Layers that share one list of candidates share one of what is left of it.
    """
    taken = {full for choice in outcome.chosen.values() for full in choice.candidate.names.values()}
    rest = {}
    left: dict[int, list[int]] = {}
    for layer in clues.layers:
        name = layer.record.name
        if name in outcome.chosen or name in outcome.lost:
            continue
        own = clues.options[name]
        if id(own) not in left:
            left[id(own)] = [i for i, c in enumerate(own) if taken.isdisjoint(c.names.values())]
        if left[id(own)]:
            rest[name] = left[id(own)]
        else:
            outcome.lost.append(name)
    return rest


def _fixed(clues: Clues, rest: Mapping[str, Sequence[int]], scores: Table, enough: float, outcome: Outcome) -> bool:
    """Solve each group of layers that share places, and keep what is sure enough; whether anything was."""
    any_fixed = False
    for group in together(clues.options, rest):
        for name, at, margin, against in _solved(clues, rest, group, scores):
            if margin < enough:
                continue
            any_fixed = True
            if at < 0:
                outcome.lost.append(name)
            else:
                outcome.chosen[name] = _choice(clues, name, at, scores[name, at], against, margin)
    return any_fixed


def _solved(
    clues: Clues, rest: Mapping[str, Sequence[int]], group: Sequence[str], scores: Table
) -> list[tuple[str, int, float, Scores]]:
    """Of each layer of a group: its candidate's number (-1: none), the margin, and what speaks against an exchange."""
    columns: dict[frozenset[str], int] = {}
    cells: dict[tuple[int, int], tuple[float, int]] = {}  # (row, column) -> what it is worth, by which candidate
    for row, name in enumerate(group):
        for at in rest[name]:
            column = columns.setdefault(frozenset(clues.options[name][at].names.values()), len(columns))
            worth = sum(scores[name, at].values())
            if (row, column) not in cells or worth > cells[row, column][0]:
                cells[row, column] = worth, at
    score = np.full((len(group), len(columns)), -np.inf)
    for cell, (worth, _) in cells.items():
        score[cell] = worth
    overlaps = [(columns[a], columns[b]) for a, b in combinations(columns, 2) if a & b] if _mixed(columns) else []
    key = (score.shape, score.tobytes(), *overlaps)
    if key not in clues.solved:  # most groups are what they were in the last round, or what another one was
        clues.solved[key] = assigned(score, overlaps)
    matched, margins = clues.solved[key]
    nearest = exchanged(score, matched)

    def evidence(row: int, column: int) -> Scores:
        return scores[group[row], cells[row, column][1]] if column >= 0 else {}

    found = []
    for row, name in enumerate(group):
        other, column = nearest[row]
        mine = [evidence(row, matched[row]), evidence(other, matched[other]) if other >= 0 else {}]
        theirs = [evidence(row, column), evidence(other, matched[row]) if other >= 0 else {}]
        kinds = dict.fromkeys(kind for own in (*mine, *theirs) for kind in own)
        against = {k: sum(own.get(k, 0.0) for own in mine) - sum(own.get(k, 0.0) for own in theirs) for k in kinds}
        found.append((name, cells[row, matched[row]][1] if matched[row] >= 0 else -1, margins[row], against))
    return found


def _mixed(columns: Mapping[frozenset[str], int]) -> bool:
    """Whether any two places have a tensor in common."""
    return len(frozenset().union(*columns)) < sum(map(len, columns))


def _choice(clues: Clues, name: str, at: int, own: Scores, against: Scores, margin: float) -> Choice:
    """Args: own: what speaks for the place. against: by how much each kind is better than in the nearest exchange."""
    only = margin > PLACED / 2
    kinds = sorted((k for k in own if own[k] > 0 and against[k] > 0), key=lambda k: -against[k])
    best = kinds[0] if kinds and (kinds[0] in (ev.NUMBERS, ev.NAME) or not only) else ONLY
    top = max(AT_MOST[best], AT_MOST[ONLY] if only else 0.0)
    if best == ev.COUNT and clues.options[name][at].instance:
        top = max(top, STACKED)
    reason = best
    share, roles = clues.read.get((name, at), (1.0, ()))
    if best == ev.NUMBERS and share < 1.0:
        reason = f"{best} in {', '.join(roles)}"
    sure = round(min(top, 1 / (1 + exp(-margin)) if margin < 50 else 1.0), 2)
    most = max((k for k in own if own[k] > 0), key=lambda k: own[k], default="")
    return Choice(clues.options[name][at], reason, sure, "" if only and most != ev.NAME else most)


def _left(clues: Clues, rest: Mapping[str, Sequence[int]], scores: Table, outcome: Outcome) -> None:
    for name, own in rest.items():
        likeliest = sorted(own, key=lambda at: -sum(scores[name, at].values()))
        outcome.open[name] = tuple(clues.options[name][at] for at in likeliest)


def contradicted(found: ev.Clues, outcome: Outcome) -> dict[str, tuple[Candidate, ...]]:
    """Layers that wiring alone placed, and whose neighbours' places now speak against it as much as for it.

    The model's ends count as neighbours: two layers in a row fit the first and the last of three, and others too.
    """
    if found.wires is None:
        return {}
    met = {name: known_as(choice.candidate) for name, choice in outcome.chosen.items()}
    doubts = {}
    for name, choice in outcome.chosen.items():
        if choice.most != ev.WIRING or len(found.options[name]) < 2:
            continue
        right, wrong, _ = found.wires.agreed(name, choice.candidate, met)
        if wrong >= max(right, 1):
            doubts[name] = tuple(found.options[name])
    return doubts


def alike(found: ev.Clues, outcome: Outcome) -> dict[str, str]:
    """Layers that could be exchanged with others, which habits alone tell apart -> the first of those they are like."""
    groups: dict[tuple[str, int], list[str]] = {}
    for name in outcome.chosen:
        own = found.options[name]
        groups.setdefault((ev.place_name(own[0]), len(own)), []).append(name)
    alike: dict[str, str] = {}
    for names in groups.values():
        habits = [name for name in names if _habit(outcome.chosen[name])]
        left = [name for name in names if outcome.chosen[name].reason == ONLY]
        if len(habits) + len(left) > 1:
            alike |= dict.fromkeys([*habits, *left] if habits else [], (habits or left)[0])
    return alike


def _habit(choice: Choice) -> bool:
    return choice.reason in HABITS and not choice.candidate.instance
