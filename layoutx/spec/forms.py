"""The forms of a spec file: inheritance, one form a rank, and each key in its own type."""

from __future__ import annotations

from typing import Any

from layoutx.lang.parse import parse
from layoutx.lang.tree import Dim, Layout
from layoutx.spec.pieces import Place, cases_of, condition_of, each_case, reading_of, shown, text_of
from layoutx.spec.schema import Cases, Form, TensorSpec
from layoutx.spec.strict import Lines
from layoutx.spec.values import OPERATIONS, MapSpec

_FORM_KEYS = (
    "about", "source", "rank", "by_class", "of", "apart", "seen", "extends", "config", "ignore", "sizes", "only",
    "pin", "equal", "same", "maps", "names", "each", "modules", "require", "facts", "settings", "calls", "data",
    "tensors", "history", "formula", "why",
)  # fmt: skip
_MERGED = (
    "config", "sizes", "only", "pin", "equal", "same", "maps", "names", "modules", "require", "facts", "settings",
    "calls", "data",
)  # fmt: skip


def _merged(name: str, raw: Lines, place: Place, seen: tuple[str, ...] = ()) -> Lines:
    """A form's own keys over those of the form it extends."""
    own = raw[name]
    if not isinstance(own, Lines):
        raise place.error(raw.lines[name], f"the form {name} is a mapping")
    place.keys(own, _FORM_KEYS, f"the form {name}")
    base_name = own.get("extends")
    if base_name is None:
        return own
    if not isinstance(base_name, str) or base_name not in raw or base_name in (name, *seen):
        base = base_name if isinstance(base_name, str) else shown(base_name)
        raise place.error(own.lines["extends"], f"{name} extends {base}, which is not another form of this file")
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
    """The forms under one name of a spec file's `forms`: one, or one a rank where the name has `{N}`.

    Raises:
        SpecError: with file and line.
    """
    body = _merged(name, raw, place)
    line = raw.lines[name]
    if "." not in name:
        raise place.error(line, f"the form {name!r} is <framework>.<class>")
    ranks = raw[name].get("rank", body.get("rank") if "{N}" in name else None)
    many = "{N}" in name
    if many and not (isinstance(ranks, list) and all(map(_is_int, ranks))):
        raise place.error(line, f"{name} needs `rank: [..]`, the numbers of spatial axes")
    if not many and ranks is not None and not _is_int(ranks):
        raise place.error(line, f"the rank of {name} is the number of its spatial axes, not {shown(ranks)}")
    variants = [(name.replace("{N}", str(n)), n) for n in ranks] if many else [(name, ranks)]
    return [_form(kind, full, rank, body, place, line) for full, rank in variants]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _form(kind: str, name: str, rank: int | None, body: Lines, place: Place, line: int) -> Form:
    def whole(value: Any, at: int) -> int:
        if not _is_int(value) or value < 1:
            raise place.error(at, f"an axis is pinned to its length, not to {shown(value)}")
        return int(value)

    def axis(value: Any, at: int) -> str:
        if not isinstance(value, str):
            raise place.error(at, f"an axis is equal to another axis, not to {shown(value)}")
        return value

    sub = Substitution(rank)
    names = place.mapping(body, "names")
    return Form(
        name=name,
        kind=kind,
        about=place.text(body, "about"),
        source=place.text(body, "source"),
        rank=rank,
        by_class=place.flag(body, "by_class"),
        of=sub.name(place.text(body, "of")),
        apart=frozenset(place.words(body.get("apart"), body.lines.get("apart", line))),
        seen=frozenset(place.words(body.get("seen"), body.lines.get("seen", line))),
        config=dict(place.mapping(body, "config")),
        ignore=frozenset(place.words(body.get("ignore"), body.lines.get("ignore", line))),
        sizes=_sizes(place.mapping(body, "sizes"), place),
        only=each_case(place.mapping(body, "only"), place, place.words),
        pin=each_case(place.mapping(body, "pin"), place, whole),
        equal=each_case(place.mapping(body, "equal"), place, axis),
        same=each_case(place.mapping(body, "same"), place, axis),
        maps=each_case(place.mapping(body, "maps"), place, lambda v, at: _map(v, at, place)),
        names={axis: place.texts(names, axis) for axis in names},
        each=place.text(body, "each"),
        modules={k: sub.name(v) for k, v in place.texts(body, "modules").items()},
        require=_require(place.mapping(body, "require"), place),
        facts=each_case(place.mapping(body, "facts"), place, lambda v, at: reading_of(v, place)),
        settings=each_case(place.mapping(body, "settings"), place, lambda v, _: reading_of(v, place)),
        calls=place.texts(body, "calls"),
        data=_data(place.mapping(body, "data"), place),
        tensors=_tensors(place.mapping(body, "tensors"), place),
        history=place.words(body.get("history"), body.lines.get("history", line)),
        formula=_formula(body, place),
        why=place.text(body, "why"),
        line=line,
        file=place.name,
    )


