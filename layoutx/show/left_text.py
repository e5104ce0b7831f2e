"""What a conversion left out, as a table: by name where these are few, counted by the reason where they are many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from layoutx.show.tables import Line, clean, grid, plural, prose, row

if TYPE_CHECKING:
    from layoutx.report import Report

OPTIMIZER = ("optimizer", "optimiser")
MOST_LEFTOVERS = 8
MOST_SKIPPED = 40


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
