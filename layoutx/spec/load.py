"""A spec file to frozen objects. Unknown keys and wrong shapes of values are errors with file and line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from layoutx.errors import LayoutSyntaxError, LayoutxError, SpecError, raise_all
from layoutx.lang.parse import parse, parse_dims
from layoutx.lang.tree import Dim
from layoutx.spec.schema import (
    Case,
    Cases,
    FactKind,
    Form,
    Framework,
    Gauge,
    Kind,
    Reading,
    Role,
    TensorSpec,
    When,
)
from layoutx.spec.strict import Lines, load_yaml

_KIND_KEYS = ("kind", "about", "axes", "spread", "roles", "gauge", "facts", "settings", "forms")
_FORM_KEYS = (
    "about", "source", "rank", "extends", "config", "ignore", "sizes", "only", "pin", "equal", "names", "each",
    "modules", "require", "facts", "settings", "data", "tensors",
)  # fmt: skip
_MERGED = ("config", "sizes", "only", "pin", "equal", "names", "modules", "require", "facts", "settings", "data")


class Place:
    """A file being read, for errors that name file and line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def error(self, line: int, what: str, do: str = "") -> SpecError:
        return SpecError(what, where=f"{self.name}:{line}", do=do)

    def keys(self, mapping: Lines, allowed: Iterable[str], what: str) -> None:
        """Refuse keys that mean nothing here."""
        known = tuple(allowed)
        for key in mapping:
            if key not in known:
                raise self.error(mapping.lines[key], f"{what} has no key {key!r}", f"it may have {', '.join(known)}")

    def mapping(self, owner: Lines, key: str) -> Lines:
        """The mapping under a key; an empty one where the key is missing."""
        value = owner.get(key)
        if value is None:
            return Lines(owner.line)
        if not isinstance(value, Lines):
            raise self.error(owner.lines[key], f"{key!r} is a mapping")
        return value

    def dims(self, text: Any, line: int) -> tuple[Dim, ...]:
        if not isinstance(text, str):
            raise self.error(line, f"layout dims are a quoted text, not {text!r}")
        try:
            return parse_dims(text)
        except LayoutSyntaxError as error:
            raise SpecError(error.what, where=(f"{self.name}:{line}", *error.where), do=error.do) from error


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
        int(rank): tuple(str(text).split()) for rank, text in place.mapping(document, "spread").items() if rank.isdigit()
    }
    facts = {name: _fact_kind(value, place, document) for name, value in place.mapping(document, "facts").items()}
    kind = str(document["kind"])
    forms: dict[str, Form] = {}
    problems: list[LayoutxError] = []
    raw = place.mapping(document, "forms")
    for name in raw:
        try:
            for form in _forms(kind, name, raw, place):
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
            raise place.error(axes.lines[axis], f"the axis {axis} is a mapping of labels, or the axis whose size it has")
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
    return Gauge(tuple(map(str, entry["sum"])), labels, _when(entry, place))


def _fact_kind(value: Any, place: Place, document: Lines) -> FactKind:
    if isinstance(value, Lines):
        place.keys(value, ("default", "why"), "a fact")
        return FactKind(value.get("default"), str(value.get("why", "")))
    return FactKind(value)


def _when(owner: Lines, place: Place) -> When:
    found = place.mapping(owner, "when")
    return {key: _listed(value) for key, value in found.items()}


def _listed(value: Any) -> tuple[Any, ...]:
    return tuple(tuple(v) if isinstance(v, list) else v for v in value) if isinstance(value, list) else (value,)


def _cases(value: Any, place: Place, line: int, convert: Any) -> Cases:
    """A constant, one `{is, when}`, or a list of them."""
    entries = value if isinstance(value, list) and value and all(_is_case(v) for v in value) else [value]
    cases = []
    for entry in entries:
        if _is_case(entry):
            extra = set(entry) - {"is", "when", "optional", "dtype", "dims_from"}
            if extra:
                raise place.error(entry.line, f"a case has no key {sorted(extra)[0]!r}", "it may have is, when")
            cases.append(Case(convert(entry["is"], entry.line), _when(entry, place)))
        else:
            cases.append(Case(convert(entry, line)))
    return tuple(cases)


def _is_case(value: Any) -> bool:
    return isinstance(value, Lines) and "is" in value


def _merged(name: str, raw: Lines, place: Place, seen: tuple[str, ...] = ()) -> Lines:
    """A form's own keys over those of the form it extends."""
    own = raw[name]
    if not isinstance(own, Lines):
        raise place.error(raw.lines[name], f"the form {name} is a mapping")
    place.keys(own, _FORM_KEYS, f"the form {name}")
    base_name = own.get("extends")
    if base_name is None:
        return own
    if base_name not in raw or base_name in seen:
        raise place.error(own.lines["extends"], f"{name} extends {base_name}, which is not another form of this file")
    merged = Lines(own.line)
    for source in (_merged(base_name, raw, place, (*seen, name)), own):
        for key, value in source.items():
            if key in _MERGED and isinstance(value, Lines) and isinstance(merged.get(key), Lines):
                joined = Lines(value.line)
                for part in (merged[key], value):
                    joined.update(part)
                    joined.lines.update(part.lines)
                value = joined
            merged[key] = value
            merged.lines[key] = source.lines[key]
    return merged


