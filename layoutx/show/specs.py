"""The registry for people: kinds and forms side by side, one kind in full, and what the lint says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from layoutx.errors import UsageError
from layoutx.lang.show import show, show_dims
from layoutx.lang.tree import Layout
from layoutx.show.side_by_side import FormRow, bare_text, changes_of, families, rows, when_text
from layoutx.show.tables import Cell, Line, Note, clean, grid, plural, prose, row
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Cases, Form, Kind, Reading, Role, TensorSpec
from layoutx.words import near

if TYPE_CHECKING:
    from layoutx.errors import LayoutxError

FIRST = ("keras", "torch", "onnx")  # frameworks in this order, others behind them by name


def frameworks(known: Registry) -> list[str]:
    """All frameworks that have a form."""
    found = {form.framework for form in known.forms.values()}
    return [name for name in FIRST if name in found] + sorted(found - set(FIRST))


def kinds_dict(known: Registry) -> dict[str, Any]:
    """Kind -> framework -> forms."""
    return {
        kind.name: {f: [form.name for form in known.forms_of(kind.name, f, by_class=True)] for f in frameworks(known)}
        for kind in known.kinds.values()
    }


def kinds_text(known: Registry, width: int = 99, color: bool = False) -> str:
    """A table of kinds by frameworks; those beside the first three stand in a line below."""
    main = [name for name in frameworks(known) if name in FIRST]
    lines: list[Line] = []
    for kind in known.kinds.values():
        columns = [
            "\n".join(clean(form.name) for form in known.forms_of(kind.name, name, by_class=True)) for name in main
        ]
        lines.append(row(Cell(clean(kind.name), "head"), *(text or "–" for text in columns)))
        others = [clean(form.name) for form in kind.forms.values() if form.framework not in main]
        if others:
            lines.append(Note(f"also {', '.join(others)}", 6, "dim"))
    counts = f"{plural(len(known.kinds), 'kind')}, {plural(len(known.forms), 'form')}"
    top = f"{counts}; `layoutx specs show KIND` shows one in full"
    return prose(top, width, color) + "\n\n" + grid(["kind", *main], lines, width, color)


def kind_of(known: Registry, name: str) -> Kind:
    """A kind by its name or by the name of one of its forms.

    Raises:
        UsageError: there is none, with the nearest names.
    """
    if name in known.kinds:
        return known.kinds[name]
    if name in known.forms:
        return known.kind_of(name)
    why = near(name, [*known.kinds, *known.forms]) or f"the kinds are {', '.join(known.kinds)}"
    raise UsageError(f"no kind or form is called {name!r}", why=why, do="`layoutx specs` lists all of them")


def kind_dict(kind: Kind) -> dict[str, Any]:
    """One kind in full, as JSON."""
    return {
        "kind": kind.name,
        "about": kind.about,
        "spec": kind.digest,
        "roles": {
            r.name: {"axes": show_dims(r.axes), "absent": r.absent, "state": r.state, "about": r.about}
            for r in kind.roles.values()
        },
        "facts": {name: {"default": fact.default, "why": fact.why} for name, fact in kind.facts.items()},
        "settings": dict(kind.settings),
        "forms": {form.name: _form_dict(form) for form in kind.forms.values()},
    }


def _form_dict(form: Form) -> dict[str, Any]:
    return {
        "about": form.about,
        "source": form.source,
        "witness": _witness(form),
        "tensors": {
            spec.name: [{"layout": _layout(case.value), "when": _plain(case.when)} for case in spec.cases]
            for spec in form.tensors
        },
        "optional": [spec.name for spec in form.tensors if spec.optional],
        "config": _plain(form.config),
        "data": {name: [_layout(case.value) for case in cases] for name, cases in form.data.items()},
        "facts": {name: case_texts(cases) for name, cases in form.facts.items()},
        "settings": {name: case_texts(cases) for name, cases in form.settings.items()},
        "maps": list(changes_of(form)),
        "history": list(form.history),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def kind_text(kind: Kind, width: int = 99, color: bool = False) -> str:
    """One kind: its roles, every framework side by side, then defaults and sources form by form."""
    known = rows(kind)
    biased = any(found.biases for found in known)
    heads = ["form", "kernels (× one dimension, - reversed)", "biases" if biased else "others", "order"]
    parts = [
        prose(f"{kind.name}: {clean(kind.about, 600)}", width, color, "head"),
        grid(["role", "axes", "if absent", ""], (_role(role) for role in kind.roles.values()), width, color),
        grid(heads, (_side(*named) for named in families(known)), width, color),
        prose("○ declared: no output of the framework stands behind it yet.", width, color, "dim", 2),
        grid(["form", "defaults, state, source"], (_origin(*named) for named in families(known)), width, color),
    ]
    about = list(_meanings(kind))
    if about:
        parts.append(grid(["", ""], about, width, color))
    parts.append(prose(f"`layoutx specs show {known[0].form.name}` shows one form in full.", width, color))
    return "\n\n".join(parts)


def _side(name: str, found: FormRow) -> Line:
    name = f"{clean(name)}{'' if found.state != 'declared' else ' ○'}"
    columns = ["\n".join(map(clean, texts)) for texts in (found.kernels, found.others)]
    return row(Cell(name, "head"), columns[0] or "nothing", columns[1] or bare_text(found), found.order)


def _origin(name: str, found: FormRow) -> Line:
    changes = f"while it runs: {found.changes}" if found.changes else ""
    texts = [found.defaults, changes, found.state, clean(found.form.source, 400)]
    return row(Cell(clean(name), "head"), Cell("; ".join(filter(None, texts)), "dim"))


def form_text(kind: Kind, form: Form, width: int = 99, color: bool = False) -> str:
    """One form in full: every tensor with its layout in every case, facts, settings, history, source."""
    one = replace(kind, forms={form.name: form})
    parts = [
        prose(f"{form.name} ({kind.name}): {clean(kind.about, 600)}", width, color, "head"),
        grid(["role", "axes", "if absent", ""], (_role(role) for role in kind.roles.values()), width, color),
        grid(["form, tensor", "layout", "stored when"], _form_rows(one), width, color),
    ]
    return "\n\n".join(parts)


def _role(role: Role) -> Line:
    absent = role.absent or ("" if not role.drop else "no matter")
    about = "; ".join(filter(None, ["state" if role.state else "", clean(role.about)]))
    return row(Cell(role.name, _style(role.name, role.state)), show_dims(role.axes), absent, Cell(about, "dim"))


def _style(name: str, state: bool = False) -> str:
    if state:
        return "state"
    return "recurrent" if "recurrent" in name else "bias" if name.startswith("b") else "kernel"


def _form_rows(kind: Kind) -> Iterator[Line]:
    for form in kind.forms.values():
        yield Note(f"{clean(form.name)}  {clean(form.about, 400)}".strip(), 2, "head")
        for spec in form.tensors:
            for at, case in enumerate(spec.cases):
                name = Cell(f"  {clean(spec.name)}" if at == 0 else "", _style(spec.name))
                yield row(name, _layout(case.value), Cell(_when(spec, case.when), "dim"))
        for text in _about(form):
            yield Note(text, 6, "dim")


def _about(form: Form) -> Iterator[str]:
    wanted = [f"{when_text({key: values})}" for key, values, _ in form.require]
    if wanted:
        yield clean(f"only for {', '.join(wanted)}", 400)
    yield from (clean(f"while it runs: {change}", 400) for change in changes_of(form))
    for label, table in (("fact", form.facts), ("setting", form.settings)):
        for name, cases in table.items():
            yield clean(f"{label} {name}: {' | '.join(case_texts(cases))}", 400)
    yield from (clean(f"when it is called: {text} ({name})", 400) for name, text in form.calls.items())
    yield from (clean(f"history: {line}", 400) for line in form.history)
    yield clean(f"{_witness(form)}; {form.source}" if form.source else _witness(form), 400)


def _witness(form: Form) -> str:
    from layoutx.show.report_lines import witness_of

    return witness_of(form.name)


def case_texts(cases: Cases) -> list[str]:
    """Each case in words: `tanh`, `activation of the config`, `hard_sigmoid_1/6 where activation=hard_sigmoid`."""
    texts = []
    for case in cases:
        value = case.value
        if isinstance(value, Reading):
            text = f"{'1 - ' if value.complement else ''}{value.config} of the config"
        else:
            text = _layout(value)
        when = when_text(case.when)
        texts.append(f"{text} where {when}" if when else text)
    return texts


def _when(spec: TensorSpec, when: Mapping[str, tuple[Any, ...]]) -> str:
    texts = [when_text(when)] if when else []
    texts += ["optional"] if spec.optional else []
    texts += [spec.dtype] if spec.dtype else []
    texts += [f"order from {spec.dims_from}"] if spec.dims_from else []
    return ", ".join(texts)


def _layout(value: Any) -> str:
    if isinstance(value, Layout):
        return show(value)
    if isinstance(value, tuple):
        try:
            return show_dims(value)
        except (AttributeError, TypeError):
            return " ".join(map(str, value))
    return str(value)


def _meanings(kind: Kind) -> Iterator[Line]:
    for name, fact in kind.facts.items():
        text = f"usually {fact.default}; both sides must agree{f': otherwise {fact.why}' if fact.why else ''}"
        yield row(f"fact {name}", clean(text, 400))
    for name, about in kind.settings.items():
        yield row(f"setting {name}", clean(about, 400))


def checked_text(known: Registry, problems: list[LayoutxError]) -> str:
    """What the lint found; "N kinds, M forms: no problems"."""
    counts = f"{plural(len(known.kinds), 'kind')}, {plural(len(known.forms), 'form')}"
    if not problems:
        return f"{counts}: no problems"
    from layoutx.show.errors import error_text

    return "\n".join([f"{counts}: {plural(len(problems), 'problem')}", *map(error_text, problems)])
