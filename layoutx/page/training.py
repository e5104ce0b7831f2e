"""A training on the page: metrics, norms and update ratios over the steps, and the evolution of every unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from layoutx.history.reader import Recorded, Track
from layoutx.page.charts import lines
from layoutx.page.document import Section
from layoutx.page.heat import heat
from layoutx.page.html import Html, tag
from layoutx.page.table import Cell, number, table

TOGETHER = 8  # lines in one chart
MOST_UNITS = 200  # heat maps of units; a model of more tensors shows the first ones, and says so
GUIDE = "An update of about 0.001 of the norm a step is usual; far less hardly learns, far more may not settle."


def sections(found: Recorded) -> Iterator[Section]:
    """Metrics, a table of tensors, norms, updates and units."""
    steps = found.steps.astype(float).tolist()
    if found.logs:
        drawn = [lines([(name, steps, values.tolist())], name) for name, values in found.logs.items()]
        yield Section("metrics", "Metrics", tag("div", drawn))
    heads = ("layer", "tensor", "norm at first", "norm at last", "moved in all", "largest update a step", "NaN or ∞")
    yield Section("tensors", "Tensors", table(heads, map(_row, found.tracks), [t.layer for t in found.tracks]))
    yield Section("norms", "Norms", tag("div", _charts(found, steps, "norms")))
    yield Section("updates", "Updates", tag("div", tag("p", GUIDE, class_="dim"), _charts(found, steps, "update")))
    yield Section("units", "Units", tag("div", _units(found)))
    notes = [
        *found.notes,
        *([f"{found.torn} bytes behind the last whole moment were left by a crash"] if found.torn else []),
    ]
    if notes:
        yield Section("notes", "Notes", tag("ul", [tag("li", note) for note in notes]))


def _row(track: Track) -> list[Cell | str]:
    norms, updates = track.norms, track.update
    known = np.isfinite(track.moved)
    moved = float(track.moved[known].sum()) if known.any() else None
    largest = float(np.nanmax(updates)) if np.isfinite(updates).any() else None
    ends = (float(norms[0]), float(norms[-1])) if len(track) else (None, None)
    broken = int(np.nanmax(track.broken)) if len(track) else 0
    shown = f"{track.name} ({', '.join(track.axes[1:])})"
    return [
        track.layer,
        shown,
        number(ends[0]),
        number(ends[1]),
        number(moved),
        number(largest),
        Cell(f"{broken:,}", broken, True),
    ]


def _charts(found: Recorded, steps: Sequence[float], what: str) -> Iterator[Html]:
    tracks = [track for track in found.tracks if np.isfinite(getattr(track, what)).any()]
    for first in range(0, len(tracks), TOGETHER):
        some = tracks[first : first + TOGETHER]
        series = [(f"{t.layer} {t.name}", steps, getattr(t, what).tolist()) for t in some]
        title = f"{some[0].layer} to {some[-1].layer}" if some[0].layer != some[-1].layer else some[0].layer
        yield lines(series, title, log=True)


def _units(found: Recorded) -> Iterator[Html]:
    """The norm of each unit over the moments, its change since the first one: blue shrank, orange grew."""
    tracks = [track for track in found.tracks if track.unit and len(track) > 1]
    yield tag(
        "p",
        "The norm of each unit less what it was at first: a row a unit, a column a moment; blue shrank, orange grew.",
        class_="dim",
    )
    for track in tracks[:MOST_UNITS]:
        change = track.units().astype(np.float64)
        drawn = heat((change - change[0]).T)
        rows, columns = drawn.shape
        scale = max(2, min(10, 480 // max(columns, 1)))
        size = {"width": columns * scale, "height": max(rows * max(scale // 2, 2), 14)}
        image = tag(
            "img",
            src=Html(drawn.png),
            alt=f"units of {track.layer} {track.name}",
            class_="heat",
            loading="lazy",
            **size,
        )
        yield tag(
            "figure", tag("h3", f"{track.layer} {track.name}, by {track.unit}"), image, tag("figcaption", drawn.caption)
        )
    if len(tracks) > MOST_UNITS:
        yield tag("p", f"{len(tracks) - MOST_UNITS} more tensors are in the history.")
