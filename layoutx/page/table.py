"""Sortable tables, and the answer of a result in the words of its terminal text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from layoutx.frozen import frozen
from layoutx.page.charts import error_bar
from layoutx.page.html import Html, tag

WRONG = ("FAIL", "INACCURATE", "BETWEEN", "NOT REACHED")
VERDICTS = {"OK": "good", "SUSPECT": "doubt", "NOTE": "dim", **dict.fromkeys(WRONG, "wrong")}


class Said(Protocol):
    """A result that says itself in a terminal."""

    def text(self, width: int = 99) -> str:
        """The whole of it."""


@frozen
class Cell:
    """What a cell shows, and what it is sorted by; `number` stands at the right."""

    shown: Html | str
    key: float | str | None = None
    number: bool = False


def table(heads: Sequence[str], rows: Iterable[Sequence[Cell | str]], names: Sequence[str] = ()) -> Html:
    """A table whose columns sort. `names`: what the search finds each row by; "" for one that it does not hide."""
    filled = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    right = [any(row[n].number for row in filled) for n in range(len(heads))]
    top = [
        tag("th", tag("button", head, type="button"), class_="number" if end else None, scope="col")
        for head, end in zip(heads, right, strict=True)
    ]
    body = [
        tag("tr", map(_cell, row), data_name=name.lower() or None)
        for row, name in zip(filled, names or [""] * len(filled), strict=True)
    ]
    whole = tag("table", tag("thead", tag("tr", top)), tag("tbody", body))
    return tag("div", whole, class_="tablebox")


def _cell(cell: Cell) -> Html:
    return tag("td", cell.shown, class_="number" if cell.number else None, data_sort=cell.key)


def verdict(text: str) -> Html:
    """A verdict in its colour; the word says it without."""
    return tag("span", text, class_=f"verdict {VERDICTS.get(text, '')}".strip())


def answer_of(result: Said) -> list[Html]:
    """The first lines of a result as the terminal shows them: the answer, and what it is about."""
    first, _, rest = result.text(width=400).partition("\n\n")[0].partition("\n")
    return [tag("p", first, class_="verdict"), *(tag("p", line, class_="dim") for line in rest.splitlines())]


def difference(value: float | None, good: bool) -> Cell:
    """A difference with its bar."""
    shown = number(value)
    return Cell(tag("div", shown.shown, error_bar(value, good)), shown.key, True)


def number(value: float | None) -> Cell:
    """A difference as people write it."""
    if value is None:
        return Cell("–", "", True)
    if value != value:
        return Cell("NaN", "", True)
    return Cell("0" if value == 0 else f"{value:.2g}", value, True)
