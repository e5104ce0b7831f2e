"""Pieces of a spec file: keys checked, conditions and readings told from constants, each error with its line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from layoutx.errors import LayoutSyntaxError, SpecError
from layoutx.lang.parse import parse_dims
from layoutx.lang.tree import Dim
from layoutx.spec.dtypes import named
from layoutx.spec.schema import Case, Cases, Others, Reading, When
from layoutx.spec.strict import Lines

Parsed = TypeVar("Parsed")


class Place:
    """A file being read, for errors that name file and line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def error(self, line: int, what: str, do: str = "") -> SpecError:
        """The error for a line of this file; the caller raises it."""
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

    def words(self, value: Any, line: int) -> tuple[str, ...]:
        """A list of texts; () where there is nothing. A bare text is refused, for it is a list of its letters."""
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise self.error(line, f"a list of words is needed, not {shown(value)}", "write [a, b]; numbers in quotes")
        return tuple(value)

    def text(self, owner: Lines, key: str, default: str = "") -> str:
        """The text under a key; `default` where the key is missing."""
        value = owner.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.error(owner.lines[key], f"{key!r} is a text, not {shown(value)}")
        return value

    def texts(self, owner: Lines, key: str) -> dict[str, str]:
        """The mapping of words to texts under a key."""
        found = self.mapping(owner, key)
        for name in found:
            if not isinstance(found[name], str):
                raise self.error(found.lines[name], f"{key}.{name} is a text, not {shown(found[name])}")
        return dict(found)

    def flag(self, owner: Lines, key: str) -> bool:
        """The boolean under a key; False where the key is missing."""
        value = owner.get(key, False)
        if not isinstance(value, bool):
            raise self.error(owner.lines[key], f"{key!r} is true or false, not {shown(value)}")
        return value

    def dtype(self, owner: Lines, key: str = "dtype") -> str:
        """The name of a numeric dtype under a key; "" where the key is missing."""
        name = self.text(owner, key)
        if name and named(name) is None:
            do = "write it as NumPy or ml_dtypes does: int64, float32, bfloat16"
            raise self.error(owner.lines[key], f"{name!r} is not a dtype of numbers", do)
        return name

    def dims(self, text: Any, line: int) -> tuple[Dim, ...]:
        """Layout dims without a head, as the axes of a role."""
        return self.parsed(text, line, parse_dims, "layout dims are")

    def parsed(self, text: Any, line: int, parse: Callable[[str], Parsed], what: str) -> Parsed:
        """What a parser makes of a quoted text; `what` names it: "a layout is"."""
        if not isinstance(text, str):
            raise self.error(line, f"{what} a quoted text, not {shown(text)}")
        try:
            return parse(text)
        except LayoutSyntaxError as error:
            raise SpecError(error.what, where=(f"{self.name}:{line}", *error.where), do=error.do) from error


def shown(value: Any) -> str:
    """A value as errors quote it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def when_of(owner: Lines, place: Place) -> When:
    """The condition under `when`: config key -> the values under which it holds; {} (always) where it is missing."""
    found = place.mapping(owner, "when")
    return {key: condition_of(key, value, found.lines[key], place) for key, value in found.items()}


def condition_of(key: str, value: Any, line: int, place: Place) -> tuple[Any, ...]:
    """The values under which a condition holds: one, a list of them, or all but some (`{not: value}`)."""
    if not isinstance(value, dict):
        return listed(value)
    if set(value) != {"not"} or isinstance(value["not"], dict):
        raise place.error(line, f"a condition on {key!r} is a value, a list of values, or {{not: value}}")
    return Others(listed(value["not"]))


def listed(value: Any) -> tuple[Any, ...]:
    """The values of a list (lists among them as tuples, as configs are compared), or the one value."""
    return tuple(tuple(v) if isinstance(v, list) else v for v in value) if isinstance(value, list) else (value,)


def cases_of(value: Any, place: Place, line: int, convert: Any, more: Iterable[str] = ()) -> Cases:
    """A constant, one `{is, when}`, or a list of them.

    Args:
        convert: (value, line) -> the value of a case in its own type.
        more: further keys that a case may have here.
    """
    several = isinstance(value, list) and any(is_case(v) for v in value)
    cases = []
    for entry in value if several else [value]:
        if is_case(entry):
            place.keys(entry, ("is", "when", *more), "a case")
            cases.append(Case(convert(entry["is"], entry.lines["is"]), when_of(entry, place)))
        elif several:
            raise place.error(line, f"each of several cases is {{is, when}}, not {shown(entry)}")
        else:
            cases.append(Case(convert(entry, line)))
    return tuple(cases)


def text_of(value: Any, line: int, place: Place) -> str:
    """A value that is a text."""
    if not isinstance(value, str):
        raise place.error(line, f"a text is needed, not {shown(value)}")
    return value


def is_case(value: Any) -> bool:
    """Whether a value is conditional: a mapping with `is`."""
    return isinstance(value, Lines) and "is" in value


def each_case(mapping: Lines, place: Place, convert: Any) -> dict[str, Cases]:
    """`cases_of` for every value of a mapping."""
    return {key: cases_of(value, place, mapping.lines[key], convert) for key, value in mapping.items()}


def reading_of(value: Any, place: Place) -> Any:
    """How a fact or a setting is read from a config (`{config, values, complement, note}`), or a constant as it is."""
    if isinstance(value, Lines):
        place.keys(value, ("config", "values", "complement", "note"), "a reading of a config")
        key = place.text(value, "config")
        if not key:
            raise place.error(value.line, "a reading of a config says which key: {config: key}")
        values: Mapping[str, Any] = dict(place.mapping(value, "values"))
        return Reading(key, values, place.flag(value, "complement"), place.text(value, "note"))
    return value
