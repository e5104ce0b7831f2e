"""The tensors that a layer of one config has, before sizes are known: names filled in, conditions chosen."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from layoutx.errors import BindError
from layoutx.frozen import frozen
from layoutx.lang.parse import parse_dims
from layoutx.lang.show import show
from layoutx.lang.tree import Dim, Layout, Sum, walk
from layoutx.spec.expand import count_spread, expand
from layoutx.spec.schema import Form, Kind, TensorSpec, choose

FIELD = re.compile(r"\{(\w+)\}")


@frozen
class Draft:
    """One stored tensor before sizes are known; `cut`: its stored dims, where the layout is that of its blocks."""

    name: str
    layout: Layout
    labels: Mapping[str, str]
    dtype: str
    cut: tuple[Dim, ...] = ()

    @property
    def stored(self) -> tuple[Dim, ...]:
        """The stored dimensions."""
        return self.cut or self.layout.dims


def drafts_of(
    kind: Kind,
    form: Form,
    config: Mapping[str, Any],
    labels: Mapping[str, tuple[str, ...]],
    instance: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]] | None,
    omit: Collection[str],
) -> list[Draft]:
    """The tensors of a layer with this config, in the order in which its framework lists them.

    Args:
        labels: enumerated axis -> the labels that this layer has; a tensor named by `{axis}` stands once for each.
        instance: the value of the form's `each` axis.
        shapes: tensor name -> stored shape, where the tensors are at hand; optional ones not in it are absent.
        omit: optional tensors that this layer does not have.

    Raises:
        BindError: `shapes` names other tensors than the form has with this config.
    """
    drafts: list[Draft] = []
    for spec in form.tensors:
        layout = choose(spec.cases, config)
        if layout is None:
            continue
        layout = _own_dims(layout, spec, config)
        axes = [name for name in FIELD.findall(spec.name) if name in kind.labels]
        for chosen in product(*(labels[axis] for axis in axes)):
            carried = dict(zip(axes, chosen, strict=True))
            name = tensor_name(spec.name, form, carried, {form.each: 0, **instance})
            absent = name in omit or (shapes is not None and name not in shapes)
            if not (spec.optional and absent):
                drafts.append(Draft(name, layout, carried, spec.dtype, spec.cut))
    if shapes is not None:
        _same_names(form, [d.name for d in drafts], list(shapes))
    # all of one direction first, as Keras and torch list them
    return sorted(drafts, key=lambda d: [kind_index(kind, axis, label) for axis, label in d.labels.items()])


def kind_index(kind: Kind, axis: str, label: str) -> int:
    """The position of a label among those of its axis."""
    return list(kind.labels[axis]).index(label)


def _own_dims(layout: Layout, spec: TensorSpec, config: Mapping[str, Any]) -> Layout:
    text = config.get(spec.dims_from) if spec.dims_from else None
    return layout if text is None else replace(layout, dims=parse_dims(str(text)))


def tensor_name(template: str, form: Form, carried: Mapping[str, str], instance: Mapping[str, Any]) -> str:
    """The name of a tensor: the labels that it carries and the number of its instance filled in."""

    def spell(match: re.Match[str]) -> str:
        axis = match[1]
        if axis in carried:
            return form.names.get(axis, {}).get(carried[axis], carried[axis])
        if axis not in instance:
            raise BindError(
                f"{{{axis}}} in a tensor's name is no axis with labels and not what `each` names",
                where=f"{form.name}: {template}",
            )
        return str(instance[axis])

    return FIELD.sub(spell, template)


def _same_names(form: Form, expected: list[str], given: list[str]) -> None:
    missing = [n for n in expected if n not in given]
    extra = [n for n in given if n not in expected]
    if missing or extra:
        raise BindError(
            f"the tensors do not fit {form.name}",
            where=[f"missing: {', '.join(missing)}"] * bool(missing)
            + [f"not in this form: {', '.join(extra)}"] * bool(extra),
            why=f"with this config {form.name} holds {', '.join(expected) or 'nothing'}",
            do="correct the config, or name another form with --form LAYER=FORM",
        )


def rank_of(
    kind: Kind,
    form: Form,
    config: Mapping[str, Any],
    drafts: Sequence[Draft],
    shapes: Mapping[str, Sequence[int]] | None,
    sizes: Mapping[str, int],
) -> int | None:
    """How many spatial axes this layer has: by its class, its shapes, its config, or the axes whose sizes are given."""
    if form.rank is not None:
        return form.rank
    for draft in drafts:
        if shapes is not None and draft.name in shapes:
            rank = count_spread(draft.layout.dims, len(shapes[draft.name]))
            if rank is not None:
                return rank
    rank = config.get("rank")
    if rank is not None:
        return int(rank)
    return max((n for n, names in kind.spread.items() if set(names) <= set(sizes)), default=None)


def spatial_of(kind: Kind, rank: int | None) -> tuple[str, ...]:
    """The names that `...` stands for in a layer of so many spatial axes; () where it has none."""
    if rank is None:
        return ()
    if rank in kind.spread:
        return kind.spread[rank]
    return tuple(f"k{i}" for i in range(max(rank, 0)))


def resolved(
    draft: Draft,
    spatial: Sequence[str],
    labels: Mapping[str, tuple[str, ...]],
    aliases: Mapping[str, str],
    refined: Mapping[str, tuple[Dim, ...]],
) -> Draft:
    """A draft with its dims expanded, and its labels those of its name, of its head and of axes with one label only.

    Raises:
        BindError: the head of its layout names a label that this form does not have.
    """
    dims = expand(draft.layout.dims, spatial, labels, aliases, refined)
    fixed = dict(draft.labels)
    if draft.layout.head is not None:
        for label in draft.layout.head.labels:
            axis = next((a for a, known in labels.items() if aliases.get(label, label) in known), None)
            if axis is None:
                raise BindError(f"{label!r} is not a label of this form", where=show(draft.layout))
            fixed[axis] = aliases.get(label, label)
    mentioned = {n.axis for n in walk(dims) if isinstance(n, Sum)}
    for axis, known in labels.items():
        if axis not in mentioned and axis not in fixed and len(known) == 1:
            fixed[axis] = known[0]
    cut = expand(draft.cut, spatial, labels, aliases, refined)
    return replace(draft, layout=replace(draft.layout, dims=dims), labels=fixed, cut=cut)


def labels_of(kind: Kind, form: Form, config: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Enumerated axis -> the labels that exist in this form."""
    found = {axis: tuple(labels) for axis, labels in kind.labels.items()}
    for axis, cases in form.only.items():
        found[axis] = tuple(choose(cases, config) or found[axis])
    return found


def aliases_of(kind: Kind) -> dict[str, str]:
    """A framework's spelling of a label -> the kind's own label, over all enumerated axes."""
    return {alias: label for labels in kind.labels.values() for label, aliases in labels.items() for alias in aliases}
