"""Form + config + shapes -> BoundForm: conditions chosen, sizes solved, every atom placed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import BindError, LayoutxError, SizeError, raise_all
from layoutx.lang.parse import parse_dims
from layoutx.lang.place import Block, place, shape_of
from layoutx.lang.show import show, show_dims
from layoutx.lang.sizes import Equation, solve
from layoutx.lang.tree import Axis, Dim, Layout, Option, Product, Sum, walk
from layoutx.spec.bound import Atom, BoundForm, BoundTensor, Place, atom_text
from layoutx.spec.expand import axis_names, count_spread, expand, leaves
from layoutx.spec.schema import Cases, Form, Kind, Reading, Role, TensorSpec, choose, plain

_FIELD = re.compile(r"\{(\w+)\}")


class UndeterminedError(BindError):
    """The tensors fit so far, but the sizes of `axes` do not follow from them."""

    axes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Draft:
    """One stored tensor before sizes are known."""

    name: str
    layout: Layout
    labels: Mapping[str, str]
    dtype: str


def bind(
    kind: Kind,
    form: Form,
    config: Mapping[str, Any] = NOTHING,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    sizes: Mapping[str, int] = NOTHING,
    refine: Mapping[str, str] = NOTHING,
    instance: Mapping[str, Any] = NOTHING,
    omit: Collection[str] = (),
) -> BoundForm:
    """Bind a form to one layer.

    Args:
        config: the layer's config; what is missing takes the form's defaults.
        shapes: tensor name -> stored shape, where the tensors are at hand: optional tensors that are
            not in it are absent, and every dimension is an equation for the sizes.
        sizes: axis -> length, where known from elsewhere.
        refine: axis -> layout dims that it is made of, as `{"input": "(h w c)"}`.
        instance: the value of the form's `each` axis, as `{"layer": 1}`.
        omit: optional tensors that this layer does not have.

    Raises:
        BindError: a requirement of the form that the config does not meet, a tensor missing or unknown,
            a size that nothing determines.
        SizeError: shapes and config contradict each other.
    """
    full = {**form.config, **config}
    _require(form, full)
    labels = _labels(kind, form, full)
    refined = {axis: parse_dims(text) for axis, text in refine.items()}
    drafts = _drafts(kind, form, full, labels, instance, shapes, omit)
    rank = _rank(kind, form, full, drafts, shapes, sizes)
    spatial = _spatial(kind, rank)
    aliases = _aliases(kind)
    drafts = [_resolve(d, spatial, labels, aliases, refined, full, form) for d in drafts]
    solved = _sizes(form, full, config, _Open(kind, drafts, shapes, tuple(spatial), refined), dict(sizes))
    tensors, places = _places(kind, form, full, drafts, solved, spatial, labels, refined)
    facts = {name: _fact(form, name, full, known.default) for name, known in kind.facts.items()}
    settings = {name: _setting(cases, full) for name, cases in form.settings.items()}
    data = {name: choose(cases, full) or () for name, cases in form.data.items()}
    return BoundForm(form, kind, full, solved, tensors, places, facts, settings, labels, data)


def tensor_names(kind: Kind, form: Form, config: Mapping[str, Any] = NOTHING, instance: Mapping[str, Any] = NOTHING) -> tuple[str, ...]:
    """The tensors that a layer of this config has, optional ones included, in the form's order."""
    full = {**form.config, **config}
    return tuple(draft.name for draft in _drafts(kind, form, full, _labels(kind, form, full), instance, None, ()))


def _require(form: Form, config: Mapping[str, Any]) -> None:
    problems: list[LayoutxError] = []
    for key, allowed, why in form.require:
        value = config.get(key)
        if value is not None and plain(value) not in allowed:
            wanted = " or ".join(map(repr, allowed))
            problems.append(BindError(f"{form.name} is described for {key}={wanted} only, not {value!r}", why=why))
    raise_all(problems, f"{form.name} does not hold for this config")


