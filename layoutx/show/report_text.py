"""A report as a terminal shows it, the answer first, and as JSON."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from layoutx.show.alike_text import exchange_text, given_text, placed_text
from layoutx.show.beside_text import left_out, recognised
from layoutx.show.kept_text import kept_answer, rounded_text, unwritten_text
from layoutx.show.settings_text import apart_text, without_text
from layoutx.show.supposed_text import supposed_text, usual_text
from layoutx.show.tables import Cell, Line, Note, clean, grid, plural, prose, row, size_text
from layoutx.verify.outcome import UNASKED
from layoutx.words import listed

if TYPE_CHECKING:
    from layoutx.report import Report
    from layoutx.show.report_lines import LayerLine, TensorLine
    from layoutx.verify.outcome import Proof

FEW = 3  # layers that are named in a cell
MOST_LAYERS = 1000  # that have rows of their own
_NUMBER = re.compile(r"\d+")
SINCE = ", since "  # what comes before the reason why a framework was not used


def as_dict(report: Report) -> dict[str, Any]:
    """Everything a report knows, as JSON."""
    return {
        "source": dict(report.source),
        "target": report.target,
        "output": report.output,
        "exactness": report.exactness,
        "round_trip": report.round_trip,
        "largest": report.largest,
        "layers": [layer_dict(layer) for layer in report.layers],
        "weightless": dict(report.weightless),
        "remarks": dict(report.remarks),
        "skipped": dict(report.skipped),
        "leftover": dict(report.leftover),
        "tied": dict(report.tied),
        "kept": report.kept,
        "rounded": dict(report.rounded),
        "tensors": {"used": report.tensors_used, "of": report.tensors_total},
        "keys": {"written": report.keys_written, "of": report.keys_total, "unwritten": list(report.unwritten)},
        "bytes": report.nbytes,
        "shards": report.shards,
        "there": report.there,
        "end_to_end": asdict(report.end_to_end) if report.end_to_end is not None else None,
        "seconds": report.seconds,
        "sha256": report.sha256,
        "alike": [list(names) for names in report.alike],
        "supposed": list(report.supposed),
        "again": report.again,
        "back": asdict(report.back) if report.back is not None else None,
    }


def layer_dict(layer: LayerLine) -> dict[str, Any]:
    return {
        "name": layer.name,
        "class": layer.source_class,
        "source": layer.source,
        "target": layer.target,
        "exactness": layer.exactness,
        "tensors": [
            {
                "key": t.key,
                "name": t.name,
                "sources": dict(t.sources),
                "dims": t.dims,
                "order": t.order,
                "exactness": t.exactness,
                "fill": t.fill,
                "minus": list(t.minus),
            }
            for t in layer.tensors
        ],
        "proof": asdict(layer.proof),
        "reason": layer.reason,
        "settings": list(layer.settings),
        "notes": list(layer.notes),
        "witness": dict(layer.witness),
        "spec": layer.digest,
    }


def as_text(report: Report, width: int, color: bool) -> str:
    """The whole report: what came out, the table, what to set, what was left out, how it was proved."""
    head = ["layer", clean(report.source.get("framework", "")) or "source", report.target, "tensors", "exact", "proof"]
    parts = [
        *(prose(line, width, color, style) for line, style in _answer(report)),
        grid(head, _rows(report), width, color) if report.layers or not report.kept else "",
        *_settings(report, width, color),
        *left_out(report, width, color),
        "\n".join(prose(line, width, color) for line in _summary(report)),
    ]
    joined = parts[0] + "\n" + parts[1]
    return "\n\n".join([joined, *(part for part in parts[2:] if part)])


def _answer(report: Report) -> Iterator[tuple[str, str]]:
    name = clean(report.source.get("file", "")) or "the model"
    where = clean(Path(report.output).name) if report.output else "nothing written (dry run)"
    where += f" in {plural(report.shards, 'shard')}" if report.shards > 1 and report.output else ""
    yield f"{name} → {where}: {_same(report)}; {_exact(report)}.", "head"
    source = (clean(report.source.get(key, "")) for key in ("framework", "version"))
    about = [*source, "→", clean(report.target)]
    layers = len(report.layers) + len(report.weightless) + len(report.skipped)
    counts = [] if report.kept else [plural(layers, "layer")]
    counts.append(plural(report.tensors_total, "tensor"))
    if report.source.get("bytes"):
        counts.append(size_text(int(report.source["bytes"])))
    if report.nbytes and not report.output:
        files = f" in {plural(report.shards, 'shard')}" if report.shards > 1 else ""
        counts.append(f"would write {size_text(report.nbytes)}{files}")
    yield f"{' '.join(filter(None, about))}, {', '.join(counts)}", "dim"


def _same(report: Report) -> str:
    if report.kept and not report.layers:
        return kept_answer(report)
    end, without = report.end_to_end, without_text(report)
    if end is not None and end.agrees:
        return f"the models compute the same{apart_text(report.layers)}{given_text(end, report.alike)}{without}"
    proved = sum(layer.proof.largest is not None for layer in report.layers)
    some = f"{proved} of {len(report.layers)} layers compared, and these compute the same"
    said = {len(report.layers): "every layer computes the same", 0: "no layer compared"}.get(proved, some)
    whole = ", of the whole models nothing is known" if end is not None and end.note != UNASKED else ""
    whole = ", the whole models do not" if end is not None and end.agrees is False else whole
    placed = placed_text(report.alike, len(report.layers)) + usual_text(report.supposed)
    return said + placed + whole + (without if whole else "")


def _exact(report: Report) -> str:
    filled = sum(t.exactness == "fills" for layer in report.layers for t in layer.tensors)
    return {
        "moves": "every number moved bit for bit",
        "fills": f"bit for bit, {plural(filled, 'tensor')} filled in",
        "conditional": "what was left out changes nothing",
        "rounds": "some numbers were rounded, which is not reversible",
    }.get(report.exactness, report.exactness)


def _rows(report: Report) -> Iterator[Line]:
    often = Counter(note for layer in report.layers for note in layer.notes)
    for layer, like in _alike_layers(report.layers):
        proof = _proof(layer.proof)
        cells = [clean(layer.name), clean(layer.source_class) or _class(layer.source), _class(layer.target)]
        if not layer.tensors:
            yield row(*cells, "–", "", proof)
        for text, exactness, lines in collapsed(layer.tensors):
            yield row(*cells, Cell(clean(text), _style(lines)), Cell(exactness, exactness), proof)
            cells, proof = ["", "", ""], ""
        method, since, why = layer.proof.method.partition(SINCE)
        if since:
            yield Note(clean(f"computed with the {method}: {why}", 300), 6, "dim")
        if layer.reason and layer.reason != f"{layer.name} (same name)":
            yield Note(f"in the target: {clean(layer.reason)}", 6, "dim")
        for note in layer.notes:
            if often[note] == 1:
                yield Note(clean(note, 600), 6, "dim")
        if like:
            yield Note(f"and {len(like):,} more like it, the last: {clean(like[-1].name)}", 6, "dim")
    for note, count in often.items():
        if count > 1:
            names = [layer.name for layer in report.layers if note in layer.notes]
            yield Note(f"{clean(listed(names, FEW), 300)}: {clean(note, 600)}", 2, "dim")


def _alike_layers(layers: Sequence[LayerLine]) -> Iterator[tuple[LayerLine, Sequence[LayerLine]]]:
    """Each layer; of more than anybody reads, one for all that differ in the numbers of their names, with the others.

    --json lists every layer.
    """
    if len(layers) <= MOST_LAYERS:
        yield from ((layer, ()) for layer in layers)
        return
    groups: dict[tuple[Any, ...], list[LayerLine]] = {}
    for layer in layers:
        rows = tuple((t.name, t.dims, t.order, t.exactness, t.fill, *t.sources.items()) for t in layer.tensors)
        own = (_NUMBER.sub("#", layer.name), layer.source_class, layer.source, layer.target, _proof(layer.proof))
        groups.setdefault((*own, *rows), []).append(layer)
    yield from ((first, like) for first, *like in groups.values())


def _class(form: str) -> str:
    return clean(form.partition(".")[2] or form)


def _style(lines: list[TensorLine]) -> str:
    """The role's colour, told by the usual names."""
    name = " ".join([*lines[0].sources, lines[0].name])
    if len(lines) > 1 or lines[0].fill is not None or "moving" in name or "running" in name:
        return "state" if lines[0].fill is not None or "moving" in name else "bias"
    if "recurrent" in name or "_hh_" in name:
        return "recurrent"
    return "bias" if "bias" in name else "kernel"


