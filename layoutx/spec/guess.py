"""Which forms fit tensors of these names, or of this order, and shapes: all of them, never the likeliest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError
from layoutx.frozen import frozen
from layoutx.lang.sizes import extent
from layoutx.lang.tree import Spread
from layoutx.spec.bind import UNKNOWN, bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.memo import Memo, key_of
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Form, Kind
from layoutx.spec.sizing import UndeterminedError
from layoutx.spec.variants import SOME, Variant, turnings, variants

Shape = Sequence[int]


@frozen
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
    order = tuple(tuple(shape) for shape in (shapes.values() if isinstance(shapes, Mapping) else shapes))
    names = None if named is None else tuple(named)
    found = _fitting.get(
        (reg,), key_of(framework, names, order, dict(known)), lambda: _all(reg, framework, names, order, known)
    )
    word = re.sub(r"_\d+$", "", re.split(r"[/.]", hint)[-1].lower())
    speaking = [g for g in found if word and word in _words_of(reg.form(g.form))]
    if speaking:
        return [Guess(g.form, g.config, g.names, f"the name {hint!r}; {g.why}") for g in speaking]
    return [g for g in found if not _shows(reg.form(g.form), g, order)] or list(found)


def form_option(name: str, held: Mapping[str, Shape], reg: Registry, framework: str) -> str:
    """`--form cross=keras.Dense`: what says the form of a layer; with FORM where not exactly one fits.

    Args:
        held: path of a tensor below the layer -> shape, in order; a group that holds all may speak of the class.
    """
    groups = {path.rpartition("/")[0] for path in held}
    found = guess(reg, framework, list(held.values()), "".join(groups) or name) if len(groups) == 1 else []
    forms = {one.form for one in found}
    return f"--form {name}={forms.pop() if len(forms) == 1 else 'FORM'}"


def held_by(reg: Registry, form: str, shapes: Mapping[str, Shape]) -> list[Guess]:
    """The ways in which one form holds tensors of these names; also of one to which only its class leads."""
    order = [tuple(shape) for shape in shapes.values()]
    return list(_fits(reg.kind_of(form), reg.form(form), tuple(shapes), order, NOTHING))


_fitting: Memo[tuple[Guess, ...]] = Memo()


def _all(
    reg: Registry, framework: str, names: tuple[str, ...] | None, order: Sequence[Shape], known: Mapping[str, Any]
) -> tuple[Guess, ...]:
    """The guesses of every form, whatever the layer is called."""
    own = _own.get((reg,), key_of(framework), lambda: _of(reg, framework)) if order else ()
    # most are excluded by their names, before their kind is read
    able = [form for form, every in own if names is None or every.issuperset(names)]
    return tuple(g for form in able for g in _fits(reg.kind_of(form), reg.form(form), names, order, known))


_own: Memo[tuple[tuple[str, frozenset[str]], ...]] = Memo()


def _of(reg: Registry, framework: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """The forms of a framework, each with all names that its tensors may have."""
    return tuple((form, every) for form, every in reg.tensor_names().items() if form.startswith(f"{framework}."))


def _fits(
    kind: Kind, form: Form, named: tuple[str, ...] | None, order: Sequence[Shape], known: Mapping[str, Any]
) -> Iterator[Guess]:
    """One guess for each way in which the form's layouts or facts differ."""
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for variant in variants(kind, form, known):
        for names, left_out in _names(form, variant, named, len(order)):
            shapes = dict(zip(names, order, strict=True))
            state = (variant.state, left_out)
            held = state not in seen and variant.may_hold(shapes)
            bound = _held(kind, form, variant.open, shapes) if held else None
            if bound is not None and not _without_window(kind, form, bound):
                seen.add(state)
                config = variant.config
                found = {key: _size(form, key, bound) if value is SOME else value for key, value in config.items()}
                unsaid = {key: UNKNOWN for key in open_sizes(kind, form, config, shapes) if form.config[key] != 1}
                yield Guess(form.name, found | unsaid, names, _why(form, found, shapes))


def _without_window(kind: Kind, form: Form, bound: BoundForm) -> bool:
    """Whether a convolution of any rank is taken for one over no axis at all, which is what a Dense would be."""
    windowed = any(isinstance(dim, Spread) for _, dims in form.sizes for dim in (dims if type(dims) is tuple else ()))
    return windowed and not any(axis in bound.sizes for names in kind.spread.values() for axis in names)


def _shows(form: Form, found: Guess, order: Sequence[Shape]) -> bool:
    """Whether the other order of a matrix would show: its input would be as wide as the output is."""
    return any(found.config.get(key) == text for turned in turnings(form) for key, text in turned.items()) and any(
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
    form: Form, variant: Variant, named: tuple[str, ...] | None, count: int
) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The tensor names to compare with (the given ones, or the form's own) and the optional ones that are left out."""
    if named is not None:
        yield named, ()
        return
    optional = [name for name in variant.names if name in {spec.name for spec in form.tensors if spec.optional}]
    surplus = len(variant.names) - count
    for left_out in combinations(optional, surplus) if 0 <= surplus <= len(optional) else ():
        yield tuple(name for name in variant.names if name not in left_out), left_out


def _held(kind: Kind, form: Form, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> BoundForm | None:
    """The form bound to shapes that fit; where a size has to be told (the number of heads), whether one would fit."""
    sizes: dict[str, int] = {}
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


def _words_of(form: Form) -> frozenset[str]:
    """How layers of this class are called when nobody names them: `conv2d`, `p_re_lu`."""
    return _words.get((form,), b"", lambda: _called(form.class_name))


def _called(class_name: str) -> frozenset[str]:
    first = class_name.split(".")[0]
    of_haiku = re.sub(r"((?<=[a-z0-9])[A-Z]|(?!^)[A-Z](?=[a-z]))", r"_\1", first).lower()  # Conv2D is conv2_d there
    return frozenset({_snake(first), class_name.lower(), of_haiku})


_words: Memo[frozenset[str]] = Memo()


def _snake(name: str) -> str:
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
