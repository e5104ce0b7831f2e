"""What moved between two models, as a terminal shows it: the answer, a row a tensor, the reasons below it."""

from __future__ import annotations

from collections.abc import Iterator

from layoutx.difference import Difference, LayerDifference
from layoutx.show.tables import Cell, Line, Note, clean, grid, plural, prose, row
from layoutx.verify.change import TensorChange

HEAD = ("layer", "tensor", "largest change", "relative", "changed")
MOST = 12
MEANING = "relative: the norm of the change by the norm before; changed: rows and columns at which any number moved"


def diff_text(found: Difference, width: int = 99, color: bool = False) -> str:
    """The answer, the table, what only one side has."""
    parts = [prose(_answer(found), width, color)]
    lines = [line for layer in found.layers for line in _layer(layer, bool(found.note))]
    parts.append(grid(HEAD, lines, width, color))
    rest = list(_rest(found))
    if rest:
        parts.append("\n".join(prose(text, width, color) for text in rest))
    if any(t.changed for t in found.tensors):
        parts.append(prose(MEANING, width, color, "dim"))
    return "\n\n".join(parts)


def _answer(found: Difference) -> str:
    tensors = found.tensors
    names = f"{clean(found.before)} → {clean(found.after)}"
    if found.note:
        alone = bool(found.only_before or found.only_after or found.unpaired)
        what = f"all {plural(len(tensors), 'tensor')} that both have hold" if alone else "both hold"
        return f"{names}: {what} the same numbers; {found.note}"
    moved = sum(bool(t.changed) for t in tensors)
    parts = [f"{moved} of {plural(len(tensors), 'tensor')} moved"]
    still = [layer.name for layer in found.layers if layer.tensors and not layer.moved]
    if still:
        parts.append(f"{plural(len(still), 'layer')} not at all ({', '.join(map(clean, still[:4]))}{_dots(still, 4)})")
    broken = sum(bool(t.broken[1]) for t in tensors)
    parts += [f"{broken} with NaN or infinity after"] * bool(broken)
    return f"{names}: {', '.join(parts)}."


def _dots(items: list[str], shown: int) -> str:
    return ", ..." if len(items) > shown else ""


def _layer(layer: LayerDifference, brief: bool) -> Iterator[Line]:
    place = "" if layer.place in ("", layer.name) else f" ({clean(layer.place)})"
    if layer.note and brief:
        yield row(f"{clean(layer.name)}{place}", _names(layer), "0", "0", "none")
        return
    name = f"{clean(layer.name)}{place}"
    for tensor in layer.tensors:
        yield _row(name, tensor)
        name = ""
        for note in layer.notes.get(tensor.name, ()):
            yield Note(clean(note), 6)
    if layer.note:
        yield Note(clean(layer.note), 6)


def _names(layer: LayerDifference) -> str:
    return clean(", ".join(t.name for t in layer.tensors))


def _row(name: str, tensor: TensorChange) -> Line:
    style = "state" if tensor.state else _STYLES.get(len(tensor.shape), "kernel")
    wrong = "wrong" if tensor.broken[1] else ""
    largest = f"{tensor.largest:.2g}" if tensor.changed else "0"
    relative = "0" if not tensor.changed else "–" if tensor.relative is None else _percent(tensor.relative)
    return row(name, Cell(clean(tensor.name), style), Cell(largest, wrong), relative, tensor.words)


_STYLES = {0: "bias", 1: "bias"}


def _percent(value: float) -> str:
    return f"{value:.0%}" if value >= 10 else f"{value:.2g} ×" if value >= 1 else f"{100 * value:.2g} %"


def _rest(found: Difference) -> Iterator[str]:
    sides = ((found.only_before, found.before), (found.only_after, found.after))
    for own, name in sides:
        for tensor, why in list(own.items())[:MOST]:
            yield f"{clean(tensor)} is in {clean(name)} only: {clean(why)}"
        if len(own) > MOST:
            yield f"and {len(own) - MOST} more in {clean(name)} only: --json lists all"
    for layer, why in list(found.unpaired.items())[:MOST]:
        yield f"{clean(layer)} was not compared: {clean(why)}"
    if len(found.unpaired) > MOST:
        yield f"and {len(found.unpaired) - MOST} more that were not compared"
    if found.skipped:
        yield f"{plural(len(found.skipped), 'layer')} left out"
