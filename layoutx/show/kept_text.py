"""What a conversion says of what stays: the names of a source, what a narrower dtype took, the target's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layoutx.show.tables import clean, plural
from layoutx.words import listed

if TYPE_CHECKING:
    from layoutx.report import Report

FEW = 3


def kept_answer(report: Report) -> str:
    """The first words of the answer."""
    return f"{plural(report.kept, 'tensor')} under {'its own name' if report.kept == 1 else 'their own names'}"


def rounded_text(report: Report) -> Iterator[str]:
    """One sentence on the tensors that were rounded; none where none was."""
    if report.rounded:
        first = [f"{clean(name)}: {clean(lost)}" for name, lost in list(report.rounded.items())[:FEW]]
        more = f"; and {len(report.rounded) - FEW:,} more (--json has them all)" if len(report.rounded) > FEW else ""
        yield f"{plural(len(report.rounded), 'tensor')} in a narrower dtype. {'; '.join(first)}{more}."


def unwritten_text(report: Report) -> Iterator[str]:
    """One sentence on the target's tensors that nothing was moved into; none where there are none."""
    if report.unwritten:
        names = clean(listed(report.unwritten, FEW))
        keeps = "keeps" if len(report.unwritten) == 1 else "keep"
        yield f"{plural(len(report.unwritten), 'target key')} {keeps} what the target held: {names}."
