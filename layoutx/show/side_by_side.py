"""One kind, all frameworks side by side: what each stores, in which shape and order, with which biases and defaults."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from layoutx.frozen import frozen
from layoutx.lang.show import show
from layoutx.lang.tree import Layout, Sum, roles_of, walk
from layoutx.plan.naming import dim_name
from layoutx.spec.schema import Cases, Form, Kind, Others, Reading, TensorSpec, choose


@frozen
class TensorRow:
    """One stored tensor: its name, its shape with named axes, its layout, and when it is there or laid out so."""

    name: str
    shape: str
    layout: str
    when: str


@frozen
class FormRow:
    """What a reader compares between frameworks.

    Attributes:
        tensors: all of them, in every case.
        kernels, others: those that the defaults store, as `kernel (input, gate×hidden)`; others: biases, scales, state.
        order: labels in the stored order, as the framework spells them (`i f c o`); "by name" where names tell.
        biases: `input, recurrent`: which biases can be stored; `none`; "" for a kind without biases.
        defaults: what decides or changes the function, as the framework sets it when nobody says otherwise.
        changes: how the stored numbers differ from those of the kind: `b_input.f + forget_bias`.
    """

    form: Form
    tensors: tuple[TensorRow, ...]
    kernels: tuple[str, ...]
    others: tuple[str, ...]
    order: str
    biases: str
    defaults: str
    changes: str
    state: str


def rows(kind: Kind) -> list[FormRow]:
    """Every form of a kind, in the spec's order."""
    return [_row(kind, form) for form in kind.forms.values()]


def bare_text(found: FormRow) -> str:
    """What to say of biases where the defaults store none."""
    return "none by default" if found.biases not in ("", "none") else found.biases


def families(found: Sequence[FormRow]) -> list[tuple[str, FormRow]]:
    """Rows under their names, with forms that differ in their rank only as one: `torch.Conv{1,2,3}d`."""
    groups: dict[tuple[str, tuple[str, ...], tuple[str, ...], str], list[FormRow]] = {}
    for row in found:
        template = re.sub(r"[123](?=[dD])", "{}", row.form.name) if row.form.rank else row.form.name
        groups.setdefault((template, row.kernels, row.others, row.defaults), []).append(row)
    named = []
    for (template, *_), rows_of in groups.items():
        ranks = ",".join(str(row.form.rank) for row in rows_of)
        name = rows_of[0].form.name if len(rows_of) == 1 else template.replace("{}", f"{{{ranks}}}")
        named.append((name, rows_of[0]))
    return named


def _row(kind: Kind, form: Form) -> FormRow:
    from layoutx.verify.witnesses import witnessed

    usual = [(spec, layout) for spec in form.tensors if (layout := choose(spec.cases, form.config)) is not None]
    needed = {name for name, role in kind.roles.items() if not role.absent and not role.state}
    kernels = [(spec, layout) for spec, layout in usual if needed & set(roles_of(layout))]
    return FormRow(
        form,
        tuple(row for spec in form.tensors for row in _tensors(spec)),
        tuple(_together(kernels)),
        tuple(_together([pair for pair in usual if pair not in kernels])),
        _order(kind, form),
        _biases(kind, form),
        ", ".join(f"{key}={value_text(form.config[key])}" for key in _decisive(form)),
        ", ".join(changes_of(form)),
        witnessed(form.name),
    )


def _tensors(spec: TensorSpec) -> Iterator[TensorRow]:
    seen = set()
    for case in spec.cases:
        shape, layout = shape_text(case.value), show(case.value)
        if layout not in seen:
            seen.add(layout)
            extra = [when_text(case.when)] if case.when else []
            extra += ["optional"] if spec.optional else []
            extra += [f"order from {spec.dims_from}"] if spec.dims_from else []
            yield TensorRow(spec.name, shape, layout, ", ".join(extra))


def _together(found: Sequence[tuple[TensorSpec, Layout]]) -> Iterator[str]:
    """`W_{i c f o} (input, hidden)`: names that differ in one place only and have one shape stand in one line."""
    by_shape: dict[str, list[str]] = {}
    for spec, layout in found:
        by_shape.setdefault(shape_text(layout), []).append(spec.name)
    for shape, names in by_shape.items():
        head = _shared(names)
        tail = _shared([name[len(head) :][::-1] for name in names])[::-1]
        middles = [name[len(head) : len(name) - len(tail)] for name in names]
        if len(names) > 2 and head + tail and all(len(middle) < 4 for middle in middles):
            yield f"{head}{{{' '.join(middles)}}}{tail} {shape}"
        else:
            yield from (f"{name} {shape}" for name in names)


