"""A layer whose class the file does not tell: its form from names and shapes, with the reason, or as the user says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import BindError, LayoutxError
from layoutx.lang.show import show, show_dims
from layoutx.lang.tree import Layout, roles_of
from layoutx.model.bare import SAID, alone
from layoutx.model.einsum import EINSUM
from layoutx.model.record import QUANTISED, LayerRecord
from layoutx.spec.bind import UNKNOWN, bind, tensor_names
from layoutx.spec.configs import structural
from layoutx.spec.guess import Guess, guess
from layoutx.spec.memo import Memo, key_of
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Form, Kind, choose
from layoutx.spec.sizing import UndeterminedError

ORIGIN = frozenset({"release", "backend"})  # what wrote a Keras 1 file: asked for where it decides (model/origin.py)
MOST_NAMES = 4  # tensors of a layer whose names say nothing: kernels and a bias


def identified(
    record: LayerRecord,
    registry: Registry,
    framework: str,
    form: str = "",
    *,
    guessing: bool = False,
    known: Mapping[str, Any] = NOTHING,
) -> LayerRecord:
    """The record with a form, where one can be told.

    Args:
        form: the user's choice; "" for none.
        guessing: the file holds no config, so that names and shapes are all there is.
        known: config values that are certain, as {"version": 3}.

    Raises:
        BindError: the user's form does not fit the tensors.
    """
    if not record.tensors:
        return record
    reason = refused(record, registry.framework(framework).refuse)
    if reason:
        return replace(record, form="", note=reason)
    own = f"{framework}.{record.class_name}" not in registry.forms
    bare = record if guessing and not form else alone(record, framework, form, own)
    if bare is not record:
        return bare
    if record.form and not form:
        return _by_position(record, registry)
    if guessing and any(tensor.dtype.itemsize == 1 for tensor in record.tensors.values()):
        # an int8 kernel and its scale have the shapes of a kernel and a bias
        return replace(record, note=f"{record.note}; {QUANTISED}" if record.note else QUANTISED)
    if form:
        return _as_said(record, registry, framework, form, known)
    if not guessing:
        return record
    found = guesses(record, registry, framework, known)
    forms = list(dict.fromkeys(g.form for g in found))
    if found and len({meaning(g, registry) for g in found}) == 1:
        return _with(record, found[0], f"form from {found[0].why}")
    if forms:
        return replace(record, note=undecided(record.name, found, registry))
    return replace(record, note=record.note or "no form fits its tensors")


def undecided(name: str, found: Sequence[Guess], registry: Registry) -> str:
    """Why a layer has no form although some fit, and the option that decides between them."""
    forms = list(dict.fromkeys(g.form for g in found))
    if len(forms) > 1:
        return f"its tensors fit {', '.join(forms)}: say which with --form {name or 'LAYER'}=FORM"
    defaults = registry.form(forms[0]).config
    keys = {key for g in found for key, value in g.config.items() if value != defaults.get(key)}
    told = {key: dict.fromkeys(_said(key, g, registry) for g in found) for key in sorted(keys)}
    ways = [f"{key}={' or '.join(values)}" for key, values in told.items() if len(values) > 1]
    sets = " ".join(f"--set {name}.{key}=VALUE" if name else f"--set {key}=VALUE" for key in told if len(told[key]) > 1)
    equation = f"; or its equation, --set {name}.{EINSUM}=..." if EINSUM in defaults else ""
    return (
        f"its tensors fit {forms[0]} with {' and '.join(ways)}, which store other numbers: say which, {sets}{equation}"
    )


def _said(key: str, found: Guess, registry: Registry) -> str:
    """The value of a config key under a guess; of dims that stand for themselves, the form's own."""
    form = registry.form(found.form)
    value = found.config.get(key, form.config.get(key))
    spec = next((spec for spec in form.tensors if spec.dims_from == key), None)
    layout = choose(spec.cases, form.config) if spec is not None and value is None else None
    return show_dims(layout.dims) if isinstance(layout, Layout) else str(value)


