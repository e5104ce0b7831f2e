"""A spec file to frozen objects. Unknown keys and wrong shapes of values are errors with file and line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from layoutx.errors import LayoutxError, SpecError, raise_all
from layoutx.spec.forms import forms_of
from layoutx.spec.pieces import Place, cases_of, text_of, when_of
from layoutx.spec.schema import FactKind, Form, Framework, Gauge, Kind, Role, Words
from layoutx.spec.strict import Lines, file_text, load_yaml

_KIND_KEYS = ("kind", "about", "axes", "spread", "roles", "gauge", "facts", "settings", "words", "index", "forms")


_ROLE_KEYS = ("axes", "absent", "dtype", "drop", "state", "about", "optional", "view", "called")


def load_spec(path: Path) -> Kind | Framework:
    """Read one spec file, a kind or a framework.

    Raises:
        SpecError: with file and line; several problems are shown together.
    """
    try:
        text = file_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError("the spec file cannot be read", where=str(path), why=str(error)) from error
    return parse_spec(text, str(path))


def parse_spec(text: str, name: str) -> Kind | Framework:
    """Read the text of one spec file; `name` is what errors call it."""
    document = load_yaml(text, name)
    place = Place(name)
    if "framework" in document:
        return _framework(document, place)
    if "kind" not in document:
        raise place.error(1, "a spec file says `kind:` or `framework:`")
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return _kind(document, place, digest)


def _framework(document: Lines, place: Place) -> Framework:
    place.keys(document, ("framework", "ignore", "classes", "channels", "refuse"), "a framework")
    channels = place.text(document, "channels", "last")
    if channels not in ("first", "last"):
        raise place.error(document.lines["channels"], "channels are `first` or `last`")
    ignore = place.words(document.get("ignore"), document.lines.get("ignore", 1))
    name, classes, refuse = (
        _name(document, "framework", place),
        *(place.texts(document, k) for k in ("classes", "refuse")),
    )
    return Framework(name, frozenset(ignore), classes, channels, refuse)


def _name(document: Lines, key: str, place: Place) -> str:
    name = place.text(document, key)
    if not name:
        raise place.error(document.lines[key], f"a {key} has a name")
    return name


def _kind(document: Lines, place: Place, digest: str) -> Kind:
    place.keys(document, _KIND_KEYS, "a kind")
    labels, same = _axes(place.mapping(document, "axes"), place)
    roles_map = place.mapping(document, "roles")
    roles = {name: _role(name, roles_map, place) for name in roles_map}
    facts = {name: _fact_kind(value, place) for name, value in place.mapping(document, "facts").items()}
    gauge = document.get("gauge") or []
    if not isinstance(gauge, list):
        raise place.error(document.lines["gauge"], "`gauge` is a list: [{sum: [role, role]}]")
    kind = _name(document, "kind", place)
    forms: dict[str, Form] = {}
    problems: list[LayoutxError] = []
    raw = place.mapping(document, "forms")
    for name in raw:
        try:
            for form in forms_of(kind, name, raw, place):
                if form.name in forms:
                    raise place.error(raw.lines[name], f"the form {form.name} is described twice")
                forms[form.name] = form
        except SpecError as error:
            problems.append(error)
    raise_all(problems, f"{place.name} has problems")
    return Kind(
        kind,
        place.text(document, "about"),
        roles,
        forms,
        labels,
        same,
        _spread(place.texts(document, "spread"), place, document),
        tuple(_gauge(entry, place, document) for entry in gauge),
        facts,
        place.texts(document, "settings"),
        place.name,
        digest,
        {axis: _words(value, place) for axis, value in place.mapping(document, "words").items()},
        {name: tuple(text.split()) for name, text in place.texts(document, "index").items()},
    )


def _spread(spread: dict[str, str], place: Place, document: Lines) -> dict[int, tuple[str, ...]]:
    """Number of spatial axes -> their names."""
    lines = place.mapping(document, "spread").lines
    for rank, names in spread.items():
        if not rank.isdecimal() or len(names.split()) != int(rank):
            raise place.error(lines[rank], f"spread {rank} is a number, and the names of so many axes: {names!r}")
    return {int(rank): tuple(names.split()) for rank, names in spread.items()}


def _axes(axes: Lines, place: Place) -> tuple[dict[str, dict[str, tuple[str, ...]]], dict[str, str]]:
    labels: dict[str, dict[str, tuple[str, ...]]] = {}
    same: dict[str, str] = {}
    for axis, value in axes.items():
        if isinstance(value, str):
            same[axis] = value
        elif isinstance(value, Lines):
            labels[axis] = {label: place.words(aliases, value.lines[label]) for label, aliases in value.items()}
        else:
            raise place.error(
                axes.lines[axis], f"the axis {axis} is a mapping of labels, or the axis whose size it has"
            )
    return labels, same


def _role(name: str, roles: Lines, place: Place) -> Role:
    value, line = roles[name], roles.lines[name]
    if isinstance(value, str):
        return Role(name, place.dims(value, line))
    if not isinstance(value, Lines) or "axes" not in value:
        raise place.error(line, f"the role {name} is its axes, or a mapping with `axes`")
    place.keys(value, _ROLE_KEYS, f"the role {name}")
    absent = place.text(value, "absent")
    if absent not in ("", "zeros", "ones"):
        raise place.error(value.lines["absent"], "an absent role is `zeros` or `ones`")
    return Role(
        name,
        place.dims(value["axes"], value.lines["axes"]),
        absent,
        place.dtype(value),
        place.text(value, "drop"),
        place.flag(value, "state"),
        place.text(value, "about"),
        place.text(value, "optional"),
        tuple(place.text(value, "view").split()),
        place.words(value.get("called"), value.lines.get("called", line)),
    )


def _gauge(entry: Any, place: Place, document: Lines) -> Gauge:
    if not isinstance(entry, Lines) or not isinstance(entry.get("sum"), list):
        raise place.error(document.lines["gauge"], "a gauge is {sum: [role, role]}")
    place.keys(entry, ("sum", "labels", "when"), "a gauge")
    found = place.mapping(entry, "labels")
    labels = {axis: place.words(names, found.lines[axis]) for axis, names in found.items()}
    return Gauge(place.words(entry["sum"], entry.lines["sum"]), labels, when_of(entry, place))


def _words(value: Any, place: Place) -> Words:
    """`inputs`, or {many, one, labels, computes}."""
    if isinstance(value, str):
        return Words(value, value.removesuffix("s"))
    if not isinstance(value, Lines):
        raise place.error(1, "`words` maps an axis to its name in the plural, or to {many, one, labels, computes}")
    place.keys(value, ("many", "one", "labels", "computes"), "the words of an axis")
    many = place.text(value, "many")
    one = place.text(value, "one", many.removesuffix("s"))
    found = place.mapping(value, "computes")
    computes = {
        label: cases_of(text, place, found.lines[label], lambda v, at: text_of(v, at, place))
        for label, text in found.items()
    }
    return Words(many, one, place.texts(value, "labels"), computes)


def _fact_kind(value: Any, place: Place) -> FactKind:
    if isinstance(value, Lines):
        place.keys(value, ("default", "why"), "a fact")
        return FactKind(value.get("default"), place.text(value, "why"))
    return FactKind(value)
