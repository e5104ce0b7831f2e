"""Settings that layers are known to have otherwise, before anything is run: with a failure, and without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from layoutx.job.jobs import LEFT_OUT
from layoutx.model.differing import together
from layoutx.show.tables import clean
from layoutx.words import first, listed

if TYPE_CHECKING:
    from layoutx.report import Report
    from layoutx.show.report_lines import LayerLine

MOST = 8


def other_settings(layers: Iterable[LayerLine], said: str) -> list[str]:
    """Settings that are known to differ and that a text does not name yet, each with its layers."""
    found = [(clean(line, 400), names) for line, names in _differing(layers).items() if clean(line, 400) not in said]
    return first([f"not the source's: {line} ({listed([*map(clean, names)])})" for line, names in found], MOST)


def apart_text(layers: Iterable[LayerLine]) -> str:
    """What the first line says of such settings where the outputs agree: an epsilon shows on other inputs."""
    names = dict.fromkeys(name for own in _differing(layers).values() for name in own)
    return f", settings of {listed([*map(clean, names)])} apart" if names else ""


def _differing(layers: Iterable[LayerLine]) -> Mapping[str, list[str]]:
    return together((x.name, x.plan.source, x.plan.target) for x in layers if x.settled and x.plan is not None)


def without_text(report: Report) -> str:
    """What the first line says of layers that the user left out, and that stay in the target as they are."""
    names = [clean(name) for name, why in report.skipped.items() if why == LEFT_OUT]
    return f" ({listed(names, MOST)} left out)" if names else ""
