"""How two weight files are related, as a terminal shows it: what differs first, what is equal in one line."""

from __future__ import annotations

from collections.abc import Iterator

from layoutx.show.tables import Cell, Line, Note, clean, grid, plural, prose, row
from layoutx.verify.relate.relation import (
    CLOSE,
    ELSEWHERE,
    FINE,
    INITIAL,
    LAYOUT,
    OTHER,
    ROUNDED,
    SPLIT,
    VALUES,
    TensorRelation,
)
from layoutx.verify.relate.whole import LayerRelation, Whole

HEAD = ("layer", "tensor", "relation", "difference left")
STYLES = {
    LAYOUT: "wrong", VALUES: "wrong", CLOSE: "wrong", INITIAL: "wrong", OTHER: "wrong", ELSEWHERE: "wrong",
    SPLIT: "moves", ROUNDED: "conditional",
}  # fmt: skip
NAMES = {
    LAYOUT: "other layout", VALUES: "changed", CLOSE: "close", INITIAL: "one value", OTHER: "not related",
    ELSEWHERE: "another's", SPLIT: "same sum", ROUNDED: "rounded",
}  # fmt: skip
COUNTED = (
    (VALUES, "changed"), (ELSEWHERE, "from another layer"), (CLOSE, "close, not equal"), (INITIAL, "never written"),
    (OTHER, "not related"),
)  # fmt: skip
MOST = 12


def relation_text(found: Whole, width: int = 99, color: bool = False) -> str:
    """The answer, the tensors that differ with their layouts, then what is in one file only."""
    parts = [prose(_answer(found), width, color)]
    lines = [line for layer in found.layers for line in _layer(layer)]
    if lines:
        parts.append(grid(HEAD, lines, width, color))
    rest = list(_rest(found))
    if rest:
        parts.append("\n".join(prose(text, width, color) for text in rest))
    return "\n\n".join(parts)


def _answer(found: Whole) -> str:
    tensors = [t for layer in found.layers for t in layer.tensors]
    good = sum(t.fine for t in tensors)
    names = f"{clean(found.source)} and {clean(found.target)}"
    if found.ok:
        good += len(found.loose)
        return f"{names} hold the same numbers: {plural(good, 'tensor')} as the registry says, {_how(tensors)}."
    layouts = sum(t.status == LAYOUT for t in tensors)
    parts = [f"{good} of {plural(len(tensors), 'tensor')} as the registry says"]
    parts += [f"{layouts} in another layout"] * bool(layouts)
    parts += [f"{n} {what}" for status, what in COUNTED if (n := sum(t.status == status for t in tensors))]
    parts += [f"{len(found.extra)} without an origin"] * bool(found.extra)
    parts += [f"the numbers of {' → '.join(map(clean, (*own, own[0])))} exchanged" for own in found.crossed[:MOST]]
    return f"{names}: {', '.join(parts)}."


def _how(tensors: list[TensorRelation]) -> str:
    """Bit for bit, but for those that were rounded, and biases in another split."""
    parts = []
    for status in (ROUNDED, SPLIT):
        own = [t for t in tensors if t.status == status]
        if own:
            parts.append(f"{len(own)} {'in another split of a sum' if status == SPLIT else own[0].words[0]}")
    return ", ".join(parts) or "bit for bit"


def _layer(layer: LayerRelation) -> Iterator[Line]:
    shown = [t for t in layer.tensors if t.status not in FINE or t.status == SPLIT]
    if not shown:
        return
    forms = f"{layer.source} to {layer.target}"
    yield Note(f"{clean(layer.name)} ({forms}){_place(layer)}", 2, "head")
    for text in layer.summary:
        yield Note(clean(text), 4)
    common = _common(shown)
    for tensor in shown:
        yield from _tensor(tensor, layer, common)
    for text in common:
        yield Note(f"all of these: {clean(text)}", 4)
    if layer.problem:
        yield Note(f"layoutx would not convert it: {clean(layer.problem)}", 4, "dim")


def _place(layer: LayerRelation) -> str:
    return f", {clean(layer.place)} there" if layer.place not in ("", layer.name) else ""


def _common(shown: list[TensorRelation]) -> tuple[str, ...]:
    """Words that stand at every tensor that differs."""
    if len(shown) < 2:
        return ()
    return tuple(word for word in shown[0].words if all(word in tensor.words for tensor in shown))


def _tensor(tensor: TensorRelation, layer: LayerRelation, common: tuple[str, ...]) -> Iterator[Line]:
    style = STYLES.get(tensor.status, "")
    name = clean(layer.names.get(tensor.name, tensor.name))
    yield row("", Cell(name, style), Cell(NAMES.get(tensor.status, tensor.status), style), _left(tensor))
    for word in tensor.words:
        if word not in common:
            yield Note(clean(word), 6)
    if tensor.holds and tensor.holds != tensor.reads:
        yield Note(f"holds  {clean(tensor.holds)}{_sizes(tensor)}", 6, "dim")
        yield Note(f"reads  {clean(tensor.reads)}", 6, "dim")


def _sizes(tensor: TensorRelation) -> str:
    """Lengths of the digits that an axis was found to have."""
    new = {name: n for name, n in tensor.sizes.items() if name[-1:].isdigit() and name not in tensor.reads}
    return f"   ({', '.join(f'{name} {n}' for name, n in new.items())})" if new else ""


def _left(tensor: TensorRelation) -> str:
    if tensor.exact:
        return "0"
    return f"{tensor.residual:.2g}" if tensor.residual == tensor.residual else "?"


def _rest(found: Whole) -> Iterator[str]:
    for one in [one for one in found.loose if not one.fine and not one.pair][:MOST]:
        what = "; ".join(one.words) or "an exact copy"
        origin = "" if one.name == one.source and one.words else f" holds the numbers of {clean(one.source)}"
        yield f"{clean(one.name)}{origin}: {clean(what)}"
    for name, why in list(found.lost.items())[:MOST]:
        yield f"{clean(name)} has no counterpart in {clean(found.target)}: {clean(why)}"
    for name, own in list(found.open.items())[:MOST]:
        yield f"{clean(name)} could be {', '.join(map(clean, own[:4]))}: say which with --pair {clean(name)}=..."
    for name, why in list(found.extra.items())[:MOST]:
        yield f"{clean(name)} of {clean(found.target)} has no origin: {clean(why)}"
    hidden = sum(max(0, len(own) - MOST) for own in (found.loose, found.lost, found.open, found.extra))
    if hidden:
        yield f"and {hidden} more: --json lists all"
