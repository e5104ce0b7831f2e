"""A history as a terminal shows it: the moments in one line, then for each tensor where it began, ended and moved."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from layoutx.history.reader import Recorded, Track
from layoutx.show.tables import Cell, Line, Note, clean, grid, plural, prose, row, size_text

HEAD = ("layer", "tensor", "norm first", "last", "update a step", "smallest", "largest")
MEANING = (
    "update a step: the norm of the change by the norm before, mean over the moments; about 1e-3 is usual, much less "
    "learns slowly, much more is unstable"
)


def history_text(found: Recorded, width: int = 99, color: bool = False) -> str:
    """The answer, the table, notes."""
    parts = [prose(_answer(found), width, color)]
    notes = [*found.notes]
    if found.torn:
        notes.append(f"cut off: {size_text(found.torn)} of a moment that was never finished are left out")
    if notes:
        parts.append("\n".join(prose(clean(text), width, color) for text in notes))
    lines = [line for name in found for line in _layer(found, name)]
    parts.append(grid(HEAD, lines, width, color))
    if len(found) > 1:
        parts.append(prose(MEANING, width, color, "dim"))
    return "\n\n".join(parts)


def _answer(found: Recorded) -> str:
    name, count = clean(found.path.name), len(found)
    if not count:
        return f"{name}: no moment was recorded."
    text = f"{name}: {plural(count, 'moment')}, steps {found.steps[0]:,} to {found.steps[-1]:,}"
    if found.epochs[-1]:
        text += f", epochs {found.epochs[0]} to {found.epochs[-1]}"
    text += f"; {plural(len(found.tracks), 'tensor')} of {plural(len(found.layers), 'layer')} ({found.framework})"
    for metric, values in sorted(found.logs.items(), key=lambda m: (m[0].partition("val_")[2] or m[0]) != "loss")[:3]:
        said = [v for v, f in zip(values, found.frames, strict=True) if metric in f.text["logs"]]
        text += f"; {clean(metric)} {_number(said[0])} → {_number(said[-1])}"
    broken = [track for track in found.tracks if track.broken[-1]]
    if broken:
        first = int(found.steps[min(int(np.argmax(track.broken > 0)) for track in broken)])
        text += f"; NaN or infinite numbers in {plural(len(broken), 'tensor')}, the first at step {first:,}"
    return f"{text}{'; summaries only' if found.what == 'summary' else ''}."


def _number(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "NaN" if np.isnan(value) else "infinite"


def _layer(found: Recorded, name: str) -> Iterator[Line]:
    layer = found[name]
    shown = clean(name)
    if not layer.tensors:
        return
    for track in layer.tensors.values():
        yield _row(shown, track) if len(found) else row(shown, clean(track.name))
        shown = ""
        if len(found) and track.broken[-1]:
            first = int(found.steps[int(np.argmax(track.broken > 0))])
            yield Note(
                f"{int(track.broken[-1]):,} numbers are NaN or infinite; the first at step {first:,}", 6, "wrong"
            )
        if len(found) > 1 and not track.broken[-1] and not np.nansum(track.moved):
            yield Note("did not move at all" + ("" if not track.state else " (state)"), 6)


def _row(layer: str, track: Track) -> Line:
    style = "state" if track.state else "bias" if len(track.shape) < 3 else "kernel"
    ratios = [] if track.state else [r for r in track.update if np.isfinite(r)]
    cells = [f"{np.mean(ratios):.1e}", f"{min(ratios):.1e}", f"{max(ratios):.1e}"] if ratios else ["–", "–", "–"]
    if track.state:
        cells = ["state", "", ""]
    return row(layer, Cell(clean(track.name), style), _number(track.norms[0]), _number(track.norms[-1]), *cells)


def as_dict(found: Recorded) -> dict[str, Any]:
    """For JSON: everything but the numbers of the tensors; what is not known is null."""
    return {
        "file": found.path.name, "framework": found.framework, "what": found.what, "torn": found.torn,
        "notes": list(found.notes), "steps": found.steps.tolist(), "epochs": found.epochs.tolist(),
        "seconds": found.seconds.tolist(), "logs": {name: _plain(values) for name, values in found.logs.items()},
        "layers": [
            {
                "layer": layer.name, "class": layer.class_name, "form": layer.form,
                "tensors": [_tensor(track) for track in layer.tensors.values()],
            }
            for layer in found.layers.values()
        ],
    }  # fmt: skip


def _tensor(track: Track) -> dict[str, Any]:
    return {
        "tensor": track.name, "key": track.key, "axes": list(track.axes), "shape": list(track.shape),
        "dtype": str(track.dtype), "state": track.state, "about": track.about, "unit": track.unit,
        "norms": _plain(track.norms), "largest": _plain(track.largest), "moved": _plain(track.moved),
        "update": _plain(track.update), "not_finite": [int(n) for n in track.broken],
    }  # fmt: skip


def _plain(values: Any) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]
