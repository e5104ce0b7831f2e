"""Layers of one shape that hold one another's numbers: paired or loaded by order, not by name (F38)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import monotonic

import numpy as np

from layoutx.empty import NOTHING
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.plan.plan import Array, Plan
from layoutx.spec.bound import BoundForm
from layoutx.verify.diagnose.evaluate import distance, outputs, wanted
from layoutx.verify.diagnose.fixes import loaded_from, ported
from layoutx.verify.diagnose.suspect import Diagnosis, Edit, Explanation, Suspect

BUDGET = 5.0  # seconds for all layers together


@frozen
class Owner:
    """One paired layer of the source: what its counterpart, at `place`, should hold by `plan`, and what it holds."""

    place: str
    bound: BoundForm
    tensors: Mapping[str, Tensor]
    plan: Plan | None = None
    held: Mapping[str, Tensor] = NOTHING


def crossed(suspects: Sequence[Suspect], owners: Mapping[str, Owner]) -> dict[int, Diagnosis]:
    """The suspects (by their place in the sequence) whose tensors hold the numbers of other layers.

    Args:
        owners: source layer -> what it is, of all pairs, those that agree too.
    """
    end = monotonic() + BUDGET
    read: dict[str, Mapping[str, Array]] = {s.name: s.weights for s in suspects if s.weights}
    found: dict[int, dict[str, str]] = {}
    for number, suspect in enumerate(suspects):
        if monotonic() < end and suspect.weights and (held := _held(suspect, owners, read, end)):
            found[number] = held
    whose = {suspects[number].name: next(iter(held.values())) for number, held in found.items()}
    return {number: _told(suspects[number], held, owners, whose) for number, held in found.items()}


def _held(
    suspect: Suspect, owners: Mapping[str, Owner], read: dict[str, Mapping[str, Array]], end: float
) -> dict[str, str]:
    """Tensor that is wrong -> the layer whose numbers it holds; {} where one of them holds those of none."""
    own = {name: array for name, array in wanted(suspect).items() if array.dtype.kind not in "iub"}
    wrong = {name for name, array in own.items() if not _same(array, suspect.stored[name])}
    telling = {name for name in wrong if suspect.stored[name].size > 1 and np.ptp(suspect.stored[name]) > 0}
    if not telling or telling != wrong:
        return {}
    best: dict[str, str] = {}
    for name, owner in owners.items():
        if name == suspect.name or monotonic() > end or not _alike(owner.bound, suspect.source):
            continue
        if name not in read:
            read[name] = {key: tensor.read() for key, tensor in owner.tensors.items()}
        goal = wanted(replace(suspect, source=owner.bound, weights=read[name]))
        held = {key: name for key in wrong if key in goal and _same(goal[key], suspect.stored[key])}
        if held.keys() == wrong:
            return held
        best = {**held, **best}
    return best if best.keys() == wrong else {}


def _alike(one: BoundForm, other: BoundForm) -> bool:
    return one.form.name == other.form.name and [(t.name, t.shape) for t in one.tensors] == [
        (t.name, t.shape) for t in other.tensors
    ]


def _same(goal: Array, stored: Array) -> bool:
    return goal.shape == stored.shape and bool(np.array_equal(goal, stored, equal_nan=True))


def _told(
    suspect: Suspect, held: Mapping[str, str], owners: Mapping[str, Owner], whose: Mapping[str, str]
) -> Diagnosis:
    def apply(s: Suspect) -> Suspect:
        return replace(s, stored={**s.stored, **wanted(s)})

    others = list(dict.fromkeys(held.values()))
    floats = [name for name, array in suspect.stored.items() if array.dtype.kind not in "iub"]
    whole = len(others) == 1 and len(held) == len(floats)
    ring = _ring(suspect.name, whose)
    if whole and len(ring) > 1:
        what = f"{_listed(ring, whose)}: layers of one shape were loaded into one another, or paired by order"
    elif whole:
        what = f"{suspect.place} holds the numbers of {others[0]}: layers of one shape were paired by order"
    else:
        parts = [f"its {name} holds the {name} of {other}" for name, other in held.items()]
        what = f"{' and '.join(parts)}: tensors of one shape were loaded by order, not by name"
    names = dict.fromkeys(ring or [suspect.name, *others])
    option = "layoutx port SOURCE TARGET " + " ".join(f"--pair {n}={owners[n].place}" for n in names if n in owners)
    sources = {owners[name].place: owners[by].place for by, name in whose.items() if by in owners and name in owners}
    ringed = {p: sources[p] for n in names if n in owners and (p := owners[n].place) in sources}
    code = loaded_from(suspect.target, ringed) if whole and len(ring) > 1 else ported(suspect)
    family = "pairing" if whole else f"pairing of {', '.join(held)}"
    short = what if whole and len(ring) > 1 else f"the numbers of {suspect.name}"
    edit = Edit("F38", family, what, apply, option, code, short)
    after = distance(suspect.expected, outputs(apply(suspect)))
    one = Explanation((edit,), distance(suspect.expected, suspect.found), after, certain=True)
    return Diagnosis(suspect, (one,), 1, families={family: 1})


def _ring(name: str, whose: Mapping[str, str]) -> list[str]:
    """The layers that hold one another's numbers in a circle, this one among them; [] where they do not."""
    found, at = [name], whose.get(name)
    while at is not None and at not in found:
        found.append(at)
        at = whose.get(at)
    return sorted(found, key=list(whose).index) if at == name else []


def _listed(ring: Sequence[str], whose: Mapping[str, str]) -> str:
    if len(ring) == 2:
        return f"{ring[0]} and {ring[1]} hold one another's numbers"
    parts = [f"{name} those of {whose[name]}" for name in ring]
    return f"they hold one another's numbers, {', '.join(parts)}"


def other_order(bounds: Sequence[tuple[str, str, BoundForm, BoundForm]], order: Sequence[str]) -> Mapping[str, str]:
    """Layer -> place, where layers of one shape have another name, or stand in another order, than in the source.

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
        places = {place for _, place in pairs}
        if places == {layer for layer, _ in pairs}:  # both models have the same names
            ordered = [layer for layer, _ in pairs]
        else:
            ordered = sorted(places, key=lambda place: at[place])
        found |= {layer: right for (layer, place), right in zip(pairs, ordered, strict=True) if place != right}
    return found
