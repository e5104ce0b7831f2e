"""Units that do nothing or are there twice, and inputs that nobody reads: what a kernel shows by rows and columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.stats.finding import NOTE, SUSPECT, Finding
from layoutx.verify.stats.look import Look, Matrix, bias_of, matrices, spell
from layoutx.words import listed

NEVER_BELOW = ("relu", "relu6")  # a unit whose sum is not above zero gives zero
LEAST_FAN = 3  # two equal units of fewer inputs may be chance


def unit_findings(look: Look) -> Iterator[Finding]:
    """Dead and repeated units, and inputs without any weight."""
    if look.bound.kind.name == "embedding":
        yield from _rows(look)
        return
    for found in matrices(look):
        yield from _dead(look, found)
        yield from _twice(look, found)
        yield from _unread(look, found)


def _dead(look: Look, found: Matrix) -> Iterator[Finding]:
    zero = ~found.array.any(axis=2)
    dead = [tuple(map(int, at)) for at in np.argwhere(zero)]
    if not dead or (zero.all() and found.array.size == 0):
        return
    names = tuple(_unit(look, found, at) for at in dead)
    bias = bias_of(look, found.role)
    flat = _bias(look, found, bias)
    below = flat is not None and all(float(flat[at]) <= 0 for at in dead)
    silent = look.activation in NEVER_BELOW and below
    says = "0" if silent else "the same number, its bias," if bias in look.stored else "0"
    every = "every unit" if len(dead) == zero.size else f"{len(dead)} of {zero.size} units"
    yield Finding(
        "dead units",
        SUSPECT,
        look.name,
        f"{every} of {found.role} {'has' if len(dead) == 1 else 'have'} only zero weights",
        listed(names),
        f"such a unit gives {says} whatever comes in, and passes no gradient back",
        "prune them, or look at why they died: a learning rate too high, too strong a weight decay, a mask",
        len(dead),
        names,
    )


def _bias(look: Look, found: Matrix, bias: str) -> Array | None:
    """The bias of each unit, (apart, out)."""
    if not bias or bias not in look.stored:
        return None
    wanted = [axis for axis, _ in (*found.apart, *found.out)]
    if sorted(look.axes[bias]) != sorted(wanted):
        return None
    return look.values[bias].transpose([look.axes[bias].index(a) for a in wanted]).reshape(found.array.shape[:2])


def _twice(look: Look, found: Matrix) -> Iterator[Finding]:
    if found.array.shape[2] < LEAST_FAN:
        return
    bias = _bias(look, found, bias_of(look, found.role))
    same: dict[bytes, list[tuple[int, int]]] = {}
    for apart, block in enumerate(found.array):
        live = block.any(axis=1)
        own = np.ascontiguousarray(block)
        for at in np.flatnonzero(live):
            tail = b"" if bias is None else bias[apart, at].tobytes()
            key = bytes([apart % 256]) + own[at].tobytes() + tail
            same.setdefault(key, []).append((apart, int(at)))
    groups = [[_unit(look, found, at) for at in own] for own in same.values() if len(own) > 1]
    if groups:
        spare = sum(len(names) - 1 for names in groups)
        yield Finding(
            "equal units",
            SUSPECT,
            look.name,
            f"{spare} {'unit is a copy' if spare == 1 else 'units are copies'} of another unit of {found.role}",
            "; ".join(" = ".join(names[:4]) for names in groups[:3]) + (" ..." if len(groups) > 3 else ""),
            "units that start equal get equal gradients and stay equal: the layer is smaller than it looks",
            "start from random weights (not zeros or a constant); here one of each may be kept, its outputs summed",
            spare,
            tuple(name for names in groups for name in names),
        )


def _unread(look: Look, found: Matrix) -> Iterator[Finding]:
    read = found.array.any(axis=(0, 1))
    if read.all() or not read.any():
        return
    names = tuple(spell(look, found.into, int(at)) for at in np.flatnonzero(~read))
    yield Finding(
        "unread inputs",
        NOTE,
        look.name,
        f"{len(names)} of {read.size} inputs of {found.role} have only zero weights",
        listed(names),
        "the layer does not see them",
        "expected after pruning; else see whether these inputs were always zero, or masked",
        len(names),
        names,
    )


def _rows(look: Look) -> Iterator[Finding]:
    """Rows of an embedding that training has not reached."""
    role = next(name for name in look.values if name in look.stored)
    table = look.values[role].reshape(look.values[role].shape[0], -1)
    zero = np.flatnonzero(~table.any(axis=1))
    axis = look.axes[role][0]
    if len(zero) > 1:  # a single one is the row of the padding
        names = tuple(f"{axis} {int(at)}" for at in zero)
        yield _row_finding(look, f"{len(zero)} of {len(table)} rows are all zero", names)
    largest = np.abs(table.astype(np.float64)).max(axis=1, initial=0.0)
    start = np.flatnonzero((largest <= 0.05) & (largest > 0))
    if 0 < len(start) < len(table) / 2:
        names = tuple(f"{axis} {int(at)}" for at in start)
        what = f"{len(start)} of {len(table)} rows lie within 0.05, where Keras' initialiser puts them"
        yield _row_finding(look, what, names)
    keys: dict[bytes, list[int]] = {}
    for at in np.flatnonzero(table.any(axis=1)):
        keys.setdefault(np.ascontiguousarray(table[at]).tobytes(), []).append(int(at))
    same = [own for own in keys.values() if len(own) > 1]
    if same:
        names = tuple(f"{axis} {at}" for own in same for at in own)
        yield _row_finding(look, f"{len(names)} of {len(table)} rows are equal to another row", names)


def _row_finding(look: Look, what: str, names: tuple[str, ...]) -> Finding:
    return Finding(
        "untrained rows",
        NOTE,
        look.name,
        what,
        listed(names),
        "a row that never comes in the data gets no gradient: what it gives later is not learned",
        "count the data's values: leave out those that never come, or map them to one shared row",
        len(names),
        names,
    )


def _unit(look: Look, found: Matrix, at: tuple[int, ...]) -> str:
    """`group 0, out 5`; an axis of length one says nothing."""
    words = [spell(look, found.apart, at[0]) if found.array.shape[0] > 1 else "", spell(look, found.out, at[1])]
    return ", ".join(filter(None, words))
