"""Common histories of a wrong tensor: taken over unconverted, or converted twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.plan.plan import Array, Plan
from layoutx.plan.plan import plan as planned
from layoutx.plan.run import run
from layoutx.spec.bound import BoundForm
from layoutx.verify.relate.relation import LAYOUT, TensorRelation


def hints(
    relations: Sequence[TensorRelation],
    source: BoundForm,
    weights: Mapping[str, Array],
    target: BoundForm,
    stored: Mapping[str, Array],
    known: Plan | None = None,
) -> list[TensorRelation]:
    """Relations of other layouts, with the history that makes exactly these bits."""
    if not any(relation.status == LAYOUT for relation in relations):
        return list(relations)
    pairs = _pairs(source, target)
    again = _again(source, weights, target, pairs, known)
    return [
        replace(r, words=(*r.words, *_history(r.name, pairs, weights, stored, again, source.form.name)))
        if r.status == LAYOUT
        else r
        for r in relations
    ]


def _history(
    name: str,
    pairs: Mapping[str, str],
    weights: Mapping[str, Array],
    stored: Mapping[str, Array],
    again: Mapping[str, Array],
    form: str,
) -> list[str]:
    own = pairs.get(name)
    if own is not None and own in weights and _same(weights[own], stored[name]):
        return [f"it is {form}'s {own} as it stands: not converted"]
    if name in again and _same(again[name], stored[name]):
        return ["the conversion was applied twice"]
    return []


def _same(left: Array, right: Array) -> bool:
    return left.shape == right.shape and np.array_equal(left, right)


def _pairs(source: BoundForm, target: BoundForm) -> dict[str, str]:
    """Target tensor -> the source tensor that holds the same atoms."""
    ours = {frozenset((b.role, b.labels) for b in t.blocks): t.name for t in source.tensors}
    found = {t.name: ours.get(frozenset((b.role, b.labels) for b in t.blocks)) for t in target.tensors}
    return {name: own for name, own in found.items() if own is not None}


def _again(
    source: BoundForm, weights: Mapping[str, Array], target: BoundForm, pairs: Mapping[str, str], known: Plan | None
) -> dict[str, Array]:
    """What the conversion makes of its own result, where the shapes let that happen."""
    try:
        plan = known or planned(source, target)
        once = run(plan, weights).tensors
        shapes = {t.name: t.shape for t in source.tensors}
        taken = {own: once[name] for name, own in pairs.items() if once[name].shape == shapes[own]}
        return {n: a for n, a in run(plan, {**weights, **taken}).tensors.items() if pairs.get(n) in taken}
    except (LayoutxError, KeyError):
        return {}
