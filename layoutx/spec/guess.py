"""Which forms fit tensors of these names, or of this order, and shapes: all of them, never the likeliest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError
from layoutx.lang.show import show, show_dims
from layoutx.lang.sizes import extent
from layoutx.lang.tree import Layout, Spread
from layoutx.spec.bind import UNKNOWN, bind, tensor_names
from layoutx.spec.bound import BoundForm
from layoutx.spec.configs import conditions, structural
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Form, Kind, Others, choose
from layoutx.spec.sizing import UndeterminedError

Shape = Sequence[int]


@dataclass(frozen=True, slots=True)
class Guess:
    """A form that fits.

    Attributes:
        form: its name.
        config: config values under which it fits, where they differ from the form's defaults.
        names: the form's tensor names in the order of the given shapes.
        why: what was compared, for the report.
    """

    form: str
    config: Mapping[str, Any]
    names: tuple[str, ...]
    why: str


def guess(
    reg: Registry,
    framework: str,
    shapes: Mapping[str, Shape] | Sequence[Shape],
    hint: str = "",
    known: Mapping[str, Any] = NOTHING,
) -> list[Guess]:
    """All forms of a framework that fit, in the registry's order.

    Sizes that happen to be equal are never a reason: where two forms fit, both are given.

    Args:
        shapes: tensor name -> stored shape; or shapes alone, in the framework's own order.
        hint: a name that may speak of the class, as `conv2d_1`. Where forms that fit are of that class,
            only those are given, and the reason says so.
        known: config values that are certain, as {"version": 2}.
    """
    named = shapes if isinstance(shapes, Mapping) else None
    order = list(shapes.values()) if isinstance(shapes, Mapping) else list(shapes)
    found: list[Guess] = []
    for kind in reg.kinds.values():
        for form in kind.forms.values():
            if form.framework == framework and order and not form.by_class:
                found += _fits(kind, form, named, order, known)
    word = re.sub(r"_\d+$", "", re.split(r"[/.]", hint)[-1].lower())
    speaking = [g for g in found if word and word in _words_of(reg.form(g.form))]
    if speaking:
        return [Guess(g.form, g.config, g.names, f"the name {hint!r}; {g.why}") for g in speaking]
    return [g for g in found if not _shows(reg.form(g.form), g, order)] or found


def _fits(
    kind: Kind, form: Form, named: Mapping[str, Shape] | None, order: Sequence[Shape], known: Mapping[str, Any]
) -> Iterator[Guess]:
    """One guess for each way in which the form's layouts or facts differ."""
    seen: set[str] = set()
    certain = {key: value for key, value in known.items() if key in form.config}
    usual_first = sorted(_configs(form), key=lambda config: ("version" in config, len(config)))
    for config in ({**c, **certain} for c in usual_first if all(c.get(k, v) == v for k, v in certain.items())):
        for names, left_out in _names(kind, form, config, named, len(order)):
            shapes = dict(zip(names, order, strict=True))
            state = _state(form, config, left_out)
            bound = None if state in seen else _held(kind, form, config, shapes)
            if bound is not None and not _without_window(kind, form, bound):
                seen.add(state)
                found = {key: _size(form, key, bound) if value is SOME else value for key, value in config.items()}
                unsaid = {key: UNKNOWN for key in open_sizes(kind, form, config, shapes) if form.config[key] != 1}
                yield Guess(form.name, found | unsaid, names, _why(form, found, shapes))


def _without_window(kind: Kind, form: Form, bound: BoundForm) -> bool:
    """Whether a convolution of any rank is taken for one over no axis at all, which is what a Dense would be."""
    windowed = any(isinstance(dim, Spread) for _, dims in form.sizes for dim in (dims if type(dims) is tuple else ()))
    return windowed and not any(axis in bound.sizes for names in kind.spread.values() for axis in names)


SOME = "some size"  # of a key such as proj_size: the shapes tell it, once it is not the one value excluded


