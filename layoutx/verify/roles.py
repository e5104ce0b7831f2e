"""The numbers of a layer under the names of its mathematics: role -> array in canonical axis order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from layoutx.empty import NOTHING
from layoutx.lang.tree import Axis, Dim, Head, Layout, Option, Product, Sum
from layoutx.plan.plan import Array, plan
from layoutx.plan.run import run
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.expand import axis_names
from layoutx.spec.schema import Case, Form, Role, TensorSpec, choose

BIAS_KEYS = ("use_bias", "bias", "with_bias")  # what frameworks call the config key that says whether there is one


def roles(bound: BoundForm, tensors: Mapping[str, Array], refine: Mapping[str, str] = NOTHING) -> dict[str, Array]:
    """All roles of a layer; absent ones hold what absence means.

    Args:
        bound: the layer's form.
        tensors: its arrays by form tensor name.
        refine: the order in which the leaves of a refined axis are laid out in the role arrays, so that
            two layers that flatten differently give equal arrays; each refined axis is one dimension.

    Returns:
        role -> array; axes in the kind's order, enumerated axes as dimensions in label order.
    """
    return run(plan(bound, canonical(bound, refine)), tensors).tensors


def canonical(bound: BoundForm, refine: Mapping[str, str] = NOTHING) -> BoundForm:
    """The form in which each role is a tensor of its own, in canonical axis order."""
    kind = bound.kind
    stored = {role for role, _ in bound.places}
    tensors = []
    for role in kind.roles.values():
        if role.name not in stored and not role.absent:
            continue
        if role.name not in stored and not _sized(role, bound):
            continue  # no number says how long it would be (the scale of an attention that has none)
        dims = tuple(_dim(dim, bound, refine) for dim in role.axes)
        layout = Layout(Head(role.name), dims, role.name)
        tensors.append(TensorSpec(role.name, (Case(layout),), dtype=role.dtype))
    only = {axis: (Case(labels),) for axis, labels in bound.labels.items()}
    facts = {name: (Case(value),) for name, value in bound.facts.items()}
    same = {axis: (Case(choose(cases, bound.config)),) for axis, cases in bound.form.same.items()}
    form = Form(
        f"canonical.{kind.name}",
        kind.name,
        rank=_rank(bound),
        only=only,
        same=same,
        facts=facts,
        tensors=tuple(tensors),
    )
    return bind(kind, form, sizes=bound.sizes, refine=refine)


def _sized(role: Role, bound: BoundForm) -> bool:
    """Whether the other tensors tell the length of each axis of a role that is not stored."""
    known = {*bound.sizes, *bound.labels, *bound.form.same}
    return axis_names(role.axes) <= known | set(bound.kind.same)


def _rank(bound: BoundForm) -> int | None:
    """How many spatial axes the layer has, told by the names that `...` stands for."""
    for rank in sorted(bound.kind.spread, reverse=True):
        if all(name in bound.sizes for name in bound.kind.spread[rank]):
            return rank
    return None


def _dim(dim: Dim, bound: BoundForm, refine: Mapping[str, str]) -> Dim:
    """Enumerated axes become sums over the labels at hand; refined axes one dimension."""
    if isinstance(dim, Axis) and dim.name in bound.labels:
        return Sum(dim.name, tuple(Option(label) for label in bound.labels[dim.name]))
    if isinstance(dim, Axis) and dim.name in refine:
        return Product((dim,))
    return dim


def same(left: Mapping[str, Array], right: Mapping[str, Array]) -> bool:
    """Whether two sets of role arrays hold the same bits."""
    return left.keys() == right.keys() and all(
        a.shape == right[name].shape and a.tobytes() == right[name].tobytes() for name, a in left.items()
    )


def as_float(arrays: Mapping[str, Array], dtype: str) -> dict[str, Array]:
    """Floating arrays in another precision; integers as they are."""
    return {k: (a.astype(dtype) if a.dtype.kind not in "iub" else np.asarray(a)) for k, a in arrays.items()}
