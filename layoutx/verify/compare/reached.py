"""Weights that differ where no input comes: rows of a table that nobody looked up, units that give nothing here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from layoutx.plan.plan import Array
from layoutx.spec.bound import Atom, BoundForm, atom_text
from layoutx.spec.schema import holds
from layoutx.verify.compare.pairs import Couple, Half
from layoutx.verify.compare.weights import aligned, narrowed
from layoutx.verify.relate.numbers import Numbers, numbers_of

APART = 1e-5  # of a part's largest number: what was rounded to float32, or summed and rounded, is nearer


def unreached(couple: Couple, tolerance: float = 0.0) -> str:
    """What differs between the weights of two layers that give the same outputs, in words; "" for nothing.

    Sums that the forward pass cannot tell apart are compared as sums, and a part that one layer has no place for as
    what its absence means. Nothing is said where the numbers of the two cannot be laid beside each other, or one side
    keeps them in less than float32.

    Args:
        tolerance: the user's, in place of the limit.
    """
    sides = couple.source, couple.target
    whole = not any(side.parts or side.less for side in sides)
    if not whole or narrowed(couple)[0] or sides[0].bound.kind is not sides[1].bound.kind:
        return ""
    here, there = (_known(side) for side in sides)
    _filled(here, there, couple.source.bound)
    _filled(there, here, couple.target.bound)
    said = []
    for atom in here.keys() & there.keys():
        for left, right in aligned({atom: here[atom]}, {atom: there[atom]}):
            far = np.abs(left - right)
            wrong = far > (tolerance or APART) * max(float(np.abs(left).max(initial=0.0)), 1e-30)
            if wrong.any():
                many = int(wrong.sum())
                said.append(f"{many:,} of {far.size:,} numbers of {atom_text(atom)} by up to {far[wrong].max():.2g}")
    return "; ".join(sorted(said))


def _known(side: Half) -> dict[Atom, Numbers]:
    """A layer's numbers, those that are summed in the forward pass as their sum, under the first role's name."""
    found = numbers_of(side.bound, {name: tensor.read() for name, tensor in side.tensors.items()})
    found = {atom: own for atom, own in found.items() if _weighs(own, side.bound)}
    for first, *others in _summed(side.bound):
        for role, labels in list(found):
            own = found.get((role, labels))
            if own is None or role not in others or not _allowed(side.bound, (first, *others), labels):
                continue
            total = found.pop((role, labels)).array.astype(np.float64)
            beside = found.get((first, labels))
            if beside is not None:
                total = total + beside.array.transpose([beside.axes.index(axis) for axis in own.axes])
            found[first, labels] = Numbers(first, labels, own.axes, np.asarray(total))
    return found


def _weighs(own: Numbers, bound: BoundForm) -> bool:
    return own.array.dtype.kind == "f" and not bound.kind.roles[own.role].drop


def _summed(bound: BoundForm) -> Iterator[tuple[str, ...]]:
    yield from (tuple(gauge.roles) for gauge in bound.kind.gauge if holds(gauge.when, bound.facts))


def _allowed(bound: BoundForm, roles: tuple[str, ...], labels: tuple[tuple[str, str], ...]) -> bool:
    gauge = next(own for own in bound.kind.gauge if tuple(own.roles) == roles)
    return all(dict(labels).get(axis) in known for axis, known in gauge.labels.items())


def _filled(here: Mapping[Atom, Numbers], there: dict[Atom, Numbers], bound: BoundForm) -> None:
    """Give the other side what it has no place for: zeros or ones, as its absence means."""
    for atom, own in here.items():
        absent = bound.kind.roles[own.role].absent
        if atom not in there and absent:
            there[atom] = Numbers(*atom, own.axes, _constant(own.array, absent))


def _constant(like: Array, absent: str) -> Array:
    return np.full(like.shape, 1.0 if absent == "ones" else 0.0)
