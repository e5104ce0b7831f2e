"""The mapping file: which layer goes where, in YAML that people edit; read with the line of everything it says."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import FileError, LayoutxError, MatchError, UsageError, raise_all
from layoutx.frozen import frozen
from layoutx.spec.strict import Lines, file_text, load_yaml
from layoutx.words import near

OPEN = re.compile(r"^\s+# (?P<name>\S+|\"[^\"]*\"): \? (?P<places>.*?)(    \S.*)?$")
INNER = re.compile(r"/[a-z]+_\d+$")  # `rnn/layer_1`: the second layer of a stacked module
KEYS = ("source", "target", "pairs", "skip", "keep_order", "forms", "set")


@frozen
class MapFile:
    """What a mapping file says.

    Attributes:
        path: where it lies.
        pairs: layer of the source -> layer or module of the target (`rnn/layer_1` of a stacked module).
        skip, keep_order: patterns of layers. forms: layer -> form. values: config key -> value.
        lines: what stands where, for errors: `pairs dense_1` -> line.
        open: layer of a line that is yet to be filled in -> (line, its candidates as they stand there).
    """

    path: Path
    source: str = ""
    target: str = ""
    pairs: Mapping[str, str] = NOTHING
    skip: tuple[str, ...] = ()
    keep_order: tuple[str, ...] = ()
    forms: Mapping[str, str] = NOTHING
    values: Mapping[str, Any] = NOTHING
    lines: Mapping[str, int] = NOTHING
    open: Mapping[str, tuple[int, str]] = NOTHING

    def where(self, key: str, name: str) -> str:
        """`map.yaml:5: dense_1`."""
        return f"{self.path.name}:{self.lines.get(f'{key} {name}', 1)}: {name}"


def read_map(path: str | PathLike[str]) -> MapFile:
    """Read a mapping file.

    Raises:
        UsageError: there is none. FileError: it cannot be read; or everything that is wrong in it, with its line.
    """
    path = Path(path)
    try:
        text = file_text(path)
    except FileNotFoundError as error:
        do = "write one with `layoutx match SOURCE TARGET -o map.yaml`"
        raise UsageError(f"there is no mapping file {path.name}", where=str(path), do=do) from error
    except (OSError, UnicodeDecodeError) as error:
        do = "write one with `layoutx match SOURCE TARGET -o map.yaml`"
        raise FileError(f"{path.name} is no mapping file", where=str(path), why=str(error), do=do) from error
    return map_of(text, path)


def map_of(text: str, path: Path) -> MapFile:
    """What the text of a mapping file says.

    Raises:
        FileError: it is no YAML; or everything that is wrong in it, with its line.
    """
    try:
        found = load_yaml(text, path.name)
    except LayoutxError as error:
        what = f"{path.name} is no mapping file" if "spec file" in error.what else error.what
        raise FileError(what, where=error.where, why=error.why, do="its keys are " + ", ".join(KEYS)) from error
    return replace(_checked(found, path), open=_open(text))


def _open(text: str) -> dict[str, tuple[int, str]]:
    """Lines `# dense_2: ? head.fc1 | head.fc2` as `layoutx match` writes them for layers that it cannot decide."""
    rows = [(at, OPEN.match(row)) for at, row in enumerate(text.splitlines(), 1)]
    return {m["name"].strip('"'): (at, m["places"].strip()) for at, m in rows if m is not None}


def _checked(found: Lines, path: Path) -> MapFile:
    problems: list[LayoutxError] = []
    lines: dict[str, int] = {}

    def wrong(what: str, line: int, do: str = "") -> None:
        problems.append(FileError(what, where=f"{path.name}:{line}", do=do))

    for key in found:
        if key not in KEYS:
            wrong(f"a mapping file has no {key!r}", found.lines[key], f"its keys are {', '.join(KEYS)}")
    tables: dict[str, dict[str, Any]] = {}
    for key in ("pairs", "forms", "set"):
        value = found.get(key)
        if value is not None and not isinstance(value, Lines):
            wrong(f"{key} is a mapping", found.lines[key], f"write {key}: {{}} or one `name: value` a line")
        tables[key] = dict(value) if isinstance(value, Lines) else {}
        lines |= {f"{key} {name}": line for name, line in getattr(value, "lines", {}).items()}
    lists: dict[str, tuple[str, ...]] = {}
    for key in ("skip", "keep_order"):
        value = found.get(key)
        good = value is None or (isinstance(value, list) and all(isinstance(v, str) for v in value))
        if not good:
            wrong(f"{key} is a list of layers", found.lines[key], f"write {key}: [dense_1]")
        lists[key] = tuple(value or ()) if good else ()
        lines |= {f"{key} {name}": found.lines[key] for name in lists[key]}
    pairs: dict[str, str] = {}
    for name, place in tables["pairs"].items():
        text = _place(place)
        if text is None:
            wrong(
                f"the counterpart of {name} is {place!r}",
                lines[f"pairs {name}"],
                "write a name, or {to: rnn, layer: 0}",
            )
        else:
            pairs[name] = text
    for name, form in tables["forms"].items():
        if not isinstance(form, str):
            wrong(f"the form of {name} is {form!r}", lines[f"forms {name}"], f"write {name}: keras.Dense")
    problems += _twice(pairs, lines, path)
    raise_all(problems, f"{path.name} is no mapping of layers as it stands")
    source, target = (str(found.get(key) or "") for key in ("source", "target"))
    forms, values = tables["forms"], tables["set"]
    return MapFile(path, source, target, pairs, lists["skip"], lists["keep_order"], forms, values, lines)


def _place(value: Any) -> str | None:
    """`features.6`, or `rnn/layer_0` of {to: rnn, layer: 0}; None where it is neither."""
    if isinstance(value, Lines):
        to, *inner = value.get("to"), *((k, v) for k, v in value.items() if k != "to")
        good = isinstance(to, str) and len(inner) <= 1 and all(type(v) is int for _, v in inner)
        return "/".join([to, *(f"{axis}_{n}" for axis, n in inner)]) if good and isinstance(to, str) else None
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else None


def _twice(pairs: Mapping[str, str], lines: Mapping[str, int], path: Path) -> list[LayoutxError]:
    """One error for each place that two layers have; a stacked module without its layer's number may be named often."""
    owners: dict[str, list[str]] = {}
    for name, place in pairs.items():
        owners.setdefault(place, []).append(name)
    return [
        FileError(
            f"{place} is the counterpart of {' and of '.join(names)}",
            where=[f"{path.name}:{lines[f'pairs {name}']}: {name}" for name in names],
            do=f"one layer has one place; layers of a stacked module: {{to: {place}, layer: 0}}",
        )
        for place, names in owners.items()
        if len(names) > 1
    ]


def missing(found: MapFile, source: Collection[str], target: Collection[str]) -> list[LayoutxError]:
    """One error for each name of the file that neither model has.

    Args:
        source, target: the names of layers, modules and tensors of each model.
    """
    problems: list[LayoutxError] = []
    sides = ((source, found.source or "the source"), (target, found.target or "the target"))
    for name, place in found.pairs.items():
        if "*" in name:  # a pattern is written out, and refused there if it fits nothing
            continue
        for (known, of), one in zip(sides, (name, place), strict=True):
            if one not in known and INNER.sub("", one) not in known:
                where, why = found.where("pairs", name), near(one, known)
                problems.append(MatchError(f"{of} has no layer {one}", where=where, why=why))
    return problems
