"""A conversion on the page: each layer with how exact and how proved, settings to carry, every key, the certificate."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from layoutx.page.document import Section
from layoutx.page.html import Html, tag
from layoutx.page.model import Told
from layoutx.page.table import Cell, difference, number, table
from layoutx.report import Report
from layoutx.show.alike_text import exchange_text
from layoutx.show.beside_text import supposed_text
from layoutx.show.kept_text import unwritten_text
from layoutx.show.report_lines import LayerLine

HEADS = ("layer", "from, to", "tensors", "exactness", "difference", "proof")


def sections(report: Report) -> Iterator[Section]:
    """What was converted, what the target must be told, and where every key went."""
    rows = [_row(line) for line in report.layers]
    said = [tag("p", text) for text in (*exchange_text(report.alike), *supposed_text(report.supposed))]
    moved = table(HEADS, rows, [line.name for line in report.layers])
    yield Section("layers-moved", "Layers that were moved", tag("div", said, moved))
    settings = {line.name: line.settings for line in report.layers if line.settings}
    if settings or report.remarks:
        told = [tag("li", tag("b", name), tag("ul", [tag("li", line) for line in s])) for name, s in settings.items()]
        told += [tag("li", tag("b", name), ": ", note) for name, note in report.remarks.items()]
        yield Section("settings", "Set these on the target", tag("ul", told))
    yield Section("keys", "Every key", _keys(report))
    certificate = json.dumps(report.certificate(), indent=2, ensure_ascii=False, default=str)
    yield Section("certificate", "Certificate", tag("pre", certificate))


def told(report: Report) -> Told:
    """What the conversion says of each layer of the source."""
    exact = {line.name: (line.exactness, line.exactness) for line in report.layers}
    far = {line.name: (number(line.proof.largest).shown, line.proof.largest or 0.0) for line in report.layers}
    cards = {line.name: tag("ul", [tag("li", note) for note in line.notes]) for line in report.layers if line.notes}
    plans = {line.name: line.plan for line in report.layers if line.plan is not None}
    return Told({"exactness": exact, "difference": far}, cards, plans)


def _row(line: LayerLine) -> list[Cell | str]:
    tensors = tag("div", [tag("div", tensor.text) for tensor in line.tensors])
    proof = line.proof
    shown = f"{proof.method} {proof.dtype}".strip() or proof.note
    forms = tag("div", tag("div", line.source), tag("div", line.target))
    return [line.name, Cell(forms, line.source), Cell(tensors), line.exactness, difference(proof.largest, True), shown]


def _keys(report: Report) -> Html:
    used = f"{report.tensors_used} of {report.tensors_total} source tensors used"
    parts = [tag("p", f"{used}, {report.keys_written} of {report.keys_total} target keys written.")]
    parts += [tag("p", text) for text in unwritten_text(report)]
    keys: list[list[Cell | str]] = []
    for line in report.layers:
        for tensor in line.tensors:
            here = " + ".join(tensor.sources) or (f"filled with {tensor.fill:g}" if tensor.fill is not None else "")
            keys.append([line.name, here, tag("code", tensor.key), tensor.exactness])
    parts.append(table(("layer", "source tensor", "target key", "exactness"), keys))
    lists: tuple[tuple[str, Mapping[str, str]], ...] = (
        ("Layers left out", report.skipped),
        ("Source tensors that no layer owns", report.leftover),
        ("Tied", report.tied),
        ("Layers without weights", report.weightless),
    )
    for title, found in lists:
        if found:
            items = [tag("li", tag("code", name), f": {why}") for name, why in found.items()]
            parts.append(tag("details", tag("summary", f"{title} ({len(found)})"), tag("ul", items)))
    return tag("div", parts)
