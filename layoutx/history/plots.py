"""A history as one picture: metrics, update ratios with their guide, norms, and how each unit's weights grew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import UsageError
from layoutx.files.atomic import check_place
from layoutx.history.reader import Recorded, Track
from layoutx.history.watched import Array

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c6d1f", "#56b4e9", "#7a3fb0", "#5b6770")
GREYS = ("#22272e", "#98a2b3", "#667085", "#c0c6d0")  # metrics are of no layer
INK, SOFT, LINE = "#22272e", "#6b7280", "#d9dde3"
GUIDE = 1e-3
MAPS = 4  # heat maps in a row
NAMED = len(COLORS)  # more layers than that are coloured by their depth
LONGEST = 22
SPREAD = 12  # norms that differ by more than this are drawn on a logarithmic scale
STYLE = {
    "font.family": "sans-serif", "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.titlecolor": INK, "axes.labelcolor": SOFT, "axes.edgecolor": LINE,
    "axes.spines.top": False, "axes.spines.right": False, "xtick.color": SOFT, "ytick.color": SOFT,
    "axes.grid": True, "grid.color": "#eceff3", "axes.axisbelow": True, "text.parse_math": False,
    "svg.fonttype": "none",
}  # fmt: skip


def plot(found: Recorded, path: Path) -> Path:
    """Write the picture; the ending of the path says the format (png, svg, pdf).

    Raises:
        UsageError: no picture can be written there; matplotlib is missing, nothing was recorded, or it knows no such
            format.
    """
    check_place(path)
    figure = figure_of(found)
    try:
        figure.savefig(path, dpi=150)
    except (ValueError, OSError) as error:
        raise UsageError(f"{path.name} cannot be drawn", why=str(error), do="name a .png, .svg or .pdf") from error
    return path


def figure_of(found: Recorded) -> Any:
    """The picture as a matplotlib Figure of its own: pyplot and its state are left alone.

    Raises:
        UsageError: matplotlib is missing, or fewer than two moments were recorded.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("the pictures need matplotlib", do="pip install 'layoutx[report]'") from error
    if len(found) < 2:
        raise UsageError(f"{found.path.name} holds {len(found)} moments", why="a line needs two")
    maps = _mapped(found)
    with rc_context(STYLE):
        figure: Any = Figure(figsize=(11, 7.6 + 3.1 * bool(maps)), facecolor="white", layout="constrained")
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1, wspace=0.04, hspace=0.05)
        title = f"{_short(found.path.name, 60)}: how the weights moved"
        figure.suptitle(title, x=0.012, ha="left", fontsize=13, fontweight="bold", color=INK)
        parts = figure.subfigures(2 + bool(maps), 1, height_ratios=[1, 1, 0.85][: 2 + bool(maps)])
        upper, lower = parts[0].subplots(1, 2), parts[1].subplots(1, 2)
        weights = [t for t in found.tracks if not t.state and len(t.shape) > 2]
        small = [t for t in found.tracks if not t.state and len(t.shape) <= 2]
        _metrics(upper[0], found)
        _updates(upper[1], found, weights or small)
        _norms(lower[0], found, weights or small, "norms of the weights")
        _norms(lower[1], found, small if weights else [], "norms of biases and scales")
        if maps:
            _maps(parts[2], found, maps)
    return figure


def _axis(found: Recorded) -> tuple[Array, str]:
    """What runs along the bottom: epochs where they were counted, else steps."""
    if len(np.unique(found.epochs)) == len(found.epochs) > 1:
        return found.epochs, "epoch"
    return found.steps, "step of the optimizer"


def _short(text: str, longest: int = LONGEST) -> str:
    """A name for a picture: its end says most."""
    plain = "".join(c if c.isprintable() else "?" for c in text)
    return plain if len(plain) <= longest else f"…{plain[1 - longest :]}"


def _colors(found: Recorded) -> dict[str, Any]:
    """Layer -> its colour, the same in every panel."""
    names = [name for name in found if found[name].tensors]
    if len(names) <= NAMED:
        return dict(zip(names, COLORS, strict=False))
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0.0, 0.92, len(names)))
    return dict(zip(names, shades, strict=True))


