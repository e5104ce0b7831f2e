"""Pieces of a spec file: keys checked, conditions and readings told from constants, each error with its line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from layoutx.errors import LayoutSyntaxError, SpecError
from layoutx.lang.parse import parse_dims
from layoutx.lang.tree import Dim
from layoutx.spec.schema import Case, Cases, Reading, When
from layoutx.spec.strict import Lines


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


def when_of(owner: Lines, place: Place) -> When:
    found = place.mapping(owner, "when")
    return {key: listed(value) for key, value in found.items()}


def listed(value: Any) -> tuple[Any, ...]:
    return tuple(tuple(v) if isinstance(v, list) else v for v in value) if isinstance(value, list) else (value,)


def cases_of(value: Any, place: Place, line: int, convert: Any) -> Cases:
    """A constant, one `{is, when}`, or a list of them."""
    entries = value if isinstance(value, list) and value and all(is_case(v) for v in value) else [value]
    cases = []
    for entry in entries:
        if is_case(entry):
            extra = set(entry) - {"is", "when", "optional", "dtype", "dims_from"}
            if extra:
                raise place.error(entry.line, f"a case has no key {sorted(extra)[0]!r}", "it may have is, when")
            cases.append(Case(convert(entry["is"], entry.line), when_of(entry, place)))
        else:
            cases.append(Case(convert(entry, line)))
    return tuple(cases)


def is_case(value: Any) -> bool:
    return isinstance(value, Lines) and "is" in value


def each_case(mapping: Lines, place: Place, convert: Any) -> dict[str, Cases]:
    return {key: cases_of(value, place, mapping.lines[key], convert) for key, value in mapping.items()}


def reading_of(value: Any, place: Place) -> Any:
    if isinstance(value, Lines):
        place.keys(value, ("config", "values", "complement", "note"), "a reading of a config")
        values: Mapping[str, Any] = dict(place.mapping(value, "values"))
        return Reading(str(value["config"]), values, bool(value.get("complement", False)), str(value.get("note", "")))
    return value
