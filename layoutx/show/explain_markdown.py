"""An explanation as Markdown for a page, and as HTML for a notebook; names of models are hostile text in both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import escape

from layoutx.explained import Bar, Block, Box, Code, Explained, Rows, Say
from layoutx.show.tables import clean

SPECIAL = "\\`*_{}[]<>|#~&"
LISTS = re.compile(r"^(\s*)(?:([-+=])|(\d+)([.)]))")  # what makes a line an item or a heading where it begins one
LONGEST = 2000


def as_markdown(found: Explained) -> str:
    """Paragraphs, tables and code; the picture is `.svg()`."""
    parts = [f"**{_plain(found.title)}**"]
    for block in found.blocks:
        parts += _block(block)
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """A text that means itself in Markdown."""
    found = "".join(f"\\{c}" if c in SPECIAL else c for c in clean(text, LONGEST))
    return LISTS.sub(lambda m: f"{m[1]}{m[3] or ''}\\{m[2] or m[4]}", found)


def _block(block: Block) -> Iterator[str]:
    match block:
        case Say(text):
            yield _plain(text)
        case Rows(head, rows):
            yield _table(head, rows)
        case Code(lines):
            yield _fenced([clean(line, LONGEST) for line in lines])
        case Bar():
            yield _fenced([_bar(block)])
        case Box(name, rows, columns, beside):
            yield f"{_code(clean(name))}: {_plain(rows[0])} {rows[1]} down, {_plain(columns[0])} {columns[1]} across."
            yield from (_plain(sentence) for sentence in beside if sentence)


def _fenced(lines: Sequence[str]) -> str:
    """Lines as code, in a fence that is longer than any in them."""
    fence = _ticks("\n".join(lines), 3)
    return "\n".join([f"{fence}text", *lines, fence])


def _code(text: str) -> str:
    """A name as code within a sentence."""
    ticks = _ticks(text, 1)
    return f"{ticks} {text} {ticks}" if "`" in text else f"{ticks}{text}{ticks}"


def _ticks(text: str, least: int) -> str:
    """Backticks that a text cannot end."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


def _bar(bar: Bar) -> str:
    start, cells = 0, []
    for text, size, meant in bar.parts:
        cells.append(clean(f"{'>> ' if meant else ''}{text} {start}:{start + size}{' <<' if meant else ''}"))
        start += size
    return f"{clean(bar.name)} | {' | '.join(cells)} |"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    wide = len(head)
    lines = ["| " + " | ".join(_plain(h) or " " for h in head) + " |", "|" + " --- |" * wide]
    for cells in rows:
        own = ["", cells[0]] if len(cells) == 1 and wide > 1 else list(cells)
        own += [""] * (wide - len(own))
        lines.append("| " + " | ".join(map(_plain, own)) + " |")
    return "\n".join(lines)


def as_html(found: Explained) -> str:
    """For a notebook: the picture, then the words."""
    from layoutx.show.svg import svg

    drawn = svg(found.picture) if found.picture is not None else ""
    body = "".join(part for block in found.blocks for part in _html(block))
    return f'<div class="layoutx-explained"><p><b>{_safe(found.title)}</b></p>{drawn}{body}</div>'


def _safe(text: str) -> str:
    return escape(clean(text, LONGEST))


def _html(block: Block) -> Iterator[str]:
    match block:
        case Say(text):
            yield f"<p>{_safe(text)}</p>"
        case Rows(head, rows):
            top = "".join(f'<th style="text-align:left">{_safe(h)}</th>' for h in head)
            yield f"<table><thead><tr>{top}</tr></thead><tbody>"
            for cells in rows:
                if len(cells) == 1:
                    yield f'<tr><td></td><td colspan="{max(len(head) - 1, 1)}">{_safe(cells[0])}</td></tr>'
                else:
                    yield "<tr>" + "".join(f'<td style="text-align:left">{_safe(c)}</td>' for c in cells) + "</tr>"
            yield "</tbody></table>"
        case Code(lines):
            yield f"<pre>{escape(chr(10).join(clean(line, LONGEST) for line in lines))}</pre>"
        case Bar():
            yield f"<pre>{escape(_bar(block))}</pre>"
        case Box(_, _, _, beside):
            yield f"<p>{'<br>'.join(_safe(s) for s in beside if s)}</p>"