def _labels(kind: Kind, form: Form, config: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Enumerated axis -> the labels that exist in this form."""
    found = {axis: tuple(labels) for axis, labels in kind.labels.items()}
    for axis, cases in form.only.items():
        found[axis] = tuple(choose(cases, config) or found[axis])
    return found


def _aliases(kind: Kind) -> dict[str, str]:
    return {alias: label for labels in kind.labels.values() for label, aliases in labels.items() for alias in aliases}


def _drafts(
    kind: Kind,
    form: Form,
    config: Mapping[str, Any],
    labels: Mapping[str, tuple[str, ...]],
    instance: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]] | None,
    omit: Collection[str],
) -> list[_Draft]:
    drafts: list[_Draft] = []
    for spec in form.tensors:
        layout = choose(spec.cases, config)
        if layout is None:
            continue
        layout = _own_dims(layout, spec, config)
        axes = [name for name in _FIELD.findall(spec.name) if name in kind.labels]
        for chosen in product(*(labels[axis] for axis in axes)):
            carried = dict(zip(axes, chosen, strict=True))
            name = _name(spec.name, form, carried, {form.each: 0, **instance})
            absent = name in omit or (shapes is not None and name not in shapes)
            if not (spec.optional and absent):
                drafts.append(_Draft(name, layout, carried, spec.dtype))
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


def _name(template: str, form: Form, carried: Mapping[str, str], instance: Mapping[str, Any]) -> str:
    def spell(match: re.Match[str]) -> str:
        axis = match[1]
        if axis in carried:
            return form.names.get(axis, {}).get(carried[axis], carried[axis])
        return str(instance[axis])

    return _FIELD.sub(spell, template)


def _same_names(form: Form, expected: list[str], given: list[str]) -> None:
    missing = [n for n in expected if n not in given]
    extra = [n for n in given if n not in expected]
    if missing or extra:
        raise BindError(
            f"the tensors do not fit {form.name}",
            where=[f"missing: {', '.join(missing)}"] * bool(missing) + [f"not in this form: {', '.join(extra)}"] * bool(extra),
            why=f"with this config {form.name} holds {', '.join(expected) or 'nothing'}",
            do="correct the config, or name another form with --form LAYER=FORM",
        )


def _rank(
    kind: Kind,
    form: Form,
    config: Mapping[str, Any],
    drafts: Sequence[_Draft],
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


def _spatial(kind: Kind, rank: int | None) -> tuple[str, ...]:
    if rank is None:
        return ()
    if rank in kind.spread:
        return kind.spread[rank]
    return tuple(f"k{i}" for i in range(max(rank, 0)))


def _resolve(
    draft: _Draft,
    spatial: Sequence[str],
    labels: Mapping[str, tuple[str, ...]],
    aliases: Mapping[str, str],
    refined: Mapping[str, tuple[Dim, ...]],
    config: Mapping[str, Any],
    form: Form,
) -> _Draft:
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
    return replace(draft, layout=replace(draft.layout, dims=dims), labels=fixed)


@dataclass(frozen=True, slots=True)
class _Open:
    """What the size equations are read from."""

    kind: Kind
    drafts: Sequence[_Draft]
    shapes: Mapping[str, Sequence[int]] | None
    spatial: tuple[str, ...]
    refined: Mapping[str, tuple[Dim, ...]]


def _sizes(
    form: Form, full: Mapping[str, Any], config: Mapping[str, Any], layer: _Open, given: dict[str, int]
) -> dict[str, int]:
    """Every axis' size: from given sizes, config values and stored shapes; all claims must agree.

    A form's default config values count only where nothing else determines an axis.
    """
    equal = {axis: choose(cases, full) for axis, cases in form.equal.items()}
    alias = {**layer.kind.same, **{axis: name for axis, name in equal.items() if name is not None}}
    equations = [
        Equation(Axis(name), int(size), f"{form.name} has {name}={size} only")
        for axis, cases in form.pin.items()
        if (size := choose(cases, full)) is not None
        for name in (layer.spatial if axis == "..." else (axis,))
    ]
    equations += [e for key, dim in form.sizes for e in _config_equations(key, dim, config, layer)]
    equations += [Equation(Product(layer.refined[axis]), given[axis], f"axis {axis}") for axis in layer.refined if axis in given]
    for draft in layer.drafts:
        if layer.shapes is not None and draft.name in layer.shapes:
            equations += _shape_equations(draft, tuple(layer.shapes[draft.name]))
    equations += [Equation(Axis(other), given[axis], f"given {axis}") for axis, other in alias.items() if axis in given]
    equations = [replace(e, dim=_rename(e.dim, alias)) for e in equations]
    solved = solve(equations, given)
    needed = {alias.get(name, name) for draft in layer.drafts for name in axis_names(draft.layout.dims)}
    for key, dim in form.sizes:
        if key not in config and axis_names(dim if isinstance(dim, tuple) else (dim,)) & (needed - set(solved)):
            equations += [replace(e, dim=_rename(e.dim, alias)) for e in _config_equations(key, dim, full, layer)]
            solved = solve(equations, given)
    solved |= {axis: solved[other] for axis, other in alias.items() if other in solved}
    _all_known(form, needed - set(solved))
    return solved


def _all_known(form: Form, missing: set[str]) -> None:
    if missing:
        names = sorted(missing)
        keys = [key for key, dim in form.sizes if axis_names(dim if isinstance(dim, tuple) else (dim,)) & missing]
        hint = f"give {' or '.join(dict.fromkeys(keys))} in the config, or " if keys else "give "
        error = UndeterminedError(
            f"nothing determines the size of {', '.join(names)}", where=form.name, do=f"{hint}--size {names[0]}=N"
        )
        error.axes = tuple(names)
        raise error


def _config_equations(
    key: str, dim: Dim | tuple[Dim, ...], config: Mapping[str, Any], layer: _Open
) -> list[Equation]:
    value = config.get(key)
    if value is None:
        return []
    if isinstance(dim, tuple):
        dims = expand(dim, layer.spatial, {}, {}, layer.refined)
        values = list(value) if isinstance(value, (list, tuple)) else [value] * len(dims)
        if len(values) != len(dims):
            raise SizeError(f"{key}={value!r} has {len(values)} entries for {show_dims(dims)}")
        return [Equation(d, int(v), f"{key}={value!r}") for d, v in zip(dims, values, strict=True)]
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:  # -1: "as many as there are"
        return []
    return [Equation(Product(expand((dim,), layer.spatial, {}, {}, layer.refined)), value, f"{key}={value}")]


def _shape_equations(draft: _Draft, shape: tuple[int, ...]) -> list[Equation]:
    dims = draft.layout.dims
    if len(shape) != len(dims):
        raise SizeError(
            f"{draft.name} has shape {shape}, {len(shape)} dimensions",
            why=f"its layout has {len(dims)}: {show(draft.layout)}",
            do="name the layer's real form with --form LAYER=FORM",
        )
    return [Equation(d, n, f"{draft.name} {shape} dimension {i}") for i, (d, n) in enumerate(zip(dims, shape, strict=True))]


def _rename(dim: Dim, alias: Mapping[str, str]) -> Dim:
    match dim:
        case Axis(name) if name in alias:
            return replace(dim, name=alias[name])
        case Product(dims):
            return replace(dim, dims=tuple(_rename(d, alias) for d in dims))
        case Sum(_, options):
            return replace(dim, options=tuple(replace(o, dims=tuple(_rename(d, alias) for d in o.dims)) for o in options))
        case _:
            return dim


def _places(
    kind: Kind,
    form: Form,
    config: Mapping[str, Any],
    drafts: Sequence[_Draft],
    sizes: Mapping[str, int],
    spatial: Sequence[str],
    labels: Mapping[str, tuple[str, ...]],
    refined: Mapping[str, tuple[Dim, ...]],
) -> tuple[tuple[BoundTensor, ...], dict[Atom, Place]]:
    equal = {axis: choose(cases, config) for axis, cases in form.equal.items()}
    pinned = {axis for axis, cases in form.pin.items() if choose(cases, config) is not None}
    if "..." in pinned:
        pinned |= set(spatial)
    role_axes = {name: role_leaves(role, spatial, labels, refined) for name, role in kind.roles.items()}
    tensors: list[BoundTensor] = []
    places: dict[Atom, Place] = {}
    for draft in drafts:
        blocks = []
        for block in place(draft.layout, sizes, draft.labels):
            named = _named(block, role_axes, equal, pinned, draft, form)
            atom = (named.role, named.labels)
            if atom in places:
                raise BindError(f"{atom_text(atom)} is stored twice", where=f"{form.name}: {places[atom].tensor}, {draft.name}")
            places[atom] = Place(draft.name, named)
            blocks.append(named)
        tensors.append(BoundTensor(draft.name, shape_of(draft.layout, sizes), draft.layout, tuple(blocks), draft.dtype))
    return tuple(tensors), places


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


def _named(
    block: Block,
    role_axes: Mapping[str, Mapping[tuple[tuple[str, str], ...], tuple[str, ...]]],
    equal: Mapping[str, str],
    pinned: set[str],
    draft: _Draft,
    form: Form,
) -> Block:
    """A block with its strides under the role's own axis names; every axis must be covered exactly once."""
    where = f"{form.name} {draft.name}: {show(draft.layout)}"
    if block.role not in role_axes:
        raise BindError(f"the kind has no role {block.role!r}", where=where, why=f"roles: {', '.join(role_axes)}")
    wanted = {axis for combination in role_axes[block.role] for axis, _ in combination}
    own = tuple((axis, label) for axis, label in block.labels if axis in wanted)
    if own not in role_axes[block.role]:
        raise BindError(f"{block.role} is not stored with all its enumerated axes", where=where, why=f"found {dict(own)}")
    strides: dict[str, int] = {}
    used: set[str] = set()
    for axis in role_axes[block.role][own]:
        written = equal.get(axis) or axis
        used.add(written)
        if written in block.strides:
            strides[axis] = block.strides[written]
        elif axis not in pinned:
            raise BindError(f"the axis {axis} of {block.role} is not stored", where=where, do="name it in the layout, or `pin` it to 1")
    extra = set(block.strides) - used
    if extra:
        raise BindError(f"{block.role} has no axis {', '.join(sorted(extra))}", where=where)
    return replace(block, labels=own, strides=strides)


def _fact(form: Form, name: str, config: Mapping[str, Any], default: Any) -> Any:
    if name not in form.facts:
        return default
    value = choose(form.facts[name], config)
    if isinstance(value, Reading):
        return _read(value, config)
    return default if value is None else value


def _read(reading: Reading, config: Mapping[str, Any]) -> Any:
    value = config.get(reading.config)
    if isinstance(value, Mapping):  # a serialised Keras object: {"class_name": ..., "config": ...}
        value = value.get("config") if isinstance(value.get("config"), str) else value.get("class_name")
    return reading.values.get(str(value), value)


def _setting(cases: Cases, config: Mapping[str, Any]) -> Any:
    reading = choose(cases, config)
    if not isinstance(reading, Reading):
        return reading
    value = _read(reading, config)
    if reading.complement and isinstance(value, (int, float)):
        return round(1.0 - value, 12)
    return value


