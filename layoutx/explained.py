"""An explanation: plain words, tables and a picture; for a terminal, a notebook, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any

from layoutx.empty import NOTHING
from layoutx.frozen import frozen

if TYPE_CHECKING:
    from layoutx.show.picture import Picture


@frozen
class Say:
    """A paragraph."""

    text: str
    style: str = ""
    indent: int = 0


@frozen
class Rows:
    """A table; a row of one cell is a remark on the row above it."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@frozen
class Code:
    """Lines of a program, or of numbers, as they are."""

    lines: tuple[str, ...]


@frozen
class Bar:
    """One axis of a stored tensor as a row of blocks: (what stands in it, its length, whether it is meant)."""

    name: str
    parts: tuple[tuple[str, int, bool], ...]


@frozen
class Box:
    """A stored matrix as a rectangle, rows and columns named, with sentences beside it."""

    name: str
    rows: tuple[str, int]
    columns: tuple[str, int]
    beside: tuple[str, ...]


Block = Say | Rows | Code | Bar | Box


@frozen
class Explained:
    """What `lx.explain` gives.

    Attributes:
        title: the answer in a line. blocks: the rest. data: the same as plain values.
        picture: the stored arrays drawn; None where there is nothing to draw.
    """

    title: str
    blocks: tuple[Block, ...]
    data: Mapping[str, Any] = NOTHING
    picture: Picture | None = field(default=None, repr=False)

    def text(self, width: int = 99, color: bool = False) -> str:
        """For a terminal, at most `width` columns."""
        from layoutx.show.explain_text import as_text

        return as_text(self, width, color)

    def markdown(self) -> str:
        """For a page: headings, tables and code."""
        from layoutx.show.explain_markdown import as_markdown

        return as_markdown(self)

    def svg(self) -> str:
        """The picture alone, as a file of its own; "" where there is none."""
        from layoutx.show.svg import svg

        return svg(self.picture, standalone=True) if self.picture is not None else ""

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {"title": self.title, **self.data}

    def _repr_html_(self) -> str:
        from layoutx.show.explain_markdown import as_html

        return as_html(self)

    def __str__(self) -> str:
        return self.text()
