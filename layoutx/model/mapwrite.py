"""A mapping file written, or one that is there extended line by line: what the user wrote stays as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path

from layoutx.errors import FileError, LayoutxError, VerificationError, visible
from layoutx.files.atomic import replacing
from layoutx.frozen import frozen
from layoutx.model.mapfile import MapFile, map_of, read_map

_SIMPLE = re.compile(r"^[A-Za-z_][\w./-]*$")
_INNER = re.compile(r"^(?P<to>.*)/(?P<axis>[a-z]+)_(?P<number>0|[1-9][0-9]*)$")  # 01 would come back as 1
SPACES = "\xa0\u3000"  # that a name may hold, and YAML too
_SECTION = re.compile(r"^(?P<key>[a-z_]+)\s*:\s*(?P<rest>[^#]*?)\s*(#.*)?$")
TO_DO = (
    "# Lines `# LAYER: ? PLACE | PLACE` are yours to fill in: take the # away and leave one of the places.",
    "# Until then port and convert refuse this file (--map), or say it with --pair LAYER=PLACE, --skip LAYER.",
)


@frozen
class Entry:
    """One line to write: a pair with its comment; a layer without a `place`, or with `candidates`, is a comment."""

    name: str
    place: str
    comment: str = ""
    candidates: tuple[str, ...] = ()

    @property
    def is_pair(self) -> bool:
        """Whether it says a pair, and is no comment."""
        return bool(self.place) and not self.candidates

    def line(self) -> str:
        """The line as it stands under `pairs:`."""
        if self.candidates:
            shown = " | ".join(_quoted(c) for c in self.candidates)
            return f"  # {_quoted(self.name)}: ? {shown}    # {self.comment}".rstrip()
        inner = _INNER.match(self.place)
        place = _quoted(self.place)
        if inner and _quoted(inner["axis"]) == inner["axis"] != "to":
            place = f"{{to: {_quoted(inner['to'])}, {inner['axis']}: {inner['number']}}}"
        if not self.place:
            return f"  # {_quoted(self.name)}: {self.comment}"
        text = f"  {_quoted(self.name)}: {place}"
        return f"{text:<40}  # {self.comment}" if self.comment else text


def _quoted(name: str) -> str:
    """A name as YAML reads it back: in quotes where it could be anything else than a plain word."""
    if _SIMPLE.match(name) and name.lower() not in ("true", "false", "null", "yes", "no", "on", "off", "y", "n"):
        return name
    return '"' + visible(name.replace("\\", "\\\\").replace('"', '\\"'), SPACES) + '"'


def map_text(source: str, target: str, entries: Sequence[Entry]) -> str:
    """A new mapping file."""
    head = [
        f"# layoutx match {visible(source)} {visible(target)}   (written by layoutx; edit freely, comments stay)",
        f"source: {_quoted(source)}",
        f"target: {_quoted(target)}",
        "pairs:",
    ]
    if any(entry.candidates for entry in entries):
        head[1:1] = TO_DO
    if not any(entry.is_pair for entry in entries):
        head[-1] = "pairs: {}"
    tail = ["skip: []", "keep_order: []", "forms: {}", "set: {}"]
    return "\n".join([*head, *(entry.line() for entry in entries), *tail]) + "\n"


def extended(text: str, entries: Sequence[Entry], known: MapFile) -> str:
    """The user's own text with the pairs that it lacks put under `pairs:`; every other line stays as it is."""
    rows = text.splitlines()
    fresh = _lacking(rows, entries, known)
    return "\n".join(_under_pairs(rows, fresh, known)) + "\n" if fresh else text


def _lacking(rows: Sequence[str], entries: Sequence[Entry], known: MapFile) -> list[Entry]:
    """The entries of which the file says nothing yet: neither the layer, by name or pattern, nor its place."""
    taken = set(known.pairs.values())
    said = {row.strip() for row in rows}
    patterns = [name for name in known.pairs if "*" in name]
    return [
        entry
        for entry in entries
        if entry.name not in known.pairs
        and not (entry.place and entry.place in taken)
        and not any(fnmatchcase(entry.name, pattern) for pattern in patterns)
        and entry.line().strip() not in said
    ]


def _under_pairs(rows: Sequence[str], fresh: Sequence[Entry], known: MapFile) -> list[str]:
    """The file's lines with new ones at the end of `pairs:`, which is begun where there is none."""
    new = [entry.line() for entry in fresh]
    at, rest = _pairs_line(rows)
    if at is None:
        return [*rows, "pairs:", *new]
    if rest and rest != "{}":  # written in one line, {a: b}: it becomes one pair a line
        own = [Entry(name, place).line() for name, place in known.pairs.items()]
        return [*rows[:at], "pairs:", *own, *new, *rows[at + 1 :]]
    filled = rest == "{}" and any(entry.is_pair for entry in fresh)
    head = rows[at].replace("{}", "", 1).rstrip() if filled else rows[at]
    end = _end_of_section(rows, at)
    inside = rows[at + 1 : end]
    indent = _indent(inside)
    return [*rows[:at], head, *inside, *(indent + line[2:] for line in new), *rows[end:]]


def _pairs_line(rows: Sequence[str]) -> tuple[int | None, str]:
    """Where `pairs:` stands, and what stands in its line behind it but a comment; None where there is none."""
    for i, row in enumerate(rows):
        found = _SECTION.match(row)
        if found and found["key"] == "pairs":
            return i, found["rest"]
    return None, ""


def _end_of_section(rows: Sequence[str], at: int) -> int:
    """The line after the last one that belongs to the section which begins at a line."""
    end = at + 1
    for i in range(at + 1, len(rows)):
        if rows[i][:1].isspace() and rows[i].strip():
            end = i + 1
        elif rows[i].strip() and not rows[i].startswith("#"):
            break
    return end


def _indent(rows: Sequence[str]) -> str:
    """How far the first line that says something is moved in; two spaces where none does."""
    first = next((row for row in rows if row.strip() and not row.lstrip().startswith("#")), "")
    return first[: len(first) - len(first.lstrip())] or "  "


def _check_kept(text: str, known: MapFile) -> None:
    """Refuses an extended text that says something else than before: pairs in braces over several lines may do so."""
    why = "it would no longer say what it says"
    try:
        found = map_of(text, known.path)
        if known.pairs.items() <= found.pairs.items() and _beside_pairs(found) == _beside_pairs(known):
            return
    except LayoutxError as error:
        why = f"it could no longer be read: {error.what}"
    do = "write its pairs as `pairs:` and one `  LAYER: PLACE` a line, or name another file"
    raise FileError(f"{known.path.name} cannot be extended line by line", where=str(known.path), why=why, do=do)


def _beside_pairs(known: MapFile) -> tuple[object, ...]:
    return known.source, known.target, known.skip, known.keep_order, known.forms, known.values


def write_map(path: str | PathLike[str], source: str, target: str, entries: Sequence[Entry]) -> None:
    """Write a mapping file, or put what is missing into one that is there.

    Raises:
        LayoutxError: the file that is there is no mapping file, or cannot be extended; it stays as it is.
    """
    path = Path(path)
    text = map_text(source, target, entries)
    if path.exists():
        known = read_map(path)
        text = extended(path.read_text(encoding="utf-8"), entries, known)
        _check_kept(text, known)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        if temporary.read_text(encoding="utf-8") != text:
            raise VerificationError(f"{path.name} did not keep what was written", where=str(path))