def refused(record: LayerRecord, reasons: Mapping[str, str]) -> str:
    """Why no form can hold a layer, told by its class or by a word in its tensors' names (LoRA); "" for all others.

    Args:
        reasons: class or word -> why, as the framework's spec file says it.
    """
    texts = "\n".join((record.class_name, record.name, *record.tensors))
    if not any(word in texts for word in reasons):
        return ""
    words = {record.class_name.rpartition(">")[2], *re.split(r"[/.]", record.name)}
    words |= {word for name in record.tensors for word in re.split(r"[/.:]", name)}
    return next((why for word, why in reasons.items() if word in words), "")


def guesses(
    record: LayerRecord,
    registry: Registry,
    framework: str,
    known: Mapping[str, Any] = NOTHING,
    *,
    ordered: bool = True,
) -> list[Guess]:
    """All forms that fit a record's tensors: by their names, or by position where the file's order means something.

    Args:
        ordered: the file lists a layer's tensors in the order in which its class made them, as Keras does; a tree or
            a state dict of other names has no order that could stand for them.
    """
    named = {name: tensor.shape for name, tensor in record.tensors.items()}
    hint = record.class_name or record.name
    numbered = all(name.rsplit("/", 1)[-1].isdigit() for name in named)
    found = [] if numbered else guess(registry, framework, named, hint, known)
    if found or not (numbered or ordered):
        return found
    found = guess(registry, framework, list(named.values()), hint, known)
    return found if numbered else [g for g in found if _agree(tuple(named), g, registry)]


def _agree(stored: tuple[str, ...], found: Guess, registry: Registry) -> bool:
    """Whether no stored name contradicts its position: says a tensor that some form of the kind stores elsewhere.

    `depthwise_kernel` may stand where a form says `kernel`, as both are the weight; `beta` not for `gamma`.
    """
    roles = _roles(registry.kind_of(found.form))
    return all(
        stored_leaf not in roles or bool(roles[stored_leaf] & roles[_leaf(name)])
        for stored_leaf, name in zip(map(_leaf, stored), found.names, strict=True)
    )


def _leaf(name: str) -> str:
    """The last part of a tensor's name: `kernel` of `dense/kernel:0`."""
    return re.split(r"[/.]", name.removesuffix(":0"))[-1]


def _roles(kind: Kind) -> dict[str, set[str]]:
    """Word that a form of this kind, of any framework, calls a tensor by -> the roles that such tensors hold."""
    found: dict[str, set[str]] = {}
    for form in kind.forms.values():
        for config in structural(form):
            for spec in form.tensors:
                layout = choose(spec.cases, {**form.config, **config})
                if isinstance(layout, Layout):
                    found.setdefault(_leaf(spec.name), set()).update(roles_of(layout))
    return found


def _as_said(
    record: LayerRecord, registry: Registry, framework: str, form: str, known: Mapping[str, Any]
) -> LayerRecord:
    """The record with the user's form: its tensors by their names, which a stacked module numbers by the layer."""
    first = _first(record, form, registry)
    own = dict(zip(first.tensors, record.tensors, strict=True))
    ordered = framework in ("keras", "keras1")
    fitting = guesses(first, registry, registry.form(form).framework, known, ordered=ordered)
    fitting = [g for g in fitting if g.form == form and not set(g.config) - set(known) & ORIGIN]
    note = SAID
    if not fitting and not record.instance:
        fitting = _by_shapes(first, form, registry, known)
        note = f"{SAID}; shapes tell its tensors apart"
    if len({meaning(g, registry) for g in fitting}) > 1:
        return replace(record, form="", note=undecided(record.name, fitting, registry))
    if fitting:
        found = _with(record, fitting[0], note)
        return (
            replace(found, tensors={own.get(n, n): t for n, t in found.tensors.items()}) if record.instance else found
        )
    open_key = _undetermined(first, form, registry)
    if open_key:
        return replace(record, form=form, config={**record.config, open_key: UNKNOWN}, note=note)
    raise _unfit(record, form, registry)


