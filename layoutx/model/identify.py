"""A layer whose class the file does not tell: its form from names and shapes, with the reason, or as the user says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import BindError
from layoutx.lang.show import show
from layoutx.model.keras_groups import QUANTISED
from layoutx.model.record import LayerRecord
from layoutx.spec.bind import tensor_names
from layoutx.spec.guess import Guess, guess
from layoutx.spec.registry import Registry
from layoutx.spec.schema import choose


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
    if record.form and not form:
        return _by_position(record, registry)
    if guessing and any(tensor.dtype.itemsize == 1 for tensor in record.tensors.values()):
        # an int8 kernel and its scale have the shapes of a kernel and a bias
        return replace(record, note=f"{record.note}; {QUANTISED}" if record.note else QUANTISED)
    if form:
        fitting = [g for g in guesses(record, registry, registry.form(form).framework, known) if g.form == form]
        if not fitting:
            raise _unfit(record, form, registry)
        return _with(record, fitting[0], "the form was given by --form")
    if not guessing:
        return record
    found = guesses(record, registry, framework, known)
    forms = list(dict.fromkeys(g.form for g in found))
    if found and len({meaning(g, registry) for g in found}) == 1:
        return _with(record, found[0], f"form from {found[0].why}")
    if forms:
        choices = ", ".join(forms)
        return replace(record, note=f"its tensors fit {choices}: say which with --form {record.name}=FORM")
    return replace(record, note=record.note or "no form fits its tensors")


def guesses(record: LayerRecord, registry: Registry, framework: str, known: Mapping[str, Any] = NOTHING) -> list[Guess]:
    """All forms that fit a record's tensors: by their names, or by position where the file only numbers them."""
    named = {name: tensor.shape for name, tensor in record.tensors.items()}
    hint = record.class_name or record.name
    if all(name.rsplit("/", 1)[-1].isdigit() for name in named):
        return guess(registry, framework, list(named.values()), hint, known)
    found = guess(registry, framework, named, hint, known)
    return found or guess(registry, framework, list(named.values()), hint, known)


def meaning(found: Guess, registry: Registry) -> tuple[str, ...]:
    """What a guess makes of the tensors: two forms that store a kind alike (Dense, EinsumDense) are one."""
    form = registry.form(found.form)
    config = {**form.config, **found.config}
    layouts = {spec.name: choose(spec.cases, config) for spec in form.tensors}
    facts = [f"{name} {choose(cases, config)}" for name, cases in form.facts.items()]
    facts += [f"{name} {choose(cases, config)}" for name, cases in form.maps.items()]
    return (form.kind, *(str(show(layout)) for n in found.names if (layout := layouts.get(n)) is not None), *facts)


def _by_position(record: LayerRecord, registry: Registry) -> LayerRecord:
    """A class of the user's own spec: the file may number or rename its tensors, their order is the class' own."""
    kind = registry.kind_of(record.form)
    names = tensor_names(kind, registry.form(record.form), record.config, record.instance)
    if set(record.tensors) <= set(names) or len(record.tensors) != len(names):
        return record
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
        why=f"{form} stores {wanted}",
        do=f"name another form with --form {record.name}=FORM; `layoutx specs` lists them",
    )
