"""Two biases of which only the sum counts: another split is no mistake, a bias that counts twice is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from layoutx.plan.plan import Array
from layoutx.spec.bound import Atom, BoundForm
from layoutx.spec.schema import Gauge, holds
from layoutx.verify.relate.numbers import Numbers
from layoutx.verify.relate.relation import LAYOUT, SPLIT, TensorRelation

TWICE = "the bias counts twice: the layer adds two copies of it ({names})"
ENOUGH = "another split of {names}; their sum, which is all that the layer computes with, is the same"
ROOM = 4.0


def split(
    relations: Sequence[TensorRelation],
    source: BoundForm,
    target: BoundForm,
    ours: Mapping[Atom, Numbers],
    theirs: Mapping[Atom, Numbers],
) -> list[TensorRelation]:
    """Relations of summed roles judged by their sums.

    Args:
        ours, theirs: atom -> numbers of the source, and of what the target stores where its form reads them.
    """
    found = {relation.name: relation for relation in relations}
    for gauge in source.kind.gauge:
        if not holds(gauge.when, source.facts) or not holds(gauge.when, target.facts):
            continue
        atoms = [atom for atom in theirs if atom[0] in gauge.roles and _counted(gauge, atom)]
        names = list(dict.fromkeys(target.places[atom].tensor for atom in atoms))
        names = [name for name in names if name in found]
        if not names or all(found[name].fine for name in names):
            continue
        whole = [a for a in theirs if target.places[a].tensor in names]
        word = _judged(gauge, whole, ours, theirs) or (TWICE if _both([found[name] for name in names]) else "")
        text = word.format(names=" and ".join(names))
        for name in names if word else ():
            own = found[name]
            status = SPLIT if word == ENOUGH else own.status
            words = (text,) if word == ENOUGH else (*own.words, text)
            found[name] = replace(own, status=status, words=words)
            if word == ENOUGH:
                found[name] = replace(found[name], residual=0.0, wrong=0)
    return list(found.values())


def _both(relations: Sequence[TensorRelation]) -> bool:
    """Whether two tensors hold one bias, in whatever layout."""
    roles = [{r.holds.partition(":")[0]} if r.status == LAYOUT else set() for r in relations]
    return len(roles) > 1 and bool(roles[0]) and all(own == roles[0] for own in roles)


def _counted(gauge: Gauge, atom: Atom) -> bool:
    return all(dict(atom[1]).get(axis) in allowed for axis, allowed in gauge.labels.items())


def _judged(gauge: Gauge, atoms: Sequence[Atom], ours: Mapping[Atom, Numbers], theirs: Mapping[Atom, Numbers]) -> str:
    sums: list[tuple[Array, Array]] = []
    for labels in dict.fromkeys(labels for role, labels in atoms if role in gauge.roles):
        if not _counted(gauge, ("", labels)):
            apart = [a for a in atoms if a[1] == labels]
            if any(not _alike(_total([a], ours), _total([a], theirs)) for a in apart):
                return ""
            continue
        both = [(role, labels) for role in gauge.roles]
        here, there = _total(both, ours), _total(both, theirs)
        if here is None or there is None or here.shape != there.shape:
            return ""
        sums.append((here, there))
    if any(atom[0] not in gauge.roles for atom in atoms) or not sums:
        return ""
    if all(_alike(here, there) for here, there in sums):
        return ENOUGH
    if all(_alike(2 * here, there) for here, there in sums) and _all_used(gauge, atoms, theirs):
        return TWICE
    return ""


def _all_used(gauge: Gauge, atoms: Sequence[Atom], theirs: Mapping[Atom, Numbers]) -> bool:
    """Whether each of the summed roles holds something: a bias that is copied, not one that is shifted."""
    return all(any(theirs[a].array.any() for a in atoms if a[0] == role) for role in gauge.roles)


def _total(atoms: Sequence[Atom], numbers: Mapping[Atom, Numbers]) -> Array | None:
    """The sum of atoms in float64; what is absent is zero."""
    own = [numbers[atom].array for atom in atoms if atom in numbers]
    return np.asarray(sum(array.astype(np.float64) for array in own)) if own else None


def _alike(left: Array | None, right: Array | None) -> bool:
    if left is None or right is None:
        return left is right or not (right if left is None else left).any()  # type: ignore[union-attr]
    if left.shape != right.shape:
        return False
    room = ROOM * np.finfo(np.float32).eps * np.maximum(np.abs(left), np.abs(right)).max(initial=0.0)
    return bool((np.abs(left - right) <= room).all())
