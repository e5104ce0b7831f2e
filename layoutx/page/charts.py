"""Small charts as SVG: a histogram, bars of errors, lines over steps. They take the page's colour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from math import isfinite, log10

import numpy as np

from layoutx.page.html import Html, tag
from layoutx.plan.plan import Array

BINS = 40


def histogram(values: Array) -> Html:
    """The distribution of finite numbers; heights are square roots of counts, so that tails show."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Html("")
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        return tag("span", f"all {low:.4g}", class_="dim")
    counts, _ = np.histogram(finite.astype(np.float64, copy=False), BINS, (low, high))
    tall = np.sqrt(counts / counts.max()) * 30
    bars = "".join(f"M{n * 3} 31v-{max(h, 0.6):.1f}h2.6v{max(h, 0.6):.1f}z" for n, h in enumerate(tall) if counts[n])
    zero = -low / (high - low) * BINS * 3
    mark = tag("path", d=f"M{zero:.1f} 0V31", class_="zero") if low < 0 < high else None
    said = f"{values.size:,} numbers from {low:.4g} to {high:.4g}; heights are square roots of counts"
    chart = tag("svg", tag("title", said), mark, tag("path", d=bars), viewBox="0 0 120 32", class_="hist", role="img")
    return tag("figure", chart, tag("figcaption", f"{low:.3g} … {high:.3g}"), class_="histogram")


def error_bar(value: float | None, good: bool) -> Html:
    """A difference on a logarithmic scale from 1e-18 to 10."""
    if value is None or not isfinite(value):
        return Html("")
    share = min(max((log10(max(value, 1e-18)) + 18) / 19, 0.0), 1.0)
    bar = tag("rect", x=0, y=3, width=f"{max(share * 120, 1):.1f}", height=8, class_="good" if good else "wrong")
    marks = tag("path", d="".join(f"M{(power + 18) / 19 * 120:.1f} 0V14" for power in (-12, -6, 0)), class_="grid")
    said = f"{value:.3g}, from 1e-18 to 10; marks at 1e-12, 1e-6 and 1"
    return tag("svg", tag("title", said), marks, bar, viewBox="0 0 120 14", class_="errorbar", role="img")


def lines(series: Sequence[tuple[str, Sequence[float], Sequence[float]]], title: str, log: bool = False) -> Html:
    """Named lines over steps: (name, steps, values), with a legend; a logarithmic height where asked.

    Values that have no place (NaN, or not positive where logarithmic) leave a gap.
    """
    kept = [(name, list(_runs(xs, ys, log))) for name, xs, ys in series]
    points = [point for _, runs in kept for run in runs for point in run]
    if not points:
        return tag("p", f"{title}: nothing to draw", class_="dim")
    scale = log10 if log else float
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(scale(y) for _, y in points), max(scale(y) for _, y in points)
    wide, tall = (right - left) or 1.0, (high - low) or 1.0

    def place(x: float, y: float) -> str:
        return f"{52 + (x - left) / wide * 430:.1f} {150 - (scale(y) - low) / tall * 132:.1f}"

    drawn = []
    for number, (name, runs) in enumerate(kept):
        path = "".join("M" + "L".join(place(x, y) for x, y in run) + "h3" * (len(run) == 1) for run in runs)
        drawn.append(tag("path", tag("title", name), d=path, class_=f"line c{number % 8}", fill="none"))
    ends = ((low, 150), (low + tall / 2, 84), (high, 18)) if high > low else ((low, 150),)
    marks = [
        tag("text", f"{10**at if log else at:.3g}", x=48, y=y + 4, class_="tick", text_anchor="end") for at, y in ends
    ]
    marks += [tag("path", d=f"M52 {y}H482", class_="grid") for _, y in ends]
    marks += [
        tag("text", f"{x:g}", x=px, y=166, class_="tick", text_anchor=anchor)
        for x, px, anchor in ((left, 52, "start"), (right, 482, "end"))[: 1 + (right > left)]
    ]
    legend = [tag("span", tag("i", class_=f"c{n % 8}"), name, class_="key") for n, (name, _) in enumerate(kept)]
    chart = tag("svg", tag("title", title), marks, drawn, viewBox="0 0 490 172", class_="lines", role="img")
    return tag(
        "figure",
        tag("figcaption", title),
        chart,
        tag("div", legend, class_="legend") if len(kept) > 1 else None,
        class_="chart",
    )


def _runs(xs: Sequence[float], ys: Sequence[float], log: bool) -> Iterator[list[tuple[float, float]]]:
    """The stretches between values that have no place."""
    for drawn, run in groupby(zip(xs, ys, strict=True), lambda point: _drawable(point[1], log)):
        if drawn:
            yield list(run)


def _drawable(value: float, log: bool) -> bool:
    return isfinite(value) and (value > 0 or not log)
