"""What a conversion says where it was done before, or leads back to where its source came from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from layoutx.show.tables import clean, plural

if TYPE_CHECKING:
    from layoutx.report import Report

MOST = 6


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
        names = ", ".join(clean(name) for name in back.differ[:MOST])
        names += ", ..." if len(back.differ) > MOST else ""
        differ = plural(back.many - back.same, "tensor")
        yield f"{way}, but {differ} of {back.many:,} are not its own again{': ' if names else ''}{names}."
