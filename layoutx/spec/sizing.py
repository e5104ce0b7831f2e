"""Sizes of a layer's axes: equations from its config and its stored shapes, which must all agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from layoutx.errors import BindError, SizeError
from layoutx.frozen import frozen
from layoutx.lang.show import show, show_dims
from layoutx.lang.sizes import Equation, extent, solve
from layoutx.lang.tree import Axis, Dim, Product, Sum
from layoutx.spec.draft import Draft
from layoutx.spec.expand import axis_names, expand
from layoutx.spec.schema import Form, Kind, choose


class UndeterminedError(BindError):
    """The tensors fit so far, but the sizes of `axes` do not follow from them."""

    axes: tuple[str, ...] = ()


Sized = tuple[str, Dim | tuple[Dim, ...], tuple[Dim, ...], tuple[Dim, ...]]


@frozen
class Open:
    """What the size equations of layers are read from that differ in their sizes only.

    Attributes:
        alias: axis -> the axis that has its size here.
        pinned: equations that always hold.
        keyed: config key, its dims as the form says them, with refined axes, and with axes under one name for a size.
        refined: axis -> the dims that it is made of.
        stored: drafts with the dims of their tensors, axes under one name for a size.
        needed: axes whose size must be known.
    """

    alias: Mapping[str, str]
    pinned: tuple[Equation, ...]
    keyed: tuple[Sized, ...]
    refined: tuple[tuple[str, Dim], ...]
    stored: tuple[tuple[Draft, tuple[Dim, ...]], ...]
    needed: frozenset[str]


def open_of(
    kind: Kind,
    form: Form,
    full: Mapping[str, Any],
    drafts: Sequence[Draft],
    spatial: Sequence[str],
    refined: Mapping[str, tuple[Dim, ...]],
) -> Open:
    """What is known of the sizes before there are any: it depends on no value of `full` that is a mere size."""
    equal = {axis: choose(cases, full) for axis, cases in form.equal.items()}
    own = {axis: choose(cases, full) for axis, cases in form.same.items()}
    alias = {**kind.same, **{axis: name for axis, name in {**own, **equal}.items() if name is not None}}
    pinned = [
        Equation(_rename(Axis(name), alias), int(size), f"{form.name} has {name}={size} only")
        for axis, cases in form.pin.items()
        if (size := choose(cases, full)) is not None
        for name in (spatial if axis == "..." else (axis,))
    ]
    keyed = []
    for key, dim in form.sizes:
        dims = expand(dim if isinstance(dim, tuple) else (dim,), spatial, {}, {}, refined)
        keyed.append((key, dim, dims, tuple(_rename(d, alias) for d in dims)))
    stored = [(draft, tuple(_rename(d, alias) for d in draft.stored)) for draft in drafts]
    needed = {alias.get(name, name) for draft in drafts for name in axis_names(draft.layout.dims)}
    made_of = tuple((axis, _rename(Product(dims), alias)) for axis, dims in refined.items())
    return Open(alias, tuple(pinned), tuple(keyed), made_of, tuple(stored), frozenset(needed))


def sizes_of(
    form: Form,
    full: Mapping[str, Any],
    config: Mapping[str, Any],
    layer: Open,
    shapes: Mapping[str, Sequence[int]] | None,
    given: dict[str, int],
) -> dict[str, int]:
    """Every axis' size: from given sizes, config values and stored shapes; all claims must agree.

    A form's default config values count only where nothing else determines an axis.
    """
    equations = list(layer.pinned)
    for sized in layer.keyed:
        equations += _config_equations(sized, config)
    equations += [Equation(dim, given[axis], f"axis {axis}") for axis, dim in layer.refined if axis in given]
    for draft, dims in layer.stored:
        if shapes is not None and draft.name in shapes:
            equations += _shape_equations(draft, dims, tuple(shapes[draft.name]))
    equations += [
        Equation(_rename(Axis(other), layer.alias), given[axis], f"{form.name} gives {axis} the size of {other}")
        for axis, other in layer.alias.items()
        if axis in given
    ]
    solved = solve(equations, given)
    for sized in layer.keyed:
        key, dim = sized[:2]
        missing = layer.needed - solved.keys()
        if missing and key not in config and axis_names(dim if isinstance(dim, tuple) else (dim,)) & missing:
            equations += _config_equations(sized, full)
            solved = solve(equations, given)
    solved |= {axis: solved[other] for axis, other in layer.alias.items() if other in solved}
    _one_number(form, solved)
    _all_known(form, layer.needed - solved.keys())
    return solved


def _one_number(form: Form, solved: Mapping[str, int]) -> None:
    """Dims that one config key gives are equal, whether or not the config is at hand (embed_dim of torch attention)."""
    found: dict[str, tuple[Dim, int]] = {}
    for key, dim in form.sizes:
        if isinstance(dim, tuple) or not axis_names((dim,)) <= set(solved):
            continue
        size = extent(Product((dim,)), solved)
        first, known = found.setdefault(key, (dim, size))
        if known != size:
            raise SizeError(
                f"{form.name} has one {key} for {show_dims((first,))} and {show_dims((dim,))}",
                where=f"{show_dims((first,))} is {known}, {show_dims((dim,))} is {size}",
            )


def _all_known(form: Form, missing: Set[str]) -> None:
    if missing:
        names = sorted(missing)
        keys = [key for key, dim in form.sizes if axis_names(dim if isinstance(dim, tuple) else (dim,)) & missing]
        told = " or ".join(dict.fromkeys(keys))
        hint = f"give {told} in the config (--set {keys[0]}=VALUE), or " if keys else "give "
        sizes = " ".join(f"--size {name}=N" for name in names)
        what = f"nothing determines the size of {', '.join(names)}"
        error = UndeterminedError(what, where=form.name, do=f"{hint}{sizes}")
        error.axes = tuple(names)
        raise error


def _config_equations(sized: Sized, config: Mapping[str, Any]) -> list[Equation]:
    key, dim, plain, dims = sized
    value = config.get(key)
    if value is None:
        return []
    if isinstance(dim, tuple):
        values = list(value) if isinstance(value, (list, tuple)) else [value] * len(dims)
        if len(values) != len(dims):
            raise SizeError(f"{key}={value!r} has {len(values)} entries for {show_dims(plain)}")
        return [Equation(d, _size(v, key, value), f"{key}={value!r}") for d, v in zip(dims, values, strict=True)]
    if isinstance(value, (list, tuple)) and len(value) == len(dims) > 1:  # normalized_shape of a refined axis
        return [Equation(d, _size(v, key, value), f"{key}={value!r}") for d, v in zip(dims, value, strict=True)]
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:  # -1: "as many as there are"
        return []
    return [Equation(Product(dims), value, f"{key}={value}")]


def _size(found: Any, key: str, value: Any) -> int:
    try:
        return int(found)
    except (TypeError, ValueError, OverflowError) as error:
        raise SizeError(f"{key}={value!r}"[:200] + " holds no sizes", why=f"{found!r}"[:100] + " is none") from error


def _shape_equations(draft: Draft, dims: tuple[Dim, ...], shape: tuple[int, ...]) -> list[Equation]:
    if len(shape) != len(dims):
        raise SizeError(
            f"{draft.name} has shape {shape}, {len(shape)} dimensions",
            why=f"its layout has {len(dims)}: {show(replace(draft.layout, dims=draft.stored))}",
            do="name the layer's real form with --form LAYER=FORM",
        )
    return [
        Equation(d, n, f"{draft.name} {shape} dimension {i}") for i, (d, n) in enumerate(zip(dims, shape, strict=True))
    ]


def _rename(dim: Dim, alias: Mapping[str, str]) -> Dim:
    match dim:
        case Axis(name) if name in alias:
            return replace(dim, name=alias[name])
        case Product(dims):
            return replace(dim, dims=tuple(_rename(d, alias) for d in dims))
        case Sum(_, options):
            return replace(
                dim, options=tuple(replace(o, dims=tuple(_rename(d, alias) for d in o.dims)) for o in options)
            )
        case _:
            return dim
