"""What is taken for granted of a layer whose source tells names and numbers only: every option that its form reads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from layoutx.spec.bind import UNKNOWN
from layoutx.spec.bound import BoundForm
from layoutx.spec.guess import open_sizes
from layoutx.spec.schema import Cases, Form, Reading
from layoutx.spec.values import MapSpec

SILENT = ("version", "kernel_dims", "bias_dims")  # of layoutx, no option of a framework's layer


def assumed(bound: BoundForm, told: Collection[str]) -> dict[str, Any]:
    """Config keys of a bound form that decide what the layer computes and that nobody told -> the value taken.

    Which tensors there are, and of which shapes, is told by the file; what is left are activations, eps, strides,
    padding, directions, the order of the data, and options without which the form does not hold.

    Args:
        told: keys that the source or the user said.
    """
    form, config = bound.form, bound.config
    shapes = {tensor.name: tensor.shape for tensor in bound.tensors}
    known = {key: value for key, value in config.items() if key in told}
    guessed = open_sizes(bound.kind, form, known, shapes)
    sized = {key for key, _ in form.sizes} - set(guessed)
    seen = {*shown_in_tensors(form), *told, *SILENT, *sized}
    read = dict.fromkeys([*_read(form), *guessed])
    return {key: config.get(key) for key in read if key not in seen and config.get(key) != UNKNOWN}


def told_by(config: Mapping[str, Any]) -> set[str]:
    """The keys of a record's config that say something."""
    return {key for key, value in config.items() if value != UNKNOWN}


def assumed_text(bound: BoundForm, told: Collection[str], note: str = "") -> str:
    """`assumed, because the source does not tell: epsilon=1e-06`; "" where nothing is, or all is in the note."""
    found = {key: value for key, value in assumed(bound, told).items() if f"{key}=" not in note}
    none = [key for key, value in found.items() if value is None]
    said = [", ".join(f"{key}={value}" for key, value in found.items() if value is not None)]
    said += [f"no {', '.join(none)}"] if none else []
    return f"assumed, because the source does not tell: {'; '.join(filter(None, said))}" if found else ""


def _read(form: Form) -> Iterator[str]:
    """Every key on which facts, settings, directions, data orders and maps of a form depend, and what it requires."""
    for table in (form.facts, form.settings, form.data, form.only, form.maps):
        for cases in table.values():
            yield from keys_of(cases)
    yield from (key for key, _, _ in form.require)


def keys_of(cases: Cases) -> Iterator[str]:
    """Every key on which a conditional entry depends."""
    for case in cases:
        yield from case.when
        if isinstance(case.value, Reading):
            yield case.value.config
        elif isinstance(case.value, MapSpec):
            yield from case.value.keys


def shown_in_tensors(form: Form) -> set[str]:
    """Config keys that show in which tensors a file has, or in their shapes."""
    return {key for spec in form.tensors for case in spec.cases for key in case.when}