def _forms(kind: str, name: str, raw: Lines, place: Place) -> list[Form]:
    body = _merged(name, raw, place)
    line = raw.lines[name]
    if "." not in name:
        raise place.error(line, f"the form {name!r} is <framework>.<class>")
    ranks = raw[name].get("rank", body.get("rank") if "{N}" in name else None)
    if "{N}" in name and not isinstance(ranks, list):
        raise place.error(line, f"{name} needs `rank: [..]`, the numbers of spatial axes")
    variants = [(name.replace("{N}", str(n)), n) for n in ranks] if "{N}" in name else [(name, ranks)]
    return [_form(kind, full, rank, body, place, line) for full, rank in variants]


def _form(kind: str, name: str, rank: int | None, body: Lines, place: Place, line: int) -> Form:
    sub = Substitution(rank)
    return Form(
        name=name,
        kind=kind,
        about=str(body.get("about", "")),
        source=str(body.get("source", "")),
        rank=rank,
        config=dict(place.mapping(body, "config")),
        ignore=frozenset(map(str, body.get("ignore") or ())),
        sizes=_sizes(place.mapping(body, "sizes"), place),
        only=_each_case(place.mapping(body, "only"), place, lambda v, _: tuple(map(str, v))),
        pin=_each_case(place.mapping(body, "pin"), place, lambda v, _: v),
        equal=_each_case(place.mapping(body, "equal"), place, lambda v, _: v),
        names={axis: {k: str(v) for k, v in m.items()} for axis, m in place.mapping(body, "names").items()},
        each=str(body.get("each", "")),
        modules={k: sub.name(str(v)) for k, v in place.mapping(body, "modules").items()},
        require=_require(place.mapping(body, "require"), place),
        facts=_each_case(place.mapping(body, "facts"), place, lambda v, at: _reading(v, place)),
        settings=_each_case(place.mapping(body, "settings"), place, lambda v, _: _reading(v, place)),
        data=_data(place.mapping(body, "data"), place),
        tensors=_tensors(place.mapping(body, "tensors"), place),
        line=line,
        file=place.name,
    )


class Substitution:
    """`{N}` in the names of a form's modules becomes its rank."""

    def __init__(self, rank: int | None) -> None:
        self.rank = rank

    def name(self, text: str) -> str:
        return text.replace("{N}", str(self.rank))


def _each_case(mapping: Lines, place: Place, convert: Any) -> dict[str, Cases]:
    return {key: _cases(value, place, mapping.lines[key], convert) for key, value in mapping.items()}


def _sizes(mapping: Lines, place: Place) -> tuple[tuple[str, Dim | tuple[Dim, ...]], ...]:
    """Config key = one dimension, or as many as the text has (`kernel_size: "..."`)."""
    found: list[tuple[str, Dim | tuple[Dim, ...]]] = []
    for key, value in mapping.items():
        for text in value if isinstance(value, list) else [value]:
            dims = place.dims(text, mapping.lines[key])
            found.append((key, dims[0] if len(dims) == 1 and text != "..." else dims))
    return tuple(found)


def _require(mapping: Lines, place: Place) -> tuple[tuple[str, tuple[Any, ...], str], ...]:
    found = []
    for key, value in mapping.items():
        why = ""
        if isinstance(value, Lines):
            place.keys(value, ("is", "why"), "a requirement")
            why, value = str(value.get("why", "")), value["is"]
        found.append((key, _listed(value), why))
    return tuple(found)


def _reading(value: Any, place: Place) -> Any:
    if isinstance(value, Lines):
        place.keys(value, ("config", "values", "complement", "note"), "a reading of a config")
        values: Mapping[str, Any] = dict(place.mapping(value, "values"))
        return Reading(str(value["config"]), values, bool(value.get("complement", False)), str(value.get("note", "")))
    return value


def _data(mapping: Lines, place: Place) -> dict[str, Cases]:
    return _each_case(mapping, place, place.dims)


def _tensors(mapping: Lines, place: Place) -> tuple[TensorSpec, ...]:
    def layout(text: Any, line: int) -> Any:
        if not isinstance(text, str):
            raise place.error(line, f"a layout is a quoted text, not {text!r}")
        try:
            return parse(text)
        except LayoutSyntaxError as error:
            raise SpecError(error.what, where=(f"{place.name}:{line}", *error.where), do=error.do) from error

    found = []
    for name, value in mapping.items():
        entries = [e for e in (value if isinstance(value, list) else [value]) if isinstance(e, Lines)]
        optional = any(bool(e.get("optional", False)) for e in entries)
        dtype, dims_from = (next((str(e[key]) for e in entries if key in e), "") for key in ("dtype", "dims_from"))
        found.append(TensorSpec(name, _cases(value, place, mapping.lines[name], layout), optional, dtype, dims_from))
    return tuple(found)
