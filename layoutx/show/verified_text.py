"""A check of a written file as a terminal shows it, the answer first, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from layoutx.files.certified import DIFFERS, EXTRA, MISSING, OK
from layoutx.job.derive import LENT
from layoutx.show.alike_text import exchange_text
from layoutx.show.supposed_text import supposed_text
from layoutx.show.tables import Cell, Line, Note, clean, grid, plural, prose, row, size_text

if TYPE_CHECKING:
    from layoutx.verified import Verified

MOST = 40
MEANING = {
    DIFFERS: "other bytes than when it was written",
    MISSING: "it was written, and is not there any more",
    EXTRA: "it was not there when the file was written",
}
OF_SOURCE = {DIFFERS: "other bytes than when it was read", MISSING: "it was read, and is not there any more"}
AGAIN = {DIFFERS: "the source gives other bytes", MISSING: "the source gives it, the file has it not"}


def as_dict(found: Verified) -> dict[str, Any]:
    """Everything a check knows, as JSON."""
    return {
        "file": found.file,
        "source": found.source,
        "ok": found.ok,
        "made": dict(found.made),
        "hashes": found.kind,
        "bytes": found.nbytes,
        "tensors": dict(found.tensors),
        "sources": None if found.sources is None else dict(found.sources),
        "derived": None if found.derived is None else dict(found.derived),
        "underived": found.underived,
        "alike": [list(names) for names in found.alike],
        "supposed": list(found.supposed),
        "seconds": found.seconds,
    }


def as_text(found: Verified, width: int, color: bool) -> str:
    """The answer, what is wrong tensor by tensor, what was compared with what."""
    parts = ["\n".join(prose(text, width, color, style) for text, style in _answer(found))]
    parts += [grid(["tensor", "is", ""], lines, width, color) for lines in [list(_rows(found))] if lines]
    parts.append("\n".join(prose(text, width, color) for text in _checks(found)))
    return "\n\n".join(parts)


def _answer(found: Verified) -> Iterator[tuple[str, str]]:
    file = clean(found.file)
    bad = sum(one != OK for one in found.tensors.values())
    if bad:
        yield f"{file}: {bad:,} of {plural(len(found.tensors), 'tensor')} differ from what was written.", "head"
    elif _bad(found.sources):
        yield f"{file} is whole, but {clean(found.source)} is not what it was made from.", "head"
    elif _bad(found.derived):
        yield f"{file} is not what {clean(found.source)} gives.", "head"
    elif found.underived:
        yield f"{file}: the conversion was not done again, so this is not proved.", "head"
    elif found.derived is not None:
        yield f"{file} is, byte for byte, what {clean(found.source)} gives.", "head"
    else:
        yield f"{file} is whole: every tensor is as it was written.", "head"
    made = found.made
    if made:
        source = " ".join(filter(None, (made.get("framework"), made.get("version"))))
        origin = clean(made.get("file", "another file")) + (f" ({clean(source)})" if source else "")
        goal = f" for {clean(made['target'])}" if "target" in made else ""
        yield f"made from {origin}{goal} by layoutx {clean(made.get('layoutx', ''))}", "dim"


def _bad(states: Mapping[str, str] | None) -> bool:
    return bool(set((states or {}).values()) - {OK, LENT})


def _and(derived: str | None) -> str:
    """What the conversion gave of a tensor that is not what was written."""
    if derived == OK:
        return "; yet the source gives these: the certificate is wrong"
    return ", and than the source gives" if derived == DIFFERS else ""


def _rows(found: Verified) -> Iterator[Line]:
    derived = found.derived or {}
    rows = [(name, one, MEANING[one] + _and(derived.get(name))) for name, one in found.tensors.items() if one != OK]
    rows += [(name, one, OF_SOURCE[one]) for name, one in (found.sources or {}).items() if one != OK]
    known = {name for name, _, _ in rows}
    rows += [(name, one, AGAIN[one]) for name, one in derived.items() if one not in (OK, LENT) and name not in known]
    for name, one, why in rows[:MOST]:
        yield row(clean(name), Cell(one, "rounds"), why)
    if len(rows) > MOST:
        yield Note(f"and {len(rows) - MOST:,} more (--json lists them all)", 2, "dim")


def _checks(found: Verified) -> Iterator[str]:
    if found.tensors:
        good = sum(one == OK for one in found.tensors.values())
        yield f"{good:,} of {plural(len(found.tensors), 'tensor')} OK ({size_text(found.nbytes)}, {found.kind})."
    else:
        yield f"{clean(found.file)} has no hashes: only the source was compared."
    if found.sources is not None:
        good = sum(one == OK for one in found.sources.values())
        yield f"{clean(found.source)}: {good:,} of {plural(len(found.sources), 'tensor')} that were read are the same."
    if found.derived is not None:
        count = Counter(found.derived.values())
        lent = f", {plural(count[LENT], 'tensor')} lent by the template" if count[LENT] else ""
        of = plural(len(found.derived) - count[LENT], "tensor")
        yield f"Converted again and compared by SHA-256: {count[OK]:,} of {of} the same{lent}."
    if found.underived:
        yield f"Not converted again: {clean(found.underived, 400)}."
    yield from exchange_text(found.alike, found.made.get("file", ""))
    yield from supposed_text(found.supposed, found.made.get("file", ""))
    if not found.source:
        yield "This shows damage, not forgery: --source SRC compares with what it was made from."
    yield f"{found.seconds:.2f} s."
