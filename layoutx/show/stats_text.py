"""The numbers of a model for a terminal, the findings first; and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from layoutx.show.tables import Cell, Line, Note, clean, grid, plural, prose, row
from layoutx.words import listed

if TYPE_CHECKING:
    from layoutx.stats import LayerStats, Stats
    from layoutx.verify.stats.finding import Finding

TOGETHER = 3  # findings of one rule that are told one by one
MOST = 12
STYLES = {"wrong": "wrong", "suspect": "rounds", "note": "dim"}


def as_dict(found: Stats) -> dict[str, Any]:
    """Everything, as JSON; what is not a number is null."""
    return {
        "file": found.file,
        "framework": found.framework,
        "ok": found.ok,
        "findings": [finding.to_dict() for finding in found.findings],
        "layers": [
            {
                "name": layer.name, "class": layer.class_name, "form": layer.form, "spectral": layer.spectral,
                "gain": layer.gain, "note": layer.note,
                "tensors": [{"name": t.name, "key": t.key, "text": t.text, "spectral": t.spectral,
                             **t.numbers.to_dict()} for t in layer.tensors],
            }
            for layer in found.layers
        ],
        "seconds": found.seconds,
    }  # fmt: skip


def as_text(found: Stats, width: int, color: bool) -> str:
    """The answer, every finding with its reason and remedy, and the table."""
    parts = [prose(_answer(found), width, color, "head")]
    rules = dict.fromkeys(finding.rule for finding in found.findings)
    for rule in rules:
        own = [finding for finding in found.findings if finding.rule == rule]
        parts += [_together(own, width, color)] if len(own) > TOGETHER else [_one(x, width, color) for x in own]
    head = ["", "mean", "std", "min", "max", "zero", "norm", "spectral"]
    table = grid(head, _rows(found.layers), width, color) if found.layers else "  no layer has weights"
    return "\n\n".join([*parts, table, prose(EXPLAINED, width, color, "dim")])


EXPLAINED = (
    "norm: root of the sum of squares. spectral: largest singular value of the kernel as (outputs, inputs); of a "
    "convolution as (out, in x kernel positions), of blocks apart (groups, directions) the largest."
)


def _answer(found: Stats) -> str:
    name = clean(found.file) or "the model"
    counts = [(sum(f.level == level for f in found.findings), level) for level in ("wrong", "suspect", "note")]
    words = [f"{n} {'wrong' if level == 'wrong' else level + ('s' if n > 1 else '')}" for n, level in counts if n]
    tensors = sum(len(layer.tensors) for layer in found.layers)
    about = f"{plural(len(found.layers), 'layer')} with weights, {plural(tensors, 'tensor')}"
    return f"{name}: {', '.join(words) if words else 'nothing stands out'} in {about}."


def _one(finding: Finding, width: int, color: bool) -> str:
    first = f"{finding.level}  {clean(finding.layer)}: {clean(finding.what, 300)}"
    lines = [prose(first, width, color, STYLES[finding.level])]
    lines += [prose(clean(text, 400), width, color, indent=6) for text in (finding.where, finding.why, finding.do)]
    return "\n".join(lines)


def _together(own: Sequence[Finding], width: int, color: bool) -> str:
    """Many layers with one finding: said once, the layers listed."""
    first, count = own[0], sum(finding.count for finding in own)
    names = list(dict.fromkeys(clean(finding.layer) for finding in own))
    about = f", {count:,} in all" if count > len(own) else ""
    lines = [prose(f"{first.level}  {first.rule}: {plural(len(names), 'layer')}{about}", width, color,
                   STYLES[first.level])]  # fmt: skip
    lines.append(prose(listed(names, MOST), width, color, indent=6))
    lines.append(prose(f"{clean(first.layer)}: {clean(first.what, 300)} ({clean(first.where, 200)})", width, color,
                       indent=6))  # fmt: skip
    lines += [prose(clean(text, 400), width, color, indent=6) for text in (first.why, first.do)]
    return "\n".join(lines)


def _rows(layers: Sequence[LayerStats]) -> Iterator[Line]:
    for layer in layers:
        yield Note("  ".join(filter(None, (clean(layer.name), clean(layer.class_name or layer.form)))), 2, "head")
        if layer.note:
            yield Note(clean(layer.note, 300), 6, "dim")
        for tensor in layer.tensors:
            n = tensor.numbers
            bad = n.nan + n.inf
            zero = f"{n.zeros:.0%}" if n.zeros >= 0.01 or not n.zero else "<1%"
            spectral = "" if tensor.spectral is None else f"{tensor.spectral:.3g}"
            wrong = Cell(f"{bad} not finite", "wrong") if bad else Cell(zero if n.zero else "")
            figures = (f"{x:.2g}" for x in (n.mean, n.std, n.min, n.max))
            yield row(f"  {clean(tensor.text)}", *figures, wrong, f"{n.norm:.3g}", spectral)
