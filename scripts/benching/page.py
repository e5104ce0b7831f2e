"""Tables for a terminal and for a Markdown page, and the page's part between two markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def shown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in columns, the first to the left, the others to the right."""
    wide = [max(len(line[i]) for line in [heads, *lines]) for i in range(len(heads))]

    def row(line: Sequence[str]) -> str:
        return "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, wide, strict=True)))

    return "\n".join(row(line).rstrip() for line in [heads, *lines])


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The same table in Markdown."""
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)], *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def replaced(path: Path, text: str) -> None:
    """Put a text between the markers of a page; the page keeps what stands around them.

    Raises:
        ValueError: the page has no markers.
    """
    page = path.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} has no {BEGIN} ... {END}")
    path.write_text(f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}", encoding="utf-8")
