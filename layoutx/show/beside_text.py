"""What a conversion says beside its layers: what it left out, where it leads back to its source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from layoutx.show.tables import Line, clean, grid, plural, prose, row

if TYPE_CHECKING:
    from layoutx.report import Report

OPTIMIZER = ("optimizer", "optimiser")
MOST_LEFTOVERS = 8
MOST_SKIPPED = 40
MOST_DIFFER = 6


def left_out(report: Report, width: int, color: bool) -> Iterator[str]:
    """The table under its head; nothing where nothing was left out."""
    skipped = list(report.skipped.items())
    lines: list[Line] = [row(clean(name), clean(why)) for name, why in skipped[:MOST_SKIPPED]]
    more = Counter(why for _, why in skipped[MOST_SKIPPED:])
    lines += [row(f"{count:,} more", clean(why)) for why, count in more.items()]
    counts = Counter(why for name, why in report.leftover.items() if _of_optimizer(name, why))
    lines += [row(plural(count, "tensor"), clean(why)) for why, count in counts.items()]
    others = [(name, why) for name, why in report.leftover.items() if not _of_optimizer(name, why)]
    lines += [row(clean(name), clean(why)) for name, why in others[:MOST_LEFTOVERS]]
    if len(others) > MOST_LEFTOVERS:
        lines.append(row(f"{len(others) - MOST_LEFTOVERS} more", "--json lists them all"))
    if lines:
        yield prose("left out", width, color, "head") + "\n" + grid(["", ""], lines, width, color)


def _of_optimizer(name: str, why: str) -> bool:
    return any(word in f"{name} {why}".lower() for word in OPTIMIZER)


def recognised(report: Report) -> Iterator[str]:
    """Sentences; none for most conversions."""
    if report.again:
        yield f"{clean(Path(report.output).name)} was this very conversion already: it is the same again."
    back = report.back
    if back is None:
        return
    origin = clean(back.file) or "a file"
    way = f"{clean(report.source.get('file', 'the source'))} was made from {origin} by layoutx: this is the way back"
    if back.why:
        yield f"{way}; {clean(back.why)}."
    elif back.same == back.many:
        yield f"{way}, and all {plural(back.many, 'tensor')} that were read of {origin} are its own again, bit for bit."
    else:
        names = ", ".join(clean(name) for name in back.differ[:MOST_DIFFER])
        names += ", ..." if len(back.differ) > MOST_DIFFER else ""
        differ = plural(back.many - back.same, "tensor")
        yield f"{way}, but {differ} of {back.many:,} are not its own again{': ' if names else ''}{names}."
