"""Why numbers did not move in training: what is known of the layer and of the axis says which reason is possible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

from layoutx.verify.change import AxisChange, TensorChange
from layoutx.verify.sides import BOTH, INPUT, LOOKUP, PAST, UNIT
from layoutx.words import listed

Place = tuple[tuple[str, str], ...]
SHOWN = 8  # ranges of indices in a sentence
REASONS = {
    INPUT: "an input that is always zero gives its {noun} no gradient",
    LOOKUP: "a number that never occurs in the data is never looked up",
    PAST: "a state that is always zero gives its {noun} no gradient",
    BOTH: "no gradient reached these channels",
    UNIT: "no gradient reached these units",
}
FROZEN = "frozen: trainable=False"
NO_GRADIENT = "frozen: requires_grad=False"
LEFT_OUT = (
    "nothing of it moved: it is frozen (trainable=False, requires_grad=False), its parameters were never given to the "
    "optimizer, or no gradient reaches it"
)
SAME = "nothing moved at all: are these two files of the same moment, or was the model never trained in between?"
ONE_STEP = (
    "it is multiplied with the state of the step before, which is zero where sequences have one step, or where only a "
    "direction's first step is read (out[:, -1] of the backward one)"
)
INFERENCE = "the layer ran as in inference (training=False, eval()), or its momentum is 1"
BY_DATA = "state: moved by the data that the layer saw, not by a gradient"


def layer_note(changes: Sequence[TensorChange], frozen: str) -> str:
    """Why a whole layer did not move; "" where something of it did."""
    trained = [c for c in changes if not c.state]
    if not trained or any(c.changed for c in trained):
        return ""
    moved = any(c.changed for c in changes)
    return (frozen or LEFT_OUT) + ("; only its state moved, by the data that it saw" if moved else "")


def notes(change: TensorChange, others: Sequence[TensorChange], activation: str = "") -> Iterator[str]:
    """What can be said of one tensor of a layer of which something moved.

    Args:
        others: all tensors of the layer.
        activation: the layer's own, as the kind names it.
    """
    if change.broken != (0, 0):
        yield f"NaN or infinite: {change.broken[0]:,} numbers before, {change.broken[1]:,} after"
    if change.summed:
        yield f"compared as a sum with {', '.join(change.there)}: the two models split it differently"
    if change.absent:
        yield f"the second model has none{f', which means {change.absent}' if not change.state else ''}"
        if change.state or not change.changed:
            return
    if change.dtypes[0] != change.dtypes[1]:
        yield f"{change.dtypes[0]} before, {change.dtypes[1]} after: a change is what is left in the coarser of the two"
    if not change.changed:
        yield from _none(change, others)
        return
    if change.state and change is next((o for o in others if o.state and o.changed), None):
        yield BY_DATA
    for axis in change.axes:
        if axis.still and axis.dimension.size > 1 and not _told(change, axis, others):
            yield _still(change, axis, others, activation)
    if change.printed and change.changed and change.printed_still == change.printed:
        yield (
            f"printing it shows {change.printed} of its {change.size:,} numbers, the corners: "
            "none of these moved, so it looks as if nothing had"
        )


def _told(change: TensorChange, axis: AxisChange, others: Sequence[TensorChange]) -> bool:
    """Whether a tensor before this one has the same units that did not move, and says so."""
    before = others[: next((i for i, o in enumerate(others) if o is change), 0)]
    units = [a for o in before for a in o.axes if a.dimension.side == UNIT == axis.dimension.side]
    return any(a.still == axis.still and a.dimension.size == axis.dimension.size for a in units)


def _none(change: TensorChange, others: Sequence[TensorChange]) -> Iterator[str]:
    if change.state:
        if any(o.changed for o in others if not o.state):
            yield f"state that did not move: {INFERENCE}"
    elif any(a.dimension.side == PAST for a in change.axes):
        yield f"did not move: {ONE_STEP}"
    else:
        yield "did not move: no gradient reached it"


def _still(change: TensorChange, axis: AxisChange, others: Sequence[TensorChange], activation: str) -> str:
    noun = {1: "numbers", 2: change.noun(axis)}.get(len(change.shape), "")
    if axis.moved < len(axis.still):
        moved = sorted(set(range(axis.dimension.size)) - set(axis.still))
        own = named(axis, moved)
        text = f"only {len(moved):,} of {axis.dimension.size:,} {noun} moved ({own})" if noun else f"only {own} moved"
    else:
        own = named(axis, axis.still)
        count = f"1 {noun[:-1]}" if len(axis.still) == 1 else f"{len(axis.still):,} {noun}"
        text = f"{count} ({own}) did not move at all" if noun else f"{own} did not move at all"
    reason = REASONS.get(axis.dimension.side, "").format(noun=noun[:-1] if noun in ("rows", "columns") else "weights")
    if axis.dimension.side == UNIT:
        reason = _units(axis, change, others, activation)
    if axis.moved < len(axis.still):  # the sentence names those that moved
        reason = reason.replace("these units", "the others").replace("these channels", "the others")
    return f"{text}: {reason}" if reason else text


def _units(axis: AxisChange, change: TensorChange, others: Sequence[TensorChange], activation: str) -> str:
    """Units that got no gradient; with their biases still too, and a relu behind them, they are dead."""
    same = [
        a for o in others if o is not change and not o.state
        for a in o.axes if a.dimension.side == UNIT and a.dimension.size == axis.dimension.size
    ]  # fmt: skip
    if any(not set(axis.still) <= set(a.still) for a in same):
        return "" if len(change.shape) == 1 else "other weights of these units did"
    reason = "no gradient reached these units"
    if activation.startswith("relu"):
        return f"{reason}: their {activation} was always off (dead units)"
    return f"{reason}: a relu behind them that is always off, or nothing reads them"


def named(axis: AxisChange, indices: Sequence[int]) -> str:
    """Indices of a dimension by the names of its axes: `input 0-11, 16-31`, `h 0 (every w, c)`, `gate f: hidden 3`."""
    groups: dict[tuple[str, ...], list[Place]] = {}
    for place in map(axis.dimension.place, indices):
        groups.setdefault(tuple(n for n, _ in place), []).append(place)
    return "; ".join(_group(axis, names, places) for names, places in groups.items())


def _group(axis: AxisChange, names: tuple[str, ...], places: Sequence[Place]) -> str:
    """Places of the same axes."""
    if len(names) == 1:
        return f"{names[0]} {_ranges([p[0][1] for p in places])}"
    whole = _grid(axis, names, places)
    if whole:
        return whole
    return listed([" ".join(f"{n} {v}" for n, v in place) for place in places], SHOWN // 2)


def _grid(axis: AxisChange, names: tuple[str, ...], places: Sequence[Place]) -> str:
    """A set that is all combinations of some values of each axis, written axis by axis; "" where it is none."""
    own = {n: list(dict.fromkeys(p[k][1] for p in places)) for k, n in enumerate(names)}
    if prod(map(len, own.values())) != len(places):
        return ""
    everywhere = [axis.dimension.place(i) for i in range(axis.dimension.size)]
    alike = [p for p in everywhere if tuple(n for n, _ in p) == names]
    full = {n: len({p[k][1] for p in alike}) for k, n in enumerate(names)}
    fixed = [f"{n} {_ranges(values)}" for n, values in own.items() if len(values) < full[n]]
    free = [n for n, values in own.items() if len(values) == full[n] and full[n] > 1]
    if not fixed:
        return ""
    return ", ".join(fixed) + (f", every {' and '.join(free)}" if free else "")


def _ranges(values: Sequence[str]) -> str:
    """`0-11, 16-31, ...`: runs of whole numbers put together, labels as they are."""
    if not all(v.isdigit() for v in values):
        return " ".join(values)
    numbers = sorted(map(int, values))
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    texts = [str(a) if a == b else f"{a}, {b}" if b == a + 1 else f"{a}-{b}" for a, b in runs]
    return ", ".join(texts[:SHOWN]) + (", ..." if len(texts) > SHOWN else "")
