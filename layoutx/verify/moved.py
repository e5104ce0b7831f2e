"""The numbers of one layer before and after: how far each tensor moved, and which rows and units not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.lang.place import Block
from layoutx.model.record import Piece
from layoutx.plan.blocks import memory, settle
from layoutx.plan.plan import Array
from layoutx.plan.views import view
from layoutx.spec.bound import Atom, BoundForm, BoundTensor
from layoutx.spec.schema import holds
from layoutx.spec.values import SAME
from layoutx.verify.change import AxisChange, TensorChange, corners
from layoutx.verify.relate.numbers import meaning
from layoutx.verify.sides import Dimension, dimensions, plain_dimensions

CHUNK = 1 << 22  # numbers that are compared at a time


@dataclass
class _Count:
    """What is gathered while the numbers go by."""

    mask: Array
    changed: int = 0
    largest: float = 0.0
    at: int = -1
    squares: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    broken: list[int] = field(default_factory=lambda: [0, 0])

    def add(self, before: Array, after: Array, mask: Array) -> tuple[int, ...] | None:
        """Count two arrays of one shape; the index of the largest change where it is the largest so far."""
        different = _different(before, after)
        mask[...] = different
        self.changed += int(np.count_nonzero(different))
        x, y = before.astype(np.float64), after.astype(np.float64)
        for i, values in enumerate((x, y)):
            bad = ~np.isfinite(values)
            self.broken[i] += int(np.count_nonzero(bad))
            values[bad] = 0.0
            self.squares[i] += float(np.vdot(values, values))
        x -= y
        self.squares[2] += float(np.vdot(x, x))
        np.abs(x, out=x)
        top = int(x.argmax()) if x.size else -1
        if top < 0 or float(x.reshape(-1)[top]) <= self.largest:
            return None
        self.largest = float(x.reshape(-1)[top])
        return tuple(int(i) for i in np.unravel_index(top, x.shape))


def _different(before: Array, after: Array) -> Array:
    """Where two arrays hold other numbers; NaN is equal to NaN, and of two precisions the coarser one counts."""
    if before.dtype != after.dtype and before.dtype.kind not in "iub" and after.dtype.kind not in "iub":
        coarse = min((before.dtype, after.dtype), key=lambda d: d.itemsize)
        with np.errstate(over="ignore"):
            before, after = before.astype(coarse), after.astype(coarse)
    different = np.asarray(before != after)
    if before.dtype.kind not in "iub":
        different &= ~(np.isnan(before) & np.isnan(after))
    return different


@frozen
class Half:
    """One layer on one side: its bound form, its stored tensors, how its axes are refined, what they are made of."""

    bound: BoundForm
    tensors: Mapping[str, Tensor]
    refine: Mapping[str, str] = NOTHING
    pieces: Mapping[str, tuple[Piece, ...]] = NOTHING


def moved(before: Half, after: Half) -> Iterator[TensorChange]:
    """Each stored tensor of the first layer against the second one's numbers of the same name; one is read at a time.

    Raises:
        ValueError: an axis has another length on the other side.
    """
    for tensor in before.bound.tensors:
        if tensor.name in before.tensors:
            found = _tensor(tensor, before, after)
            if found is not None:
                yield found


def only_after(before: Half, after: Half) -> Iterator[tuple[str, str]]:
    """(file's name, why) of each tensor of the second layer whose numbers the first has not."""
    for tensor in after.bound.tensors:
        own = [(b.role, b.labels) for b in tensor.blocks]
        if tensor.name in after.tensors and own and all(not _known(atom, before.bound) for atom in own):
            role = after.bound.kind.roles[own[0][0]]
            means = f"absent means {role.absent}" if role.absent else "it has no counterpart"
            yield after.tensors[tensor.name].name, role.drop or means


def _known(atom: Atom, bound: BoundForm) -> bool:
    return any((role, atom[1]) in bound.places for role in _summed(atom, bound))


def _summed(atom: Atom, bound: BoundForm) -> tuple[str, ...]:
    """The roles whose sum is all that the forward pass sees of an atom; the atom's own role alone in other cases."""
    role, labels = atom
    for gauge in bound.kind.gauge:
        allowed = all(dict(labels).get(axis) in known for axis, known in gauge.labels.items())
        if role in gauge.roles and allowed and holds(gauge.when, bound.facts):
            return gauge.roles
    return (role,)


def _tensor(tensor: BoundTensor, before: Half, after: Half) -> TensorChange | None:
    stored = before.tensors[tensor.name]
    cache: dict[tuple[int, str], Array] = {}
    count = _Count(np.zeros(int(np.prod(tensor.shape, dtype=np.int64)), bool))
    there: list[str] = []
    parts: list[str] = []
    absent, split = "", False
    for block in tensor.blocks:
        atom = (block.role, block.labels)
        terms = _terms(atom, before.bound, after.bound)
        if terms is None:  # told with the tensor that holds the first term of the sum
            continue
        ours, theirs = terms
        split |= len(ours) + len(theirs) > 2
        parts += [before.tensors[before.bound.places[t].tensor].name for t in ours]
        axes = sorted(block.strides, key=lambda a: -abs(block.strides[a]))
        x = _value(before, ours, axes, before.bound.sizes, cache, 0)
        if theirs:
            y = _value(after, theirs, axes, before.bound.sizes, cache, 1)
            there += [after.tensors[after.bound.places[t].tensor].name for t in theirs]
        else:
            absent = before.bound.kind.roles[block.role].absent
            if not absent:
                return None
            y = np.broadcast_to(np.asarray(1 if absent == "ones" else 0, x.dtype), x.shape)
        if split:
            coarse = _coarser(stored.dtype, *(after.tensors[after.bound.places[t].tensor].dtype for t in theirs))
            x, y = x.astype(coarse), y.astype(coarse)
        _count(count, x, y, block, axes, before.bound.sizes)
    if not there and not absent:
        return None
    mask = count.mask.reshape(tensor.shape)
    settle(tensor, mask)
    shape = dimensions(before.bound, tensor, before.refine, before.pieces)
    roles = tuple(dict.fromkeys(b.role for b in tensor.blocks))
    state = all(before.bound.kind.roles[r].state for r in roles)
    at = () if count.at < 0 or tensor.cut else tuple(int(i) for i in np.unravel_index(count.at, tensor.shape))
    other = next((t.dtype for t in after.tensors.values() if t.name in there), stored.dtype)
    found = _change(count, mask, shape, tensor.name, stored, tuple(dict.fromkeys(there)), other)
    others = tuple(dict.fromkeys(p for p in parts if p != stored.name))
    return replace(found, roles=roles, state=state, at=at, absent=absent, summed=split, terms=others)


def alike(before: Tensor, after: Tensor) -> TensorChange:
    """Two tensors of one name and shape of which nothing else is known."""
    x, y = before.read(), after.read()
    count = _Count(np.zeros(before.size, bool))
    names = [f"axis {i}" for i in range(len(before.shape))]
    steps = [int(s) for s in np.cumprod((1, *reversed(before.shape)), dtype=np.int64)[:-1][::-1]]
    block = Block("", (), 0, dict(zip(names, steps, strict=True)))
    _count(count, x, y, block, names, dict(zip(names, before.shape, strict=True)))
    at = () if count.at < 0 else tuple(int(i) for i in np.unravel_index(count.at, before.shape))
    mask, shape = count.mask.reshape(before.shape), plain_dimensions(before.shape)
    return replace(_change(count, mask, shape, before.name, before, (after.name,), after.dtype), at=at)


def _change(
    count: _Count, mask: Array, shape: Sequence[Dimension], name: str, stored: Tensor, there: tuple[str, ...],
    other: np.dtype[Any],
) -> TensorChange:  # fmt: skip
    """What was counted, as a result."""
    before, after, change = (float(np.sqrt(s)) for s in count.squares)
    printed = corners(mask.shape)
    shown = int(np.prod([len(i) for i in printed], dtype=np.int64)) if printed else 0
    return TensorChange(
        name=name,
        key=stored.name,
        there=there,
        shape=tuple(mask.shape),
        changed=count.changed,
        largest=count.largest,
        relative=change / before if before else None,
        norms=(before, after),
        broken=(count.broken[0], count.broken[1]),
        axes=tuple(AxisChange(d, _still(mask, i)) for i, d in enumerate(shape)),
        dtypes=(str(stored.dtype), str(other)),
        printed=shown,
        printed_still=shown - int(np.count_nonzero(mask[np.ix_(*printed)])) if printed else 0,
    )


def _still(mask: Array, axis: int) -> tuple[int, ...]:
    rest = tuple(i for i in range(mask.ndim) if i != axis)
    return tuple(int(i) for i in np.flatnonzero(~mask.any(axis=rest)))


def _coarser(*dtypes: np.dtype[Any]) -> np.dtype[Any]:
    return min(dtypes, key=lambda d: d.itemsize)


def _terms(atom: Atom, ours: BoundForm, theirs: BoundForm) -> tuple[list[Atom], list[Atom]] | None:
    """What has to be compared with what; None where another tensor of the layer tells it."""
    labels = atom[1]
    roles = _summed(atom, ours)
    here, there = ([(r, labels) for r in roles if (r, labels) in bound.places] for bound in (ours, theirs))
    if here == there or not there:
        return [atom], [atom] if atom in there else []
    return (here, there) if here[0] == atom else None


def _value(
    half: Half, atoms: Sequence[Atom], axes: Sequence[str], sizes: Mapping[str, int],
    cache: dict[tuple[int, str], Array], side: int,
) -> Array:  # fmt: skip
    """What atoms mean together, a dimension for each axis; a view of the stored array where nothing is computed."""
    total: Array | None = None
    for atom in atoms:
        place = half.bound.places[atom]
        key = (side, place.tensor)
        if key not in cache:
            cache[key] = memory(half.bound.tensor(place.tensor), half.tensors[place.tensor].read())
        block = place.block
        odd = [a for a in set(axes) ^ set(block.strides) if half.bound.sizes.get(a, sizes.get(a)) != 1]
        odd += [a for a in axes if a in block.strides and half.bound.sizes[a] != sizes[a]]
        if odd:
            raise ValueError(f"the two sides do not agree in {', '.join(sorted(set(odd)))}")
        array = view(cache[key], block.offset, [(sizes[a], block.strides.get(a, 0)) for a in axes])
        array = np.negative(array) if block.negated else array
        value = half.bound.maps.get(atom, SAME)
        array = array if value == SAME else meaning(array, value)
        total = array if total is None else total.astype(np.float64) + array.astype(np.float64)
    assert total is not None
    return total


def _count(count: _Count, x: Array, y: Array, block: Block, axes: Sequence[str], sizes: Mapping[str, int]) -> None:
    """Compare the numbers of one block, a piece of its slowest axis at a time."""
    mask = view(count.mask, block.offset, [(sizes[a], block.strides[a]) for a in axes])
    if not x.size:
        return
    if not x.ndim:
        x, y, mask = x.reshape(1), y.reshape(1), mask.reshape(1)
    rows = max(1, CHUNK * x.shape[0] // x.size)
    for start in range(0, x.shape[0], rows):
        part = slice(start, start + rows)
        at = count.add(x[part], y[part], mask[part])
        if at is not None:
            index = (at[0] + start, *at[1:])
            count.at = block.offset + sum(i * block.strides[a] for i, a in zip(index, axes, strict=False))