def _by_shapes(record: LayerRecord, form: str, registry: Registry, known: Mapping[str, Any]) -> list[Guess]:
    """The guess under which a layer with names of its own holds the user's form; [] where none or several would."""
    shapes = [tensor.shape for tensor in record.tensors.values()]
    if not 1 < len(shapes) <= MOST_NAMES:
        return []
    kind, spec = registry.kind_of(form), registry.form(form)
    every = {tensor_names(kind, spec, {**spec.config, **config}) for config in structural(spec)}
    orders = {order for names in every if len(names) == len(shapes) for order in permutations(names)}
    found = {}
    for order in sorted(orders):
        named = dict(zip(order, shapes, strict=True))
        own = [g for g in guess(registry, spec.framework, named, known=known) if g.form == form]
        if own:
            found[order] = own
    one = next(iter(found.values())) if len(found) == 1 else []
    return [g for g in one if _agree(tuple(record.tensors), g, registry)]


def _first(record: LayerRecord, form: str, registry: Registry) -> LayerRecord:
    """The record as if it were the first layer of its stack: `weight_ih_l1` as `weight_ih_l0`."""
    if not record.instance:
        return record
    kind, spec = registry.kind_of(form), registry.form(form)
    first: dict[str, str] = {}
    for config in structural(spec):
        own = tensor_names(kind, spec, config, record.instance)
        first.update(zip(own, tensor_names(kind, spec, config), strict=True))
    return replace(record, tensors={first.get(name, name): tensor for name, tensor in record.tensors.items()})


def _undetermined(record: LayerRecord, form: str, registry: Registry) -> str:
    """The config key, of a form whose names are all there, that only the user can tell: num_groups; else ""."""
    kind, spec = registry.kind_of(form), registry.form(form)
    shapes = {name: tensor.shape for name, tensor in record.tensors.items()}
    for key in (key for key, _ in spec.sizes if type(spec.config.get(key)) is int):
        for config in structural(spec):
            try:
                bind(kind, spec, {**config, key: UNKNOWN}, shapes=shapes)
            except UndeterminedError:
                return key
            except LayoutxError:
                continue
    return ""


def meaning(found: Guess, registry: Registry) -> tuple[str, ...]:
    """What a guess makes of the tensors: two forms that store a kind alike (Dense, EinsumDense) are one."""
    form = registry.form(found.form)
    return _meanings.get((form,), key_of(dict(found.config), found.names), lambda: _meaning(found, form))


_meanings: Memo[tuple[str, ...]] = Memo()


def _meaning(found: Guess, form: Form) -> tuple[str, ...]:
    config = {**form.config, **found.config}
    layouts = {spec.name: choose(spec.cases, config) for spec in form.tensors}
    facts = [f"{name} {choose(cases, config)}" for name, cases in form.facts.items()]
    facts += [f"{name} {choose(cases, config)}" for name, cases in form.maps.items()]
    own = [f"{spec.name}: {said}" for spec in form.tensors if (said := config.get(spec.dims_from)) is not None]
    return (
        form.kind,
        *(str(show(layout)) for n in found.names if (layout := layouts.get(n)) is not None),
        *own,
        *facts,
    )


def _by_position(record: LayerRecord, registry: Registry) -> LayerRecord:
    """A class of the user's own spec: the file may number or rename its tensors, their order is the class' own."""
    kind = registry.kind_of(record.form)
    names = tensor_names(kind, registry.form(record.form), record.config, record.instance)
    if set(record.tensors) <= set(names) or len(record.tensors) != len(names):
        return record
    if not _agree(tuple(record.tensors), Guess(record.form, {}, names, ""), registry):
        raise _unfit(record, record.form, registry)
    return replace(record, tensors=dict(zip(names, record.tensors.values(), strict=True)))


def _with(record: LayerRecord, found: Guess, note: str) -> LayerRecord:
    tensors = dict(zip(found.names, record.tensors.values(), strict=True))
    config = {**found.config, **record.config}
    return replace(record, form=found.form, config=config, tensors=tensors, note=note)


def _unfit(record: LayerRecord, form: str, registry: Registry) -> BindError:
    shapes = ", ".join(f"{name} {tensor.shape}" for name, tensor in record.tensors.items())
    wanted = ", ".join(spec.name for spec in registry.form(form).tensors)
    return BindError(
        f"layer {record.name} does not hold what {form} stores",
        where=f"its tensors: {shapes}",
        why=f"{form} stores {wanted}; names decide, not positions, wherever a file names its tensors",
        do="rename the tensors, say whose names they are (--from FRAMEWORK), or name another form with "
        f"--form {record.name}=FORM; `layoutx specs` lists them",
    )
