"""A proposed pairing as text: one line a layer with the reason and how sure it is, then what is left on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from layoutx.model.record import UNTRAINED
from layoutx.show.alike_text import exchange_text
from layoutx.show.tables import Cell, Line, Note, clean, grid, plural, prose, row

if TYPE_CHECKING:
    from layoutx.match import Match

DOUBTFUL = 0.8
MOST = 12


def match_text(found: Match, width: int, color: bool) -> str:
    """The whole pairing, at most `width` columns wide."""
    joint = found.joint
    head = f"{clean(found.source)}  {found.frameworks[0]}   →   {clean(found.target)}  {found.frameworks[1]}"
    parts = [prose(head, width, color)]
    if joint.pairs:
        parts.append(grid(("layer", *found.frameworks, "sure", "because"), _pairs(found), width, color))
    parts += [grid(("", ""), lines, width, color) for lines in (list(_open(found)), list(_left(found))) if lines]
    parts += [prose(text, width, color) for text in exchange_text(found.alike)]
    return "\n".join([*parts, prose(_sum(found), width, color)])


def _pairs(found: Match) -> Iterator[Line]:
    from layoutx.match import place_of

    for pair in found.joint.pairs:
        style = "rounds" if pair.confidence < DOUBTFUL else "moves"
        yield row(
            clean(pair.source.name),
            clean(pair.source.bound.form.class_name),
            clean(place_of(pair) or "(top level)"),
            Cell(f"{pair.confidence:.2f}", style),
            clean(pair.reason),
        )
        if pair.problem is not None:
            yield Note(f"cannot be converted: {clean(pair.problem.what)}", 6, "wrong")


def _open(found: Match) -> Iterator[Line]:
    if found.joint.open:
        yield Note("ambiguous: nothing decides between these", 0, "head")
    for name, places in found.joint.open.items():
        shown = " | ".join(clean(p or "(top level)") for p in places[:MOST])
        yield row(clean(name), Cell(shown + (" | ..." if len(places) > MOST else ""), "rounds"))


def _left(found: Match) -> Iterator[Line]:
    joint = found.joint
    for title, table in (
        ("in the source without a counterpart", joint.lost),
        ("left out", joint.skipped),
        ("batch norms that one side has folded into the convolution before them", joint.folded),
        ("in the target without a layer", joint.unused),
    ):
        if table:
            yield Note(title, 0, "head")
        for name, why in list(table.items())[:MOST]:
            yield row(clean(name), clean(why, 160))
        if len(table) > MOST:
            yield Note(f"... and {len(table) - MOST} more", 2, "dim")
    for why, many in Counter(joint.leftover.values()).items():
        yield Note(f"in no layer of the source: {plural(many, 'tensor')}, {clean(why, 160)}", 0, "dim")
    if joint.spare:
        own = dict.fromkeys(clean(why) for why in joint.spare.values() if why.endswith(UNTRAINED))
        what = ", ".join(own) or "constants of the graph, and what its weights are made of"
        yield Note(f"in no layer of the target: {plural(len(joint.spare), 'tensor')}, {what}", 0, "dim")


def _sum(found: Match) -> str:
    joint = found.joint
    layers = len(joint.pairs) + len(joint.open) + len(joint.lost)
    text = f"{len(joint.pairs)} of {layers} layers paired"
    more = [
        f"{len(joint.open)} ambiguous" if joint.open else "",
        f"{len(joint.lost)} without a counterpart" if joint.lost else "",
        f"{len(joint.unused)} tensors of the target without a layer" if joint.unused else "",
    ]
    return f"{', '.join([text, *filter(None, more)])}. {found.seconds:.2f} s."
