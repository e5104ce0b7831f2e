"""The forms of a spec file: inheritance, one form a rank, and each key in its own type."""

from __future__ import annotations

from typing import Any

from layoutx.errors import LayoutSyntaxError, SpecError
from layoutx.lang.parse import parse
from layoutx.lang.tree import Dim
from layoutx.spec.pieces import Place, cases_of, each_case, listed, reading_of
from layoutx.spec.schema import Cases, Form, TensorSpec
from layoutx.spec.strict import Lines

_FORM_KEYS = (
    "about", "source", "rank", "extends", "config", "ignore", "sizes", "only", "pin", "equal", "names", "each",
    "modules", "require", "facts", "settings", "data", "tensors",
)  # fmt: skip
_MERGED = ("config", "sizes", "only", "pin", "equal", "names", "modules", "require", "facts", "settings", "data")


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


def forms_of(kind: str, name: str, raw: Lines, place: Place) -> list[Form]:
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
        only=each_case(place.mapping(body, "only"), place, lambda v, _: tuple(map(str, v))),
        pin=each_case(place.mapping(body, "pin"), place, lambda v, _: v),
        equal=each_case(place.mapping(body, "equal"), place, lambda v, _: v),
        names={axis: {k: str(v) for k, v in m.items()} for axis, m in place.mapping(body, "names").items()},
        each=str(body.get("each", "")),
        modules={k: sub.name(str(v)) for k, v in place.mapping(body, "modules").items()},
        require=_require(place.mapping(body, "require"), place),
        facts=each_case(place.mapping(body, "facts"), place, lambda v, at: reading_of(v, place)),
        settings=each_case(place.mapping(body, "settings"), place, lambda v, _: reading_of(v, place)),
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
        found.append((key, listed(value), why))
    return tuple(found)


def _data(mapping: Lines, place: Place) -> dict[str, Cases]:
    return each_case(mapping, place, place.dims)


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
        found.append(TensorSpec(name, cases_of(value, place, mapping.lines[name], layout), optional, dtype, dims_from))
    return tuple(found)
