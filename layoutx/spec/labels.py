"""Which labels a layout lists: each that its form may have, once, here or in another tensor of the form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from layoutx.lang.tree import Axis, Layout, Sum, roles_of, walk
from layoutx.spec.schema import Form, Kind, TensorSpec


def label_problems(kind: Kind, form: Form) -> Iterator[str]:
    """A sum over an enumerated axis lists each label that the form may have exactly once."""
    for spec in form.tensors:
        for case in spec.cases:
            for node in walk(case.value.dims):
                if isinstance(node, Sum) and node.axis is not None and node.axis in kind.labels:
                    yield from _permutation(kind, form, spec, case.value, node)


def _permutation(kind: Kind, form: Form, spec: TensorSpec, layout: Layout, node: Sum) -> Iterator[str]:
    axis = str(node.axis)
    meant = {word: label for label, aliases in kind.labels[axis].items() for word in (label, *aliases)}
    listed = [meant.get(option.label, option.label) for option in node.options]
    only = {label for case in form.only.get(axis, ()) for label in case.value} or set(kind.labels[axis])
    known = _labels_of(kind, layout, axis) - _elsewhere(meant, form, spec, layout, node)
    wanted = [label for label in kind.labels[axis] if label in only and label in known]
    yield from (
        f"tensor {spec.name}: {axis} has no label {label!r}" for label in listed if label not in kind.labels[axis]
    )
    twice = [label for label, times in Counter(listed).items() if times > 1]
    missing = [label for label in wanted if label not in listed]
    if twice or missing:
        said = [f"lists {', '.join(twice)} twice"] * bool(twice) + [f"leaves out {', '.join(missing)}"] * bool(missing)
        yield f"tensor {spec.name}: {axis}[{' '.join(o.label for o in node.options)}] {' and '.join(said)}"


def _elsewhere(meant: Mapping[str, str], form: Form, spec: TensorSpec, layout: Layout, node: Sum) -> set[str]:
    """The labels that the same layout, or another tensor, holds of the same roles: gates/kernel, candidate/kernel."""
    others = [case.value for other in form.tensors if other is not spec for case in other.cases]
    words: set[str] = set()
    for other in (layout, *others):
        if set(roles_of(other)) & set(roles_of(layout)):
            words |= set(other.head.labels) if other.head is not None else set()
            sums = (n for n in walk(other.dims) if isinstance(n, Sum) and n.axis == node.axis and n is not node)
            words |= {option.label for found in sums for option in found.options}
    return {meant[word] for word in words if word in meant}


def _labels_of(kind: Kind, layout: Layout, axis: str) -> set[str]:
    """The labels of an axis that the layout's roles have: all, or those that a role enumerates itself."""
    found: set[str] = set()
    for role in roles_of(layout):
        for dim in kind.roles[role].axes if role in kind.roles else ():
            if isinstance(dim, Sum) and dim.axis == axis:
                found |= {option.label for option in dim.options}
            elif isinstance(dim, Axis) and dim.name == axis:
                found |= set(kind.labels[axis])
    return found
