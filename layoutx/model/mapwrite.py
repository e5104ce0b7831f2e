"""A mapping file written, or one that is there extended line by line: what the user wrote stays as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path

from layoutx.errors import VerificationError, visible
from layoutx.files.atomic import replacing
from layoutx.frozen import frozen
from layoutx.model.mapfile import MapFile, read_map

_SIMPLE = re.compile(r"^[A-Za-z_][\w./-]*$")
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

    def line(self) -> str:
        """The line as it stands under `pairs:`."""
        if self.candidates:
            shown = " | ".join(_quoted(c) for c in self.candidates)
            return f"  # {_quoted(self.name)}: ? {shown}    # {self.comment}".rstrip()
        stem, slash, inner = self.place.rpartition("/")
        axis, _, number = inner.rpartition("_")
        place = _quoted(self.place)
        if slash and axis.isalpha() and number.isdigit():
            place = f"{{to: {_quoted(stem)}, {axis}: {int(number)}}}"
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
    if all(entry.candidates or not entry.place for entry in entries):
        head[-1] = "pairs: {}"
    tail = ["skip: []", "keep_order: []", "forms: {}", "set: {}"]
    return "\n".join([*head, *(entry.line() for entry in entries), *tail]) + "\n"


def extended(text: str, entries: Sequence[Entry], known: MapFile) -> str:
    """The user's own text with the pairs that it lacks put under `pairs:`; every other line stays as it is."""
    rows = text.splitlines()
    taken = set(known.pairs.values())
    told = [name for name in known.pairs if "*" in name]
    fresh = [e for e in entries if e.name not in known.pairs and (not e.place or e.place not in taken)]
    fresh = [e for e in fresh if not any(fnmatchcase(e.name, pattern) for pattern in told)]
    fresh = [e for e in fresh if e.line() not in rows]
    if not fresh:
        return text
    new = [entry.line() for entry in fresh]
    at = next((i for i, row in enumerate(rows) if (m := _SECTION.match(row)) and m["key"] == "pairs"), None)
    if at is None:
        return "\n".join([*rows, "pairs:", *new]) + "\n"
    found = _SECTION.match(rows[at])
    rest = found["rest"] if found else ""
    if rest and rest != "{}":  # written in one line, {a: b}: it becomes one pair a line
        own = [Entry(name, place).line() for name, place in known.pairs.items()]
        return "\n".join([*rows[:at], "pairs:", *own, *new, *rows[at + 1 :]]) + "\n"
    if rest == "{}" and not all(e.candidates or not e.place for e in fresh):
        rows[at] = rows[at].replace("{}", "", 1).rstrip()
    end = at + 1
    for i in range(at + 1, len(rows)):  # up to the last line that belongs to pairs
        if rows[i][:1].isspace() and rows[i].strip():
            end = i + 1
        elif rows[i].strip() and not rows[i].startswith("#"):
            break
    first = next((row for row in rows[at + 1 : end] if not row.lstrip().startswith("#")), "  ")
    indent = first[: len(first) - len(first.lstrip())] or "  "
    new = [indent + line[2:] for line in new]
    return "\n".join([*rows[:end], *new, *rows[end:]]) + "\n"


def write_map(path: str | PathLike[str], source: str, target: str, entries: Sequence[Entry]) -> None:
    """Write a mapping file, or put what is missing into one that is there.

    Raises:
        LayoutxError: the file that is there is no mapping file; it stays as it is.
    """
    path = Path(path)
    text = map_text(source, target, entries)
    if path.exists():
        text = extended(path.read_text(encoding="utf-8"), entries, read_map(path))
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        if temporary.read_text(encoding="utf-8") != text:
            raise VerificationError(f"{path.name} did not keep what was written", where=str(path))
