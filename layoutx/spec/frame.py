"""What layers of one form have in common that differ in their sizes only: tensors, labels, axes, size equations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from layoutx.frozen import frozen
from layoutx.lang.parse import parse_dims
from layoutx.lang.tree import Axis, Dim, Option, Sum
from layoutx.spec.configs import conditions
from layoutx.spec.draft import Draft, aliases_of, drafts_of, labels_of, rank_of, resolved, spatial_of
from layoutx.spec.expand import expand, leaves
from layoutx.spec.memo import Memo, key_of
from layoutx.spec.schema import Form, Kind, Reading, Role, choose
from layoutx.spec.sizing import Open, open_of
from layoutx.spec.values import MapSpec

Axes = Mapping[tuple[tuple[str, str], ...], tuple[str, ...]]  # labels of an atom -> its integer axes
RANK = "rank"


@frozen
class Reads:
    """The config keys that binding a form reads.

    Attributes:
        all: every one of them.
        decide: those that decide tensors, labels and axes.
        mean: those that decide facts, settings, the order of data and maps of values.
    """

    all: tuple[str, ...]
    decide: tuple[str, ...]
    mean: tuple[str, ...]


@frozen
class Frame:
    """A form under one config, before its sizes are known.

    Attributes:
        labels: enumerated axis -> the labels that it has here.
        drafts: its tensors, nothing conditional left.
        spatial: what `...` stands for.
        layer: what the sizes are read from.
        axes: role -> labels of each of its atoms -> integer axes.
        equal: axis -> the axis under whose name it is written here.
        pinned: axes of length one that are not stored.
    """

    labels: Mapping[str, tuple[str, ...]]
    drafts: tuple[Draft, ...]
    spatial: tuple[str, ...]
    layer: Open
    axes: Mapping[str, Axes]
    equal: Mapping[str, str]
    pinned: frozenset[str]


_reads: Memo[Reads] = Memo()
_frames: Memo[Frame] = Memo()


def reads_of(form: Form) -> Reads:
    """The config keys that binding a form reads."""
    return _reads.get((form,), b"", lambda: _reads_of(form))


def _reads_of(form: Form) -> Reads:
    own = ("only", "pin", "equal", "same", "tensor ")
    whens = [(where, key) for where, when in conditions(form) for key in when]
    decide = [key for where, key in whens if where.startswith(own)]
    decide += [spec.dims_from for spec in form.tensors if spec.dims_from] + [RANK]
    mean = [key for where, key in whens if not where.startswith(own)]
    for table in (form.facts, form.settings, form.data, form.maps):
        for cases in table.values():
            mean += [key for case in cases for key in _read(case.value)]
    every = [*decide, *mean, *(key for key, _ in form.sizes), *(key for key, _, _ in form.require)]
    return Reads(*(tuple(dict.fromkeys(keys)) for keys in (every, decide, mean)))


def _read(value: Any) -> Iterable[str]:
    if isinstance(value, Reading):
        return (value.config,)
    return value.keys if isinstance(value, MapSpec) else ()


def values_at(keys: Sequence[str], config: Mapping[str, Any]) -> list[Any]:
    """The config's values under these keys; where it has none, a value that no config has."""
    return [config.get(key, ...) for key in keys]


def frame_of(
    kind: Kind,
    form: Form,
    full: Mapping[str, Any],
    *,
    shapes: Mapping[str, Sequence[int]] | None,
    sizes: Mapping[str, int],
    refine: Mapping[str, str],
    instance: Mapping[str, Any],
    omit: Collection[str],
) -> Frame:
    """The frame of a layer; see `layoutx.spec.bind.bind` for what it is given and what it raises."""
    ranks = None if shapes is None else [(name, len(shape)) for name, shape in shapes.items()]
    read = values_at(reads_of(form).decide, full)
    key = key_of(read, ranks, list(sizes), dict(refine), dict(instance), sorted(omit))
    return _frames.get((kind, form), key, lambda: _framed(kind, form, full, shapes, sizes, refine, instance, omit))


def _framed(
    kind: Kind,
    form: Form,
    full: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]] | None,
    sizes: Mapping[str, int],
    refine: Mapping[str, str],
    instance: Mapping[str, Any],
    omit: Collection[str],
) -> Frame:
    labels = labels_of(kind, form, full)
    refined = {axis: parse_dims(text) for axis, text in refine.items()}
    drafts = drafts_of(kind, form, full, labels, instance, shapes, omit)
    spatial = tuple(spatial_of(kind, rank_of(kind, form, full, drafts, shapes, sizes)))
    aliases = aliases_of(kind)
    drafts = [resolved(d, spatial, labels, aliases, refined) for d in drafts]
    layer = open_of(kind, form, full, drafts, spatial, refined)
    axes = {name: role_leaves(role, spatial, labels, refined) for name, role in kind.roles.items()}
    return Frame(labels, tuple(drafts), spatial, layer, axes, *renamed(form, full, spatial))


def renamed(form: Form, config: Mapping[str, Any], spatial: Sequence[str]) -> tuple[dict[str, str], frozenset[str]]:
    """Axis -> the axis under whose name a form writes it, and the axes of length one that it does not store."""
    equal = {axis: choose(cases, config) for axis, cases in form.equal.items()}
    pinned = {axis for axis, cases in form.pin.items() if choose(cases, config) is not None}
    return equal, frozenset(pinned | set(spatial) if "..." in pinned else pinned)


def role_leaves(
    role: Role, spatial: Sequence[str], labels: Mapping[str, Sequence[str]], refined: Mapping[str, tuple[Dim, ...]]
) -> dict[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Labels of each atom of a role -> its integer axes in canonical order, `...` and refined axes expanded."""
    dims: list[Dim] = []
    for dim in role.axes:
        if isinstance(dim, Axis) and dim.name in labels:
            dims.append(Sum(dim.name, tuple(Option(label) for label in labels[dim.name])))
        else:
            dims.append(dim)
    full = expand(dims, spatial, labels, {}, refined)
    return {tuple(sorted(chosen.items())): axes for chosen, axes in leaves(full)}
