"""What the numbers of a model show when something is wrong: findings first, norms in the table of layers."""

from __future__ import annotations

from collections.abc import Iterator

from layoutx.page.document import Section
from layoutx.page.model import Told
from layoutx.page.table import Cell, number, table, verdict
from layoutx.stats import Stats
from layoutx.verify.stats.finding import Finding
from layoutx.words import listed

LEVELS = {"wrong": "FAIL", "suspect": "SUSPECT", "note": "NOTE"}


def sections(found: Stats) -> Iterator[Section]:
    """The findings, a row a rule with the layers that it is about; nothing where there are none."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in found.findings:
        groups.setdefault((finding.level, finding.rule), []).append(finding)
    rows = [_row(level, rule, same) for (level, rule), same in groups.items()]
    if rows:
        heads = ("", "finding", "layers", "what", "why it matters", "what to do")
        yield Section("findings", "What stands out", table(heads, rows))


def _row(level: str, rule: str, same: list[Finding]) -> list[Cell | str]:
    first, names = same[0], list(dict.fromkeys(finding.layer for finding in same))
    what = f"{first.what}: {first.where}" if len(names) == 1 else f"{first.what}: {first.where} ({names[0]})"
    return [Cell(verdict(LEVELS[level]), level), rule, listed(names), what, first.why, first.do]


def told(found: Stats) -> Told:
    """Norms by layer, as columns."""
    norms = {x.name: sum(t.numbers.norm**2 for t in x.tensors) ** 0.5 for x in found.layers}
    far = {name: (number(norm).shown, norm) for name, norm in norms.items()}
    spectral = {x.name: (number(x.spectral).shown, x.spectral) for x in found.layers if x.spectral is not None}
    return Told({"norm": far, "spectral norm": spectral})
