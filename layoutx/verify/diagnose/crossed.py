"""Layers of one shape that hold one another's numbers: paired or loaded by order, not by name (F38)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from layoutx.spec.bound import BoundForm
from layoutx.verify.diagnose.evaluate import distance, outputs, wanted
from layoutx.verify.diagnose.fixes import ported
from layoutx.verify.diagnose.suspect import Diagnosis, Edit, Explanation, Suspect


def crossed(suspects: Sequence[Suspect]) -> dict[int, Diagnosis]:
    """The suspects (by their place in the sequence) whose layer holds the numbers of another one's."""
    found = {}
    for number, suspect in enumerate(suspects):
        if not suspect.weights:
            continue
        for other in suspects:
            if other is not suspect and other.weights and _holds(suspect, other):
                found[number] = _told(suspect, other)
                break
    return found


def _holds(suspect: Suspect, other: Suspect) -> bool:
    """Whether a layer holds the numbers that the other one should."""
    if {n: a.shape for n, a in suspect.stored.items()} != {n: a.shape for n, a in other.stored.items()}:
        return False
    goal = wanted(replace(suspect, source=other.source, weights=other.weights))
    floats = [n for n, a in goal.items() if a.dtype.kind not in "iub"]
    return bool(floats) and all(np.array_equal(goal[n], suspect.stored[n], equal_nan=True) for n in floats)


def _told(suspect: Suspect, other: Suspect) -> Diagnosis:
    def apply(s: Suspect) -> Suspect:
        return replace(s, stored={**s.stored, **wanted(s)})

    what = f"{suspect.place} holds the numbers of {other.name}: layers of one shape were paired by order"
    option = f"--pair {suspect.name}={suspect.place} --pair {other.name}={other.place}"
    short = f"the numbers of {suspect.name}"
    edit = Edit("F38", "pairing", what, apply, option, ported(suspect), short)
    after = distance(suspect.expected, outputs(apply(suspect)))
    one = Explanation((edit,), distance(suspect.expected, suspect.found), after, certain=True)
    return Diagnosis(suspect, (one,), 1, families={"pairing": 1})


def other_order(bounds: Sequence[tuple[str, str, BoundForm, BoundForm]], order: Sequence[str]) -> Mapping[str, str]:
    """Layer -> place, where layers of one shape stand in another order in the target than in the source.

    Args:
        bounds: (layer, place, source, target) of each pair, in the source's order. order: places in the target's.
    """
    at = {place: number for number, place in enumerate(order)}
    groups: dict[tuple[object, ...], list[tuple[str, str]]] = {}
    for layer, place, source, target in bounds:
        if place in at:
            shapes = tuple((t.name, t.shape) for t in (*source.tensors, *target.tensors))
            groups.setdefault((source.form.name, target.form.name, shapes), []).append((layer, place))
    found: dict[str, str] = {}
    for pairs in groups.values():
        places = sorted((place for _, place in pairs), key=lambda place: at[place])
        found |= {layer: right for (layer, place), right in zip(pairs, places, strict=True) if place != right}
    return found