def _proof(proof: Proof) -> str:
    if proof.largest is None:
        return "not computed"
    method = "NumPy" if proof.method.startswith("NumPy") else "live"
    return f"{method} {proof.largest:.1g}"


def _settings(report: Report, width: int, color: bool) -> Iterator[str]:
    """Layers that need the same settings share a row."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for layer in report.layers:
        if layer.settings:
            groups.setdefault(layer.settings, []).append(layer.name)
    for name, text in report.remarks.items():
        groups.setdefault((text,), []).append(name)
    if groups:
        lines = [row(clean(listed(names, FEW)), "\n".join(map(clean, texts))) for texts, names in groups.items()]
        yield prose("set these on the target", width, color, "head") + "\n" + grid(["", ""], lines, width, color)


def _summary(report: Report) -> Iterator[str]:
    dry = report.nbytes and not report.output
    used = f"{report.tensors_used} of {report.tensors_total} source tensors used"
    keys = f"{report.keys_written} of {report.keys_total} target keys {'made, none written' if dry else 'written'}"
    yield f"{used}, {keys}. Round trip {clean(report.round_trip, 400)}."
    yield from unwritten_text(report)
    if report.weightless:
        names = Counter(report.weightless.values())
        text = ", ".join(f"{clean(name)}{f' ×{count}' if count > 1 else ''}" for name, count in names.items())
        yield f"{plural(len(report.weightless), 'layer')} without weights: {text}."
    yield from rounded_text(report)
    yield from _forward(report)
    yield from exchange_text(report.alike)
    yield from supposed_text(report.supposed)
    unsaid = [layer.name for layer in report.layers if not layer.settled]
    if unsaid:
        unsaid_names = clean(listed(unsaid, FEW))
        yield f"The source does not tell settings (eps, padding, strides, ...): compare those of {unsaid_names}."
    if report.there is not None:
        none = "" if report.there else ": no run of this very conversion was stopped"
        yield f"{report.there:,} of {plural(report.shards, 'shard')} taken over{none}."
    yield from recognised(report)
    end = [f"{report.seconds:.2f} s."] if report.seconds is not None else []
    if report.output and report.certified:
        end.append(f"Certificate in the file's metadata (layoutx verify {quote(clean(report.output))}).")
    if end:
        yield " ".join(end)
    if report.sha256:
        yield f"Its SHA-256 is {report.sha256}."


def _forward(report: Report) -> Iterator[str]:
    end = report.end_to_end
    if end is not None and end.largest is not None:
        note = f" ({clean(end.note)})" if end.note else ""
        found = f"largest difference {_size(end.largest)}, outputs up to {end.scale:.2g}{note}"
        yield f"Whole models in {end.dtype}: {found}."
    elif end is not None:
        yield f"Whole models not compared: {clean(end.note)}."
    methods: dict[tuple[str, str], float] = {}
    for layer in report.layers:
        key = (layer.proof.method.partition(SINCE)[0], layer.proof.dtype)
        if layer.proof.largest is not None:
            methods[key] = max(methods.get(key, 0.0), layer.proof.largest)
    for (method, dtype), largest in methods.items():
        how = f"the {method}" if method.startswith("NumPy") else method
        yield f"Forward equality of each layer with {how} in {dtype}: largest difference {_size(largest)}."
    rest = [layer.name for layer in report.layers if layer.proof.largest is None]
    if rest:
        yield f"Outputs not compared: {clean(listed(rest, FEW))}."


def collapsed(lines: Sequence[TensorLine]) -> list[tuple[str, str, list[TensorLine]]]:
    """(text, exactness, tensors): neighbours that keep their dimensions share a line."""
    found: list[tuple[str, str, list[TensorLine]]] = []
    for line in lines:
        last = found[-1][2][-1] if found else None
        if last and _alike(last) and _alike(line) and (last.dims, last.exactness) == (line.dims, line.exactness):
            names, before = " ".join(line.sources), found[-1]
            text = before[0].removesuffix(f" {line.dims}") + f", {names} {line.dims}"
            found[-1] = (text, before[1], [*before[2], line])
        else:
            found.append((line.text, line.exactness, [line]))
    return found


def _alike(line: TensorLine) -> bool:
    return line.fill is None and not line.order and list(line.sources.values()) == [line.dims]


def _size(value: float) -> str:
    return f"{value:.1e}" if value else "0"