def _shared(names: Sequence[str]) -> str:
    """The letters that all names begin with."""
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in same)


def shape_text(layout: Layout) -> str:
    """`(input, gate×hidden)`: the stored dimensions by name; × is one dimension, + end to end."""
    return f"({', '.join(map(dim_name, layout.dims))})"


def _layouts(form: Form) -> Iterator[tuple[TensorSpec, Layout]]:
    """Each tensor in the layout that it has by default, or in the first of its layouts."""
    for spec in form.tensors:
        yield spec, choose(spec.cases, form.config) or spec.cases[0].value


def _order(kind: Kind, form: Form) -> str:
    found: dict[str, None] = {}
    for spec, layout in _layouts(form):
        for axis in kind.labels:
            if axis != "direction" and f"{{{axis}}}" in spec.name:
                found["by name"] = None
        if layout.head is not None and layout.head.labels and len(form.tensors) > 1:
            found["by name"] = None
        for node in walk(layout.dims):
            if (
                isinstance(node, Sum)
                and node.axis in kind.labels
                and node.axis != "direction"
                and len(node.options) > 1
            ):
                found[" ".join(_spelled(node, layout))] = None
    return ", ".join(found)


def _spelled(node: Sum, layout: Layout) -> list[str]:
    """Labels as the spec wrote them for this framework: Keras says c where torch says g."""
    texts = [layout.text[slice(*option.span)] for option in node.options]
    return [
        ("-" if option.negated else "") + (text if text.isidentifier() else option.label)
        for option, text in zip(node.options, texts, strict=True)
    ]


def _biases(kind: Kind, form: Form) -> str:
    names = [
        name for name, role in kind.roles.items() if role.absent == "zeros" and name.startswith("b") and name != "beta"
    ]
    if not names:
        return ""
    labels: dict[str, list[str]] = {}
    for _, layout in _layouts(form):
        head = layout.head
        for name in roles_of(layout):
            if name in names:
                labels.setdefault(name, []).extend(head.labels if head else ())
    texts = [name.removeprefix("b_") + (f" {' '.join(found)}" if found else "") for name, found in labels.items()]
    return ", ".join(texts) or "none"


def _decisive(form: Form) -> list[str]:
    """Config keys that facts and settings are read from, and that decide what is stored; those with a default."""
    keys: dict[str, None] = {}
    tables: list[Cases] = [*form.facts.values(), *form.settings.values(), *(spec.cases for spec in form.tensors)]
    for case in (case for cases in tables for case in cases):
        if isinstance(case.value, Reading):
            keys[case.value.config] = None
        keys.update(dict.fromkeys(case.when))
    keys.update(dict.fromkeys(key for cases in form.maps.values() for case in cases for key in case.value.keys))
    return [key for key in keys if form.config.get(key) is not None and key != "version"]


def changes_of(form: Form) -> Iterator[str]:
    """How the stored numbers differ from those of the kind: `b_input.f + forget_bias`."""
    words = {"add": "+", "times": "×", "power": "^"}
    for pattern, cases in form.maps.items():
        for case in cases:
            when = f" if {when_text(case.when)}" if case.when else ""
            name = f"({pattern} + {case.value.shift})" if case.value.shift else pattern
            yield f"{name} {words[case.value.operation]} {case.value.amount}{when}"


def value_text(value: Any) -> str:
    """A config value in a word."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(value_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def when_text(when: Mapping[str, tuple[Any, ...]]) -> str:
    """`use_bias=True, proj_size other than 0`: a condition in words."""
    return ", ".join(f"{key} {_or(v)}" if isinstance(v, Others) else f"{key}={_or(v)}" for key, v in when.items())


def _or(values: tuple[Any, ...]) -> str:
    shown = [value_text(value) for value in tuple(values)[:3]]
    text = " or ".join([*shown, *(["..."] if len(values) > 3 else [])])
    return f"other than {text}" if isinstance(values, Others) else text
