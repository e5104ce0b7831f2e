"""Layers that could be exchanged without anything noticing: what is said of them, and what would tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from layoutx.show.tables import clean, plural
from layoutx.verify.outcome import EndToEnd
from layoutx.words import listed

TIME_FIRST = "time before batch (a batch_first that was forgotten?)"
MOST = 3  # groups that are written out, and layers of each
NOTICED = (
    "Exchanged they would fit and be proved as well: run both models (`layoutx validate`, `layoutx port`), or say "
    "which is which with --pair."
)


def exchangeable(layers: Iterable[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """Layers (name, the first that it could be exchanged with, or "") group by group."""
    groups: dict[str, list[str]] = {}
    for name, first in layers:
        if first:
            groups.setdefault(first, []).append(name)
    return tuple(tuple(names) for names in groups.values())


def groups_of(certificate: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """The groups that a certificate names, as far as they are lists of names."""
    found = certificate.get("alike")
    lists = (names for names in found if isinstance(names, list)) if isinstance(found, list) else ()
    return tuple(tuple(names) for names in lists if names and all(isinstance(name, str) for name in names))


def placed_text(groups: Sequence[Sequence[str]], many: int) -> str:
    """What the first line says of them; "" where there are none. `many`: all layers."""
    told = sum(map(len, groups))
    return f", {told} of {many} where habit alone puts them" if told else ""


def given_text(end: EndToEnd, groups: Sequence[Sequence[str]]) -> str:
    """What the first line says of outputs that agree in part, or of inputs in another order; "" where neither is so."""
    only, order = f" ({clean(end.only)})" if end.only else "", end.mixed
    if not order:
        return f"{only} if the target is given {TIME_FIRST}" if end.late else only
    told = " (or in their own order, were layers exchanged that habit alone puts where they are)" if groups else ""
    return f"{only} if the target is given inputs {', '.join(str(i + 1) for i in order)} in this order{told}"


def exchange_text(groups: Sequence[Sequence[str]], file: str = "") -> Iterator[str]:
    """What a person has to know of them; `file`: whose names they are, where that does not show."""
    if not groups:
        return
    shown = "; ".join(listed([*map(clean, names)], MOST) for names in groups[:MOST])
    more = f"; and {plural(len(groups) - MOST, 'group')} more" if len(groups) > MOST else ""
    inside = f" in {clean(file)}" if file else ""
    yield f"Layers of one shape{inside} that names, numbers or order alone tell apart: {shown}{more}. " + NOTICED
