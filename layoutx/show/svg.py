"""A picture as SVG: stored tensors as rectangles with named axes, blocks in role colours, lines to their new place.

Readable at 400 pixels, in grey (every block carries its name) and on dark pages (letters take the page's colour).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from html import escape
from math import log2

from layoutx.errors import visible
from layoutx.frozen import frozen
from layoutx.show.picture import Block, Drawing, Picture, Runs

WIDTH = 400.0
LEFT = 12.0
RIGHT = 236.0  # where the target's drawings begin
SIDE = 140.0  # the widest drawing where there are two sides
ALONE = 300.0
LETTER = 6.0  # the width of a small letter, in the widest of the usual fonts
BOLD = 7.0  # the same of a letter of a name
GAP = 20.0  # between two drawings: lines that leave a block below bend into it
MOST_LINKS = 40
MOST_CODE = 8
MOST_STRIPES = 48
LINE = 13.0
STYLE = """
.lx{color:#1d2430;font:11px ui-sans-serif,system-ui,sans-serif}
.lx text{fill:currentColor}.lx .dim{opacity:.72;font-size:10px}.lx .head{font-weight:600}
.lx .code{font:10px ui-monospace,Menlo,Consolas,monospace}.lx .dim,.lx .code{white-space:pre}
.lx rect{stroke:currentColor;stroke-width:.8}.lx .frame{fill:none}
.lx rect.kernel{fill:#4c8dd6}.lx rect.recurrent{fill:#9a6dd7}.lx rect.bias{fill:#e0a030}.lx rect.state{fill:#9aa0a6}
.lx rect.block{fill-opacity:.42}.lx rect.empty{fill-opacity:.07}.lx .faded{opacity:.35}
.lx rect.spot{fill:none;stroke:#d6336c;stroke-width:2.4}
.lx path{fill:none;stroke-width:1.3;opacity:.8}.lx path.turned{stroke-dasharray:4 3}.lx path.faded{opacity:.2}
.lx path.kernel{stroke:#4c8dd6}.lx path.recurrent{stroke:#9a6dd7}
.lx path.bias{stroke:#c98a14}.lx path.state{stroke:#8a9097}
@media (prefers-color-scheme:dark){.lx{color:#e6e9ee}}
"""


_Point = tuple[float, float]


@frozen
class _Box:
    """Where a drawing's rectangle stands, in pixels."""

    drawing: Drawing
    left: float
    top: float
    width: float
    height: float

    @property
    def bottom(self) -> float:
        return self.top + self.height


def svg(picture: Picture, standalone: bool = False, style: bool = True) -> str:
    """The picture as one `<svg>` element, 400 units wide.

    Args:
        standalone: with the XML namespace, for a file of its own.
        style: with its colours; a page with many pictures has `STYLE` once.
    """
    widest = SIDE if picture.there else ALONE
    here = list(_column(picture.here, LEFT, widest))
    there = list(_column(picture.there, RIGHT, widest))
    bottom = max([box.bottom for box in (*here, *there)], default=LINE) + LINE
    body = [_head(LEFT, LINE, picture.source), _head(RIGHT, LINE, picture.target)]
    pointed = any(d.spot for d in picture.here)
    body += _paths(picture, here, there, pointed)
    reached = {link.target for link in picture.links}
    for box in here:
        body += _drawn(box, picture.part if pointed else None)
    for box in there:
        body += _drawn(box, picture.part if pointed else None, reached)
    for line in _code(picture.code):
        bottom += LINE
        body.append(_text(LEFT, bottom, line, "code"))
    height = bottom + 8
    space = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    title = _safe(described(picture))
    return (
        f'<svg{space} class="lx" role="img" viewBox="0 0 {WIDTH:g} {height:g}" width="{WIDTH:g}" height="{height:g}">'
        f"<title>{title}</title>{f'<style>{STYLE}</style>' if style else ''}{''.join(body)}</svg>"
    )


def described(picture: Picture) -> str:
    """The picture in a sentence, for those who cannot see it."""
    sides = [f"{form}: {', '.join(map(_named, drawings))}" for form, drawings in _sides(picture) if drawings]
    return " to ".join(sides)


def _sides(picture: Picture) -> tuple[tuple[str, tuple[Drawing, ...]], ...]:
    return ((picture.source, picture.here), (picture.target, picture.there))


def _named(drawing: Drawing) -> str:
    return f"{drawing.tensor} ({', '.join(f'{a} {n}' for a, n in zip(drawing.axes, drawing.shape, strict=True))})"


def _column(drawings: Sequence[Drawing], left: float, widest: float) -> Iterator[_Box]:
    """Drawings below each other; their sides grow with the logarithm, so that a bias and a kernel fit one picture."""
    top = LINE + 9
    for drawing in drawings:
        width = _length(drawing.columns, widest)
        height = 20.0 if drawing.rows == 1 else max(_length(drawing.rows, widest), 24.0)
        top += LINE * (1 + len(_axes(drawing, left)))
        yield _Box(drawing, left, top, width, height)
        top += height + GAP


def _length(count: int, most: float) -> float:
    return min(most, 22.0 + 11.0 * log2(max(count, 1)))


def _drawn(box: _Box, part: str | None, reached: Collection[tuple[str, str]] | None = None) -> Iterator[str]:
    """A drawing with its name, its axes and its blocks; blocks that nothing reaches are empty.

    part: the one that the picture points at, the others are faded; None where it points at nothing.
    """
    drawing = box.drawing
    axes = _axes(drawing, box.left)
    y = box.top - 4 - LINE * len(axes)
    yield _head(box.left, y, drawing.tensor)
    for number, line in enumerate(axes, 1):
        yield _text(box.left, y + LINE * number - 1, line, "dim")
    for block in drawing.blocks:
        faded = part is not None and block.part != part
        yield from _block(box, block, faded, reached is not None and (drawing.tensor, block.part) not in reached)
    yield f'<rect class="frame" x="{box.left:g}" y="{box.top:g}" width="{box.width:g}" height="{box.height:g}"/>'
    if drawing.spot:
        yield from (_rect(box, r, c, "spot") for r, c in _tiles(drawing.spot[0], drawing.spot[1]))


def _axes(drawing: Drawing, left: float) -> list[str]:
    """`↓ input 7`, `→ gate×hidden 20`: what its rows are, and its columns, in the lines that they take beside the other
    side; axes of length one are not told."""
    room = int(_room(left) / LETTER)
    down, along = (_product(drawing, *ends) for ends in ((0, drawing.split), (drawing.split, len(drawing.axes))))
    shown = [f"{arrow} {text}" for arrow, text in (("↓", down), ("→", along)) if text]
    return [line for text in shown for line in _broken(text, room)]


def _broken(text: str, room: int) -> Iterator[str]:
    """The text in lines of at most `room` letters, broken before a × or a + where there is one."""
    while len(text) > room:
        at = max(text.rfind(sign, 4, room) for sign in ("×", "+"))
        if at < 0:
            text = text[: room - 1] + "…"
            break
        yield text[:at].rstrip()
        text = f"   {text[at:]}"
    yield text


def _product(drawing: Drawing, first: int, last: int) -> str:
    named = zip(drawing.axes[first:last], drawing.shape[first:last], strict=True)
    return " × ".join(f"{name} {size}" for name, size in named if size != 1)


def _block(box: _Box, block: Block, pale: bool, empty: bool) -> Iterator[str]:
    faded = (" faded" if pale else "") + (" empty" if empty else "")
    tiles = list(_tiles(block.rows, block.columns))
    for rows, columns in tiles:
        yield _rect(box, rows, columns, f"block {colour(block)}{faded}", block.part)
    if not tiles:
        return
    rows, columns = max(tiles, key=lambda t: (t[0][1] - t[0][0]) * (t[1][1] - t[1][0]))
    x, y, width, height = _pixels(box, rows, columns)
    name = ("−" if block.negated else "") + (block.label or block.role)
    told = "no source: filled" if empty else ""
    for shown in (told, name, block.label.rsplit(" ", 1)[-1] if block.label else ""):
        if shown and 6.2 * len(shown) + 3 <= width and height >= 11:
            middle = f'x="{x + width / 2:g}" y="{y + height / 2 + 4:g}" text-anchor="middle"'
            yield f'<text {middle} class="{"faded" if pale else ""}">{_safe(shown)}</text>'
            break


def colour(block: Block) -> str:
    """The class of a block's colour: kernel, recurrent, bias or state."""
    if block.state:
        return "state"
    if "recurrent" in block.role and not block.role.startswith("b"):
        return "recurrent"
    return "bias" if block.role.startswith("b") or block.role in ("gamma", "scale", "alpha") else "kernel"


def _tiles(rows: Runs, columns: Runs) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """The rectangles of a block; of very many stripes the first ones, and the last."""
    yield from ((r, c) for r in _some(rows) for c in _some(columns))


def _some(runs: Runs) -> Runs:
    return runs if len(runs) <= MOST_STRIPES else (*runs[: MOST_STRIPES - 1], runs[-1])


def _pixels(box: _Box, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[float, float, float, float]:
    across, down = box.width / max(box.drawing.columns, 1), box.height / max(box.drawing.rows, 1)
    width, height = max((columns[1] - columns[0]) * across, 0.8), max((rows[1] - rows[0]) * down, 0.8)
    return box.left + columns[0] * across, box.top + rows[0] * down, width, height


def _rect(box: _Box, rows: tuple[int, int], columns: tuple[int, int], kind: str, title: str = "") -> str:
    x, y, width, height = _pixels(box, rows, columns)
    inside = f"<title>{_safe(title)}</title>" if title else ""
    return f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}">{inside}</rect>'


def _paths(picture: Picture, here: Sequence[_Box], there: Sequence[_Box], pointed: bool) -> Iterator[str]:
    """A line from every block to its new place; one a tensor where there are too many."""
    left = {(box.drawing.tensor, block.part): (box, block) for box in here for block in box.drawing.blocks}
    right = {(box.drawing.tensor, block.part): (box, block) for box in there for block in box.drawing.blocks}
    seen = set[tuple[str, str]]()
    for link in picture.links:
        pair = (link.source[0], link.target[0])
        if (len(picture.links) > MOST_LINKS and pair in seen) or link.source not in left or link.target not in right:
            continue
        seen.add(pair)
        (x, y), (u, v) = _way_out(*left[link.source]), _way_in(*right[link.target])
        kind = colour(left[link.source][1]) + (" turned" if link.turned else "")
        kind += " faded" if pointed and link.source[1] != picture.part else ""
        start, *bend = (f"{point[0]:.1f} {point[1]:.1f}" for point in (x, y, u, v))
        yield f'<path class="{kind}" d="M{start}C{" ".join(bend)}"/>'


def _way_out(box: _Box, block: Block) -> tuple[_Point, _Point]:
    """Where a line leaves its block, and towards where: at its right, or below where other blocks stand there."""
    x, y, width, height = _largest(box, block)
    if x + width > box.left + box.width - 1:
        return (x + width, y + height / 2), (x + width + 50, y + height / 2)
    return (x + width / 2, y + height), (x + width / 2, y + height + 30)


def _way_in(box: _Box, block: Block) -> tuple[_Point, _Point]:
    """From where a line comes to a block, and where it ends."""
    x, y, width, height = _largest(box, block)
    if x < box.left + 1:
        return (x - 50, y + height / 2), (x, y + height / 2)
    return (x + width / 2 - 30, y + height + 30), (x + width / 2, y + height)


def _largest(box: _Box, block: Block) -> tuple[float, float, float, float]:
    rows = max(block.rows, key=lambda run: run[1] - run[0], default=(0, 1))
    columns = max(block.columns, key=lambda run: run[1] - run[0], default=(0, 1))
    return _pixels(box, rows, columns)


def _room(left: float) -> float:
    """What a text has beside the other side, or up to the edge."""
    return (RIGHT if left < RIGHT else WIDTH) - left


def _head(x: float, y: float, text: str) -> str:
    """A name; one that is too long is set narrower, whatever the font."""
    room = _room(x) - 4
    narrow = f' textLength="{room:g}" lengthAdjust="spacingAndGlyphs"' if BOLD * len(text) > room else ""
    return _text(x, y, text, "head", narrow)


def _text(x: float, y: float, text: str, kind: str, more: str = "") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}"{more}>{_safe(text)}</text>'


def _safe(text: str) -> str:
    """A text as XML holds it: control characters are none of its letters."""
    return escape(visible(text))


def _code(lines: Sequence[str]) -> Iterator[str]:
    found = [part for line in lines for part in _wrapped(line, 60)]
    yield from found[:MOST_CODE]
    if len(found) > MOST_CODE:
        yield f"…  ({len(found) - MOST_CODE} more lines: layoutx plan --code)"


def _wrapped(line: str, width: int) -> Iterator[str]:
    while len(line) > width:
        at = max(line.rfind(sign, 0, width) for sign in (", ", ".", " ")) + 1
        at = at if at > width // 2 else width
        yield line[:at].rstrip()
        line = "    " + line[at:].lstrip()
    yield line