def _formula(body: Lines, place: Place) -> Cases:
    """What the layer computes in its own names; () where nothing is said."""
    if body.get("formula") is None:
        return ()
    return cases_of(body["formula"], place, body.lines["formula"], lambda v, at: text_of(v, at, place))


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


def _map(value: Any, line: int, place: Place) -> MapSpec:
    found = [(key, amount) for key, amount in value.items() if key != "shift"] if isinstance(value, Lines) else []
    if len(found) != 1 or found[0][0] not in OPERATIONS:
        raise place.error(line, f"a map of values is one of {', '.join(OPERATIONS)}, not {shown(value)}")
    ((operation, amount),) = found
    if operation == "power" and amount != 2:
        raise place.error(line, f"the only power is 2, not {shown(amount)}")
    if operation != "power" and "shift" in value:
        raise place.error(line, f"a shift stands beside a power, not beside {operation!r}")
    shift = value.get("shift", 0.0)
    for key, number in ((operation, amount), ("shift", shift)):
        if isinstance(number, bool) or not isinstance(number, (int, float, str)):
            raise place.error(line, f"{key!r} has a number or a config key, not {shown(number)}")
    return MapSpec(operation, amount, shift)


def _require(mapping: Lines, place: Place) -> tuple[tuple[str, tuple[Any, ...], str], ...]:
    found = []
    for key, value in mapping.items():
        why = ""
        if isinstance(value, Lines):
            place.keys(value, ("is", "why"), "a requirement")
            if "is" not in value:
                raise place.error(mapping.lines[key], f"the requirement on {key!r} says what it is: {{is, why}}")
            why, value = place.text(value, "why"), value["is"]
        found.append((key, condition_of(key, value, mapping.lines[key], place), why))
    return tuple(found)


def _data(mapping: Lines, place: Place) -> dict[str, Cases]:
    return each_case(mapping, place, place.dims)


def _tensors(mapping: Lines, place: Place) -> tuple[TensorSpec, ...]:
    def layout(text: Any, line: int) -> Layout:
        return place.parsed(text, line, parse, "a layout is")

    found = []
    for name, value in mapping.items():
        entries = [e for e in (value if isinstance(value, list) else [value]) if isinstance(e, Lines)]
        cases = cases_of(value, place, mapping.lines[name], layout, ("optional", "dtype", "dims_from", "cut"))
        optional = True in [place.flag(e, "optional") for e in entries]  # each is checked
        dtype = next(filter(None, [place.dtype(e) for e in entries]), "")
        dims_from = next(filter(None, [place.text(e, "dims_from") for e in entries]), "")
        cut = next((place.dims(e["cut"], e.lines["cut"]) for e in entries if "cut" in e), ())
        found.append(TensorSpec(name, cases, optional, dtype, dims_from, cut))
    return tuple(found)
