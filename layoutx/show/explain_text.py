"""An explanation for a terminal: paragraphs, tables, and arrays drawn with lines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from layoutx.explained import Bar, Block, Box, Code, Explained, Rows, Say
from layoutx.show.tables import Line, Note, clean, grid, prose, row

INNER = 14  # columns inside a drawn rectangle
SIDE = 10  # columns for the name of its rows
LONGEST = 400


def as_text(found: Explained, width: int, color: bool) -> str:
    """The whole explanation; blocks are separated by an empty line."""
    parts = [prose(clean(found.title, LONGEST), width, color, "head")]
    parts += [_block(block, width, color) for block in found.blocks]
    return "\n\n".join(part for part in parts if part)


def _block(block: Block, width: int, color: bool) -> str:
    match block:
        case Say(text, style, indent):
            return prose(clean(text, 2000), width, color, style, indent)
        case Rows(head, rows):
            return grid(head, [_line(cells) for cells in rows], width, color)
        case Code(lines):
            return "\n".join(part for line in lines for part in _code(clean(line, LONGEST), width))
        case Bar():
            return _bar(block, width)
        case Box():
            return _box(block, width)


def _code(line: str, width: int) -> list[str]:
    """A line of a program; one that is too long goes on below, further in."""
    inner = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(
        line, width, initial_indent="  ", subsequent_indent=f"{inner}    ", drop_whitespace=True,
        break_on_hyphens=False, break_long_words=False, replace_whitespace=False,
    ) or [""]  # fmt: skip


def _line(cells: tuple[str, ...]) -> Line:
    return Note(clean(cells[0], LONGEST), 6, "dim") if len(cells) == 1 else row(*(clean(c, LONGEST) for c in cells))


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _bar(bar: Bar, width: int) -> str:
    """`kernel   │ i 0:128 │▐f 128:256▌│ c 256:384 │`; the block that is meant stands between half blocks."""
    cells, start = [], 0
    for text, size, meant in bar.parts:
        inside = clean(f"{text} {start}:{start + size}".strip())
        cells.append(f"▐{inside}▌" if meant else f" {inside} ")
        start += size
    lines, current = [], f"{clean(bar.name)}  │"
    pad = " " * (len(current) - 1)
    for cell in cells:
        if len(current) + len(cell) + 3 > width - 2 and current.strip() != "│":
            lines.append(current)
            current = f"{pad}│"
        current += f"{cell}│"
    return "\n".join(f"  {line}" for line in [*lines, current])


def _box(box: Box, width: int) -> str:
    """The rectangle on the left, as in a book, and what there is to say about it on the right."""
    (down, rows), (along, columns) = box.rows, box.columns
    art = [
        f"{'':{SIDE}}{f'{columns} {clean(along)} →':^{INNER + 2}}",
        f"{'':{SIDE}}┌{'─' * INNER}┐",
        f"{rows:>{SIDE - 2}}  │{'':{INNER}}│",
        f"{_cut(clean(down), SIDE - 2):>{SIDE - 2}}  │{_cut(clean(box.name), INNER):^{INNER}}│",
        f"{'↓':>{SIDE - 2}}  │{'':{INNER}}│",
        f"{'':{SIDE}}└{'─' * INNER}┘",
    ]
    left = max(map(len, art)) + 4
    told = _told(box.beside, max(width - left - 1, 24))
    height = max(len(art), len(told))
    art += [""] * (height - len(art))
    told += [""] * (height - len(told))
    return "\n".join(f"{a:<{left}}{b}".rstrip() for a, b in zip(art, told, strict=True))


def _told(sentences: Sequence[str], width: int) -> list[str]:
    lines: list[str] = []
    for sentence in sentences:
        text = clean(sentence, LONGEST)
        lines += textwrap.wrap(text, width, break_on_hyphens=False) or [""]
    return lines
