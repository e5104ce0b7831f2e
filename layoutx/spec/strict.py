"""YAML without surprises: duplicate keys, tags, `on/off/yes/no`, `1e-3` and anchors are errors with their line.

PyYAML keeps the last of two equal keys, reads `no` as false and `1e-3` as text: each of these would
quietly change what a spec says, so each is refused here. Values are built from the parser's events, one at a time:
libyaml's own way to nodes is a recursion, which a file that is nested deeply enough would end with the process.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layoutx.errors import SpecError, UsageError
from layoutx.files.limits import LIMITS, PREFIX, limit, within

LONGEST_NUMBER = 4000  # characters: Python reads no longer ones
_LOOKS_LIKE_NUMBER = re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")


class Lines(dict[str, Any]):
    """A mapping that remembers the line of each key and of itself."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}


def file_text(path: Path) -> str:
    """The text of a YAML file.

    Raises:
        OSError, UnicodeDecodeError: it cannot be read, or is not UTF-8. UsageError: it is a folder. FileError: it is
            larger than the limit YAML.
    """
    if path.exists() and not path.is_file():  # a pipe would wait for ever
        raise UsageError(f"{path.name or path} is no file", where=str(path), do="name a file")
    within("YAML", path.stat().st_size, path, "the file")
    return path.read_text(encoding="utf-8")


def load_yaml(text: str, name: str) -> Lines:
    """Read one YAML document whose top level is a mapping.

    Args:
        text: the document.
        name: what errors call it, usually the file's path.

    Raises:
        SpecError: with `name:line`. FileError: deeper, or more values, than the limits.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)  # libyaml where it is there: ten times as fast
    try:
        value = _document(loader, name)
    except RecursionError as error:
        raise SpecError("brackets are nested too deeply", where=f"{name}:1") from error
    except (yaml.YAMLError, UnicodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        said = getattr(error, "problem", None) or " ".join(str(error).split())[:200]
        raise SpecError(f"not YAML: {said}", where=f"{name}:{line}") from error
    finally:
        loader.dispose()
    if not isinstance(value, Lines):
        raise SpecError("a spec file is a mapping that starts with `kind:`", where=f"{name}:1")
    return value


def _document(loader: Any, name: str) -> Any:
    """The value that the events of one document make."""
    import yaml

    top: Any = None
    inside: list[Any] = []  # the mappings and lists around the next value, and the key that waits in each mapping
    keys: list[tuple[str, int] | None] = []
    deepest = limit("DEPTH")
    for event, line in _events(loader, name):
        if isinstance(event, yaml.CollectionEndEvent):
            inside.pop()
            keys.pop()
            continue
        scalar = isinstance(event, yaml.ScalarEvent)
        value: Any = [] if isinstance(event, yaml.SequenceStartEvent) else Lines(line)
        if scalar:
            value = _scalar(loader, event, f"{name}:{line}")
        owner = inside[-1] if inside else None
        if owner is None:
            top = value
        elif isinstance(owner, list):
            owner.append(value)
        elif (key := keys[-1]) is None:
            keys[-1] = _key(value, owner, f"{name}:{line}"), line
        else:
            owner[key[0]], owner.lines[key[0]], keys[-1] = value, key[1], None
        if not scalar:
            inside.append(value)
            keys.append(None)
            if len(inside) > deepest:
                why = f"more than {deepest} levels: {LIMITS['DEPTH'].why}"
                do = f"if you trust the file, set {PREFIX}DEPTH={2 * deepest}"
                raise SpecError("brackets are nested too deeply", where=f"{name}:{line}", why=why, do=do)
    return top


def _events(loader: Any, name: str) -> Iterator[tuple[Any, int]]:
    """The events that are values, or end one, each with its line; anchors, tags and further documents are refused."""
    import yaml

    node: Any = yaml.NodeEvent
    end: Any = yaml.CollectionEndEvent
    begin: Any = yaml.DocumentStartEvent
    most, documents, count = limit("VALUES"), 0, 0
    while loader.check_event():
        event: Any = loader.get_event()
        if isinstance(event, node):
            count += 1
            line = event.start_mark.line + 1
            if event.anchor is not None:
                raise SpecError("anchors and aliases are not used in specs", where=f"{name}:{line}")
            if event.tag is not None:
                raise SpecError("tags are not used in specs", where=f"{name}:{line}", do="take the !tag out")
            if count > most:
                within("VALUES", count, Path(name), "the file", f"{name}:{line}")
            yield event, line
        elif isinstance(event, end):
            yield event, 0
        elif isinstance(event, begin):
            documents += 1
            if documents > 1:
                raise SpecError("a second document begins", where=f"{name}:{event.start_mark.line + 1}")


def _key(value: Any, owner: Lines, where: str) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise SpecError("a key is a plain word", where=where, do="put it in quotes")
    key = str(value)
    if key in owner:
        what = f"the key {_short(key)!r} stands twice"
        raise SpecError(what, where=where, why=f"first on line {owner.lines[key]}")
    return key


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."


def _scalar(loader: Any, event: Any, where: str) -> Any:
    import yaml

    text = str(event.value)
    if event.style in ("'", '"', "|", ">"):
        return text
    kind = loader.resolve(yaml.ScalarNode, text, event.implicit).rsplit(":", 1)[-1]
    if kind == "bool":
        if text not in ("true", "false"):
            raise SpecError(
                f"{text} without quotes is a boolean in YAML", where=where, do=f'write "{text}", or true/false'
            )
        return text == "true"
    if kind == "int":
        if len(text) > LONGEST_NUMBER or not re.fullmatch(r"[-+]?(0|[1-9]\d*)", text):
            raise SpecError(
                f"{_short(text)} is read as another number by YAML", where=where, do="write it in decimal, or in quotes"
            )
        return int(text)
    if kind == "float":
        plain = len(text) <= LONGEST_NUMBER and re.fullmatch(r"[-+\d.eE]+", text)
        value = float(text) if plain else math.nan
        if not math.isfinite(value):
            raise SpecError(f"{_short(text)} is not a number that a spec can use", where=where)
        return value
    if kind == "null":
        return None
    if kind == "str":
        if _LOOKS_LIKE_NUMBER.match(text):
            do = f"write {float(text)!r}, or quotes"
            raise SpecError(f"{_short(text)} is text to YAML, not a number", where=where, do=do)
        return text
    raise SpecError(f"YAML reads {_short(text)} as a {kind}", where=where, do="put it in quotes")