def _metrics(axes: Any, found: Recorded) -> None:
    axes.set_title("metrics")
    x, label = _axis(found)
    axes.set_xlabel(label)
    shown = {n: v for n, v in found.logs.items() if np.isfinite(v).any()}
    if not shown:
        _empty(axes, "no metrics were recorded")
        return
    ends = []
    plain = sorted(dict.fromkeys(n.removeprefix("val_") for n in shown), key=lambda n: n != "loss")[: len(GREYS)]
    for name, values in shown.items():
        if name.removeprefix("val_") not in plain:
            continue
        good, color = np.isfinite(values), GREYS[plain.index(name.removeprefix("val_"))]
        axes.plot(x[good], values[good], "--" if name.startswith("val_") else "-", color=color, lw=1.8)
        ends.append((float(values[good][-1]), _short(name), color))
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _labels(axes, ends)


def _updates(axes: Any, found: Recorded, tracks: Sequence[Track]) -> None:
    axes.set_title("update ratio ‖ΔW‖ / ‖W‖, a step")
    x, label = _axis(found)
    axes.set_xlabel(label)
    axes.set_yscale("log")
    colors, ends = _colors(found), []
    for track in tracks:
        values = track.update
        good = np.isfinite(values) & (values > 0)
        if good.any():
            axes.plot(x[good], values[good], color=colors[track.layer], lw=1.6, marker="o", ms=2)
            ends.append((float(values[good][-1]), _named(track, tracks), colors[track.layer]))
    if not ends:
        axes.set_yscale("linear")
        broken = any(track.broken[-1] for track in tracks)
        _empty(axes, "NaN: the weights broke" if broken else "nothing moved")
        return
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, GUIDE / 3), max(high, GUIDE * 3))
    _ticks(axes, lambda v: f"{v:.0e}".replace("e-0", "e-").replace("e+00", ""))
    axes.axhline(GUIDE, color=INK, lw=1, ls=(0, (4, 3)), zorder=1)
    axes.annotate(
        "1e-3, a usual value", (0, GUIDE), xycoords=("axes fraction", "data"), xytext=(4, 3),
        textcoords="offset points", color=INK, fontsize=8, zorder=9,
        bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 1},
    )  # fmt: skip
    _labels(axes, ends, found)


def _norms(axes: Any, found: Recorded, tracks: Sequence[Track], title: str) -> None:
    axes.set_title(title)
    x, label = _axis(found)
    axes.set_xlabel(label)
    if not tracks:
        _empty(axes, "there are none")
        return
    colors, ends = _colors(found), []
    for at, track in enumerate(tracks):
        again = any(t.layer == track.layer for t in tracks[:at])
        good = np.isfinite(track.norms)  # a line ends where the tensor broke
        axes.plot(x[good], track.norms[good], "--" if again else "-", color=colors[track.layer], lw=1.6,
                  marker="" if good.all() else "o", ms=3)  # fmt: skip
        last = float(track.norms[good][-1]) if good.any() else 0.0
        ends.append((last, _named(track, tracks) + ("" if good[-1] else ": NaN"), colors[track.layer]))
    axes.set_xlim(*_edges(x)[[0, -1]]) if len(x) > 1 else None
    sizes = [value for value, _, _ in ends if value > 0]
    if sizes and max(sizes) > SPREAD * min(sizes):
        axes.set_yscale("log")
        axes.set_ylim(bottom=min(sizes) / 3)  # what began at zero comes in from below
        _ticks(axes, lambda v: f"{v:g}")
        ends = [end for end in ends if end[0] > 0]
    else:
        axes.set_ylim(bottom=0)
    _labels(axes, ends, found)


def _ticks(axes: Any, text: Callable[[float], str]) -> None:
    """Names at 1, 2 and 5 of each decade of a logarithmic axis."""
    axes.yaxis.set_major_formatter(lambda v, _: text(v))
    axes.yaxis.set_minor_formatter(lambda v, _: text(v) if f"{v:e}"[0] in "25" and f"{v:.0e}"[0] in "25" else "")
    axes.tick_params(which="minor", labelsize=7.5)
    axes.grid(True, which="minor", color="#f4f6f8")


def _named(track: Track, tracks: Sequence[Track]) -> str:
    """A tensor by its layer alone where that says it."""
    if sum(t.layer == track.layer for t in tracks) == 1:
        return _short(track.layer)
    whole = _short(f"{track.layer} {track.name}", 1000)
    half = LONGEST // 2  # both ends: a direction stands in front, kernel or recurrent_kernel behind
    return whole if len(whole) <= LONGEST else f"{whole[:half]}…{whole[half - LONGEST + 1 :]}"