def _configs(form: Form) -> Iterator[dict[str, Any]]:
    """The structural configs, and each again with sizes that its conditions exclude only one value of."""
    sized = {key for key, dim in form.sizes if not isinstance(dim, tuple)}
    keys = {key for _, when in conditions(form) for key, values in when.items() if isinstance(values, Others)} & sized
    for config in structural(form):
        yield config
        yield from ({**config, **turned} for turned in _turned(form))
        if keys and not keys & set(config):
            yield {**config, **dict.fromkeys(sorted(keys), SOME)}


def _turned(form: Form) -> Iterator[dict[str, str]]:
    """The other order in which a matrix may lie whose dims the layer's own config decides (an einsum's equation)."""
    for spec in form.tensors:
        layout = choose(spec.cases, form.config) if spec.dims_from else None
        if isinstance(layout, Layout) and len(layout.dims) == 2:
            yield {spec.dims_from: show_dims(layout.dims[::-1])}


def _shows(form: Form, found: Guess, order: Sequence[Shape]) -> bool:
    """Whether the other order of a matrix would show: its input would be as wide as the output is."""
    return any(found.config.get(key) == text for turned in _turned(form) for key, text in turned.items()) and any(
        len(shape) == 2 and shape[0] != shape[1] for shape in order
    )


def open_sizes(kind: Kind, form: Form, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> list[str]:
    """Config keys whose number nothing but the form's default tells: the groups of a GroupNorm."""
    found = []
    for key in dict.fromkeys(key for key, _ in form.sizes):
        if key in config or type(form.config.get(key)) is not int or not form.config[key]:
            continue
        try:
            bind(kind, form, {**config, key: UNKNOWN}, shapes=shapes)
        except UndeterminedError:
            found.append(key)
        except LayoutxError:
            continue
    return found


def _size(form: Form, key: str, bound: BoundForm) -> int:
    return next(extent(dim, bound.sizes) for name, dim in form.sizes if name == key and not isinstance(dim, tuple))


def _names(
    kind: Kind, form: Form, config: Mapping[str, Any], named: Mapping[str, Shape] | None, count: int
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The tensor names to compare with (the given ones, or the form's own) and the optional ones that are left out."""
    expected = tensor_names(kind, form, config)
    if named is not None:
        yield tuple(named), ()
        return
    optional = [name for name in expected if name in {spec.name for spec in form.tensors if spec.optional}]
    surplus = len(expected) - count
    for left_out in combinations(optional, surplus) if 0 <= surplus <= len(optional) else ():
        yield tuple(name for name in expected if name not in left_out), left_out


def _state(form: Form, config: Mapping[str, Any], left_out: tuple[str, ...]) -> str:
    """What sets one guess apart from another of the same form: layouts, facts, and what is missing."""
    full = {**form.config, **config}
    own = [full.get(spec.dims_from) for spec in form.tensors if spec.dims_from]
    facts = {name: choose(cases, full) for name, cases in form.facts.items()}
    layouts = [show(layout) for spec in form.tensors if (layout := choose(spec.cases, full)) is not None]
    return repr((layouts, own, facts, left_out))


def _held(kind: Kind, form: Form, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> BoundForm | None:
    """The form bound to shapes that fit; where a size has to be told (the number of heads), whether one would fit."""
    sizes: dict[str, int] = {}
    defaults = {key: UNKNOWN for key, _ in form.sizes if key not in config and type(form.config.get(key)) is int}
    config = {**{key: value for key, value in defaults.items() if form.config[key] not in (0, 1)}, **config}
    while True:
        try:
            return bind(kind, form, config, shapes=shapes, sizes=sizes)
        except UndeterminedError as error:
            sizes[error.axes[0]] = 1
        except LayoutxError:
            return None


def _why(form: Form, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> str:
    text = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    under = f" with {', '.join(f'{k}={v!r}' for k, v in config.items())}" if config else ""
    return f"{text} fit {form.name}{under}"


def _words_of(form: Form) -> set[str]:
    """How layers of this class are called when nobody names them: `conv2d`, `p_re_lu`."""
    return {_snake(part) for part in form.class_name.split(".")[:1]} | {form.class_name.lower()}


def _snake(name: str) -> str:
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
