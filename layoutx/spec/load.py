"""A spec file to frozen objects. Unknown keys and wrong shapes of values are errors with file and line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from layoutx.errors import LayoutxError, SpecError, raise_all
from layoutx.spec.forms import forms_of
from layoutx.spec.pieces import Place, when_of
from layoutx.spec.schema import FactKind, Form, Framework, Gauge, Kind, Role
from layoutx.spec.strict import Lines, load_yaml

_KIND_KEYS = ("kind", "about", "axes", "spread", "roles", "gauge", "facts", "settings", "forms")


def load_spec(path: Path) -> Kind | Framework:
    """Read one spec file, a kind or a framework.

    Raises:
        SpecError: with file and line; several problems are shown together.
    """
    try:
        text = path.read_text(encoding="utf-8")
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
    place.keys(document, ("framework", "ignore", "classes", "channels"), "a framework")
    return Framework(
        str(document["framework"]),
        frozenset(map(str, document.get("ignore") or ())),
        dict(place.mapping(document, "classes")),
        str(document.get("channels", "last")),
    )


def _kind(document: Lines, place: Place, digest: str) -> Kind:
    place.keys(document, _KIND_KEYS, "a kind")
    labels, same = _axes(place.mapping(document, "axes"), place)
    roles_map = place.mapping(document, "roles")
    roles = {name: _role(name, roles_map, place) for name in roles_map}
    spread = {
        int(rank): tuple(str(text).split())
        for rank, text in place.mapping(document, "spread").items()
        if rank.isdigit()
    }
    facts = {name: _fact_kind(value, place, document) for name, value in place.mapping(document, "facts").items()}
    kind = str(document["kind"])
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
        str(document.get("about", "")),
        roles,
        forms,
        labels,
        same,
        spread,
        tuple(_gauge(entry, place, document) for entry in document.get("gauge") or ()),
        facts,
        {key: str(value) for key, value in place.mapping(document, "settings").items()},
        place.name,
        digest,
    )


def _axes(axes: Lines, place: Place) -> tuple[dict[str, dict[str, tuple[str, ...]]], dict[str, str]]:
    labels: dict[str, dict[str, tuple[str, ...]]] = {}
    same: dict[str, str] = {}
    for axis, value in axes.items():
        if isinstance(value, str):
            same[axis] = value
        elif isinstance(value, Lines):
            labels[axis] = {label: tuple(map(str, aliases or ())) for label, aliases in value.items()}
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
    place.keys(value, ("axes", "absent", "dtype", "drop", "state", "about"), f"the role {name}")
    absent = str(value.get("absent", ""))
    if absent not in ("", "zeros", "ones"):
        raise place.error(value.lines["absent"], "an absent role is `zeros` or `ones`")
    return Role(
        name,
        place.dims(value["axes"], value.lines["axes"]),
        absent,
        str(value.get("dtype", "")),
        str(value.get("drop", "")),
        bool(value.get("state", False)),
        str(value.get("about", "")),
    )


def _gauge(entry: Any, place: Place, document: Lines) -> Gauge:
    if not isinstance(entry, Lines) or not isinstance(entry.get("sum"), list):
        raise place.error(document.lines["gauge"], "a gauge is {sum: [role, role]}")
    place.keys(entry, ("sum", "labels", "when"), "a gauge")
    labels = {axis: tuple(map(str, names)) for axis, names in place.mapping(entry, "labels").items()}
    return Gauge(tuple(map(str, entry["sum"])), labels, when_of(entry, place))


def _fact_kind(value: Any, place: Place, document: Lines) -> FactKind:
    if isinstance(value, Lines):
        place.keys(value, ("default", "why"), "a fact")
        return FactKind(value.get("default"), str(value.get("why", "")))
    return FactKind(value)
