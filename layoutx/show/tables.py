"""Tables for a terminal: fixed columns, notes between rows, never wider than asked; model names are hostile text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from layoutx.errors import visible
from layoutx.frozen import frozen

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

WIDTH = 99
GAP = 2
NARROWEST = 8
LONGEST = 200
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
STYLES = {
    "head": "bold",
    "dim": "bright_black",
    "moves": "green",
    "fills": "green",
    "conditional": "yellow",
    "rounds": "yellow",
    "kernel": "blue",
    "recurrent": "magenta",
    "bias": "yellow",
    "state": "bright_black",
    "wrong": "red",
}


@frozen
class Cell:
    """A text and the name of its style; lines are separated by newlines."""

    text: str
    style: str = ""


@frozen
class Row:
    """One row; a missing cell at the end is empty."""

    cells: tuple[Cell | str, ...]


@frozen
class Note:
    """A line between rows that belongs to no column."""

    text: str
    indent: int = 2
    style: str = ""


Line = Row | Note


def clean(text: object, longest: int = LONGEST) -> str:
    """A text that cannot steer the terminal: control, format and lone surrogate characters are spelled out."""
    found = visible(str(text))
    return found if len(found) <= longest else f"{found[: longest - 1]}…"


def screened(text: str) -> str:
    """What is printed last: colours and the ends of lines stay, anything else that steers a terminal is spelled out."""
    return "".join(part if k % 2 else visible(part, "\n") for k, part in enumerate(_COLOUR.split(text)))


def row(*cells: Cell | str) -> Row:
    """A row of cells."""
    return Row(cells)


def grid(head: Sequence[str], lines: Iterable[Line], width: int = WIDTH, color: bool = False) -> str:
    """Rows in columns under a head, notes between them.

    Columns are as wide as their widest line; where that is too much, the widest columns give way and
    their text wraps.
    """

    lines = list(lines)
    sizes = _sizes([row(*head)] * any(head) + [x for x in lines if isinstance(x, Row)], len(head), width - 2)
    every: list[Line] = [row(*(Cell(h, "head") for h in head)), *lines] if any(head) else lines
    text = None if color else _plain(sizes, every, width)
    return _printed(_parts(sizes, every, width), width, color) if text is None else text


def _parts(sizes: Sequence[int], lines: Iterable[Line], width: int) -> list[Table | Text]:
    """Tables of neighbouring rows, and the notes between them."""
    parts: list[Table | Text] = []
    block: list[Row] = []
    for line in lines:
        if isinstance(line, Row):
            block.append(line)
            continue
        if block:
            parts.append(_table(sizes, block))
            block = []
        parts += _wrapped(line, width)
    if block:
        parts.append(_table(sizes, block))
    return parts


def _plain(sizes: Sequence[int], lines: Iterable[Line], width: int) -> str | None:
    """What rich prints where there are no colours, at a tenth of its time; None for what it would wrap once more."""
    if sum(sizes) + GAP * (len(sizes) - 1) > width - 2:
        return None
    texts: list[str] = []
    for line in lines:
        if isinstance(line, Note):
            found = _lines(line, width)
            if not all(_fits(part, width) for part in found):
                return None
            texts += [part.rstrip() for part in found]
            continue
        cells = [_cut(folded_text(_text(cell), size), size) for cell, size in zip(line.cells, sizes, strict=False)]
        if not cells or not all(_fits(part, size) for cell, size in zip(cells, sizes, strict=False) for part in cell):
            return None
        for parts in zip_longest(*cells, fillvalue=""):
            padded = (part.ljust(size) for part, size in zip(parts, sizes, strict=False))
            texts.append(f"  {(' ' * GAP).join(padded)}".rstrip())
    return "\n".join(texts).rstrip("\n")


def _cut(text: str, size: int) -> list[str]:
    """The lines of a text, a word that is longer than its place cut where this ends."""
    found: list[str] = []
    for line in text.split("\n"):
        cut = len(line) > size and " " not in line
        found += [line[at : at + size] for at in range(0, len(line), size)] if cut else [line]
    return found


def _fits(text: str, size: int) -> bool:
    """Whether a text is as many columns wide as it has characters, and no wider than its place."""
    return len(text) <= size and text.isprintable() and _columns(text) == len(text)


def _columns(text: str) -> int:
    """How many columns a text takes."""
    if text.isascii() and text.isprintable():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def prose(text: str, width: int = WIDTH, color: bool = False, style: str = "", indent: int = 0) -> str:
    """A paragraph wrapped at words."""
    note = Note(text, indent, style)
    plain = None if color else _plain((), [note], width)
    return _printed(_wrapped(note, width), width, color) if plain is None else plain


def _sizes(rows: Sequence[Row], count: int, width: int) -> list[int]:
    sizes = [1] * count
    for line in rows:
        for at, cell in enumerate(line.cells):
            longest = max((_columns(part) for part in _text(cell).split("\n")), default=0)
            sizes[at] = max(sizes[at], longest)
    while sum(sizes) + GAP * (count - 1) > width and max(sizes) > NARROWEST:
        sizes[sizes.index(max(sizes))] -= 1
    return sizes


def _text(cell: Cell | str) -> str:
    return visible(cell if isinstance(cell, str) else cell.text, "\n")


def _table(sizes: Sequence[int], rows: Sequence[Row]) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, GAP, 0, 0), collapse_padding=True)
    for size in sizes:
        table.add_column(width=size, overflow="fold")
    for line in rows:
        cells = [cell if isinstance(cell, Cell) else Cell(cell) for cell in line.cells]
        folded = (folded_text(_text(cell), size) for cell, size in zip(cells, sizes, strict=False))
        table.add_row(*(_styled(text, cell.style) for text, cell in zip(folded, cells, strict=True)))
    return table


def folded_text(text: str, width: int) -> str:
    """A text broken into lines at spaces, and else after "/" or inside a dotted name, rather than anywhere."""
    lines = []
    for line in text.split("\n"):
        current = ""
        for piece in re.split(r"(?<=[ /])|(?<=\.)(?=[A-Za-z])", line):
            if current and _columns(current + piece.rstrip()) > width:
                lines.append(current.rstrip())
                current = ""
            current += piece
        lines.append(current.rstrip() if current.strip() else current)
    return "\n".join(lines)


def _styled(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(text, style=STYLES.get(style, style))


def _wrapped(note: Note, width: int) -> list[Text]:
    return [_styled(line, note.style) for line in _lines(note, width)]


def _lines(note: Note, width: int) -> list[str]:
    import textwrap

    pad = " " * note.indent
    text = visible(note.text, "\n\t")
    found = textwrap.wrap(text, width, initial_indent=pad, subsequent_indent=pad, break_on_hyphens=False)
    return found or [""]


def _printed(parts: Sequence[Table | Text], width: int, color: bool) -> str:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        legacy_windows=False,
        markup=False,
        highlight=False,
        emoji=False,
    )
    for part in parts:
        console.print(Padding(part, (0, 0, 0, 2)) if isinstance(part, Table) else part)
    return "\n".join(line.rstrip() for line in file.getvalue().split("\n")).rstrip("\n")


def plural(count: int, word: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def size_text(count: int) -> str:
    """A number of bytes for people."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