def _labels(axes: Any, ends: Sequence[tuple[float, str, Any]], found: Recorded | None = None) -> None:
    """Names at the ends of the lines, pushed apart; for many lines a scale of depth."""
    if len(ends) > 2 * NAMED:
        _depth(axes, found)
        return
    low, high = axes.get_ylim()
    log = axes.get_yscale() == "log"
    span = np.log(high / low) if log else high - low
    rows = sorted(
        [(float(np.log(v / low) / span) if log else (v - low) / span, name, color) for v, name, color in ends],
        key=lambda r: r[0],
    )
    gap, at = 0.062, -1.0
    heights = []
    for height, _, _ in rows:
        at = max(height, at + gap)
        heights.append(at)
    over = max(0.0, heights[-1] - 1.0)
    for i in range(len(heights) - 1, -1, -1):  # what does not fit at the top moves down together
        heights[i] = min(heights[i], (1.0 if i == len(heights) - 1 else heights[i + 1] - gap)) if over else heights[i]
    for height, (_, name, color) in zip(heights, rows, strict=True):
        axes.annotate(
            name, (1.0, height), xycoords="axes fraction", xytext=(6, 0), textcoords="offset points",
            color=color, fontsize=8, va="center", annotation_clip=False,
        )  # fmt: skip


def _depth(axes: Any, found: Recorded | None) -> None:
    """A scale of the layers' colours, for more lines than can be named."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    shades = list(_colors(found).values()) if found is not None else list(COLORS)
    bar = axes.figure.colorbar(
        ScalarMappable(Normalize(1, max(2, len(shades))), ListedColormap(shades)), ax=axes, pad=0.02, aspect=30
    )
    bar.set_label("layer, first to last", color=SOFT)
    bar.outline.set_visible(False)


def _empty(axes: Any, text: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=SOFT)


def _mapped(found: Recorded) -> list[Track]:
    """The tensors whose units are shown: weights of first, last and evenly chosen layers between."""
    own = [t for t in found.tracks if t.unit and not t.state and len(t.shape) > 2]
    if len(own) <= MAPS:
        return own
    return [own[round(i * (len(own) - 1) / (MAPS - 1))] for i in range(MAPS)]


def _maps(part: Any, found: Recorded, tracks: Sequence[Track]) -> None:
    """For each unit (row) how much the norm of its weights grew since the first moment, along the moments."""
    every = part.subplots(1, len(tracks), squeeze=False)[0]
    x, label = _axis(found)
    grown = []
    for track in tracks:
        norms = track.units().astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            grown.append(np.where(norms[0] > 0, norms / norms[0] - 1, np.nan).T)
    sizes = np.concatenate([np.abs(g[np.isfinite(g)]) for g in grown])
    most = float(np.quantile(sizes, 0.99)) if sizes.size else 0.0
    image = None
    edges = _edges(x)
    for axes, track, values in zip(every, tracks, grown, strict=True):
        axes.grid(False)
        axes.set_facecolor("#c9ced6")
        rows = np.arange(values.shape[0] + 1) - 0.5
        image = axes.pcolormesh(edges, rows, values, cmap="RdBu_r", vmin=-(most or 1), vmax=most or 1, rasterized=True)
        axes.invert_yaxis()
        kind = found[track.layer].class_name
        axes.set_title(_named(track, tracks) + (f" ({_short(kind)})" if track.layer.isdigit() else ""))
        axes.set_xlabel(label)
        axes.set_ylabel(f"{_short(track.unit)} (unit)")
        axes.yaxis.get_major_locator().set_params(integer=True, nbins=6)
        for side in axes.spines.values():
            side.set_visible(False)
    bar = part.colorbar(image, ax=list(every), pad=0.012, aspect=24, format=lambda v, _: f"{v:+.0%}" if v else "0")
    bar.set_label("norm of the unit's weights\nagainst the first moment", color=SOFT)
    bar.outline.set_visible(False)


def _edges(x: Array) -> Array:
    """The borders between moments."""
    middle = (x[1:] + x[:-1]) / 2
    return np.concatenate([[x[0] - (middle[0] - x[0])], middle, [x[-1] + (x[-1] - middle[-1])]])
