"""What a conversion says whose tensors all keep their names: that they do, and what a narrower dtype took of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layoutx.show.tables import clean, plural

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
