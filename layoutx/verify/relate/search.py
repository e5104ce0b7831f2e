"""Trained numbers are nearly all different: the values on a few lines through an atom tell where all of it went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.relate.change import UNCHANGED, Change
from layoutx.verify.relate.found import Found, difference
from layoutx.verify.relate.lookup import keys_of, occurrences
from layoutx.verify.relate.numbers import Numbers
from layoutx.verify.relate.steps import HOLE, Run, digits, merged, most, spelled

LINES = (8, 30)  # lines through an atom along each axis, and again where equal numbers left holes
MOST_COPIES = 4
LARGEST_ORDER = 1 << 24  # elements of an atom whose shuffled axes are told one by one
LARGEST_AGAIN = 1 << 20  # elements of a tensor that is looked through again with more lines
MOST_WRONG = 0.1


@frozen
class _Lines:
    """Values on lines through one atom: for each axis an array (line, index), and the bases that they go through."""

    numbers: Numbers
    change: Change
    bases: Array
    values: tuple[Array, ...]


def search(numbers: Sequence[Numbers], flat: Array, change: Change = UNCHANGED) -> list[Found]:
    """Where atoms lie in a tensor's flat memory; what is not there, or is there in no order at all, is left out.

    Each place is checked number by number: `wrong` says how many differ all the same.
    """
    found: list[Found] = []
    left = [n for n in numbers if 0 < n.array.size <= flat.size]
    for count in LINES:
        if count > LINES[0] and flat.size > LARGEST_AGAIN:
            break
        missing = []
        for own, places in _located(left, flat, change, count):
            found += places
            if not places:
                missing.append(own)
        left = missing
    return found


def _located(
    numbers: Sequence[Numbers], flat: Array, change: Change, count: int
) -> Iterator[tuple[Numbers, list[Found]]]:
    lines = [_lines(own, flat, change, count) for own in numbers]
    if not lines:
        return
    keys = keys_of(np.concatenate([v.reshape(-1) for own in lines for v in own.values]))
    which, at = occurrences(keys, flat)
    signs = np.signbit(flat[at].astype(np.float64))
    for own in lines:
        yield own.numbers, list(_places(own, flat, keys, which, at, signs))


def _lines(numbers: Numbers, flat: Array, change: Change, count: int) -> _Lines:
    """Values on `count` lines along each axis, changed and rounded as they would be stored."""
    shape = numbers.array.shape
    rng = np.random.default_rng(20261121)
    bases = np.stack([rng.integers(0, n, count) for n in shape], 1) if shape else np.zeros((1, 0), np.int64)
    found = []
    for axis, n in enumerate(shape):
        index = tuple(np.arange(n)[None] if d == axis else bases[:, d, None] for d in range(len(shape)))
        found.append(change(numbers.array[index], flat.dtype).astype(np.float64))
    if not shape:
        found.append(change(numbers.array.reshape(1, 1), flat.dtype).astype(np.float64))
    return _Lines(numbers, change, bases, tuple(found))


def _places(own: _Lines, flat: Array, keys: Array, which: Array, at: Array, signs: Array) -> Iterator[Found]:
    """One place for each copy of the atom in the tensor."""
    unique = _unique(own, flat)
    counts = np.bincount(which, minlength=len(keys))
    at_keys = [np.searchsorted(keys, np.abs(v)).clip(max=max(len(keys) - 1, 0)) for v in own.values]
    here = [
        (keys[k] == np.abs(v)) & np.isin(np.abs(v), unique) if len(keys) else np.zeros(v.shape, bool)
        for k, v in zip(at_keys, own.values, strict=True)
    ]
    often = np.concatenate([counts[k[h]] for k, h in zip(at_keys, here, strict=True)])
    often = often[(often > 0) & (often <= MOST_COPIES)]
    if not len(often):
        return
    copies = most(often)
    order = np.argsort(which, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)])
    for copy in range(copies):
        lines, turned = [], []
        for k, h, v in zip(at_keys, here, own.values, strict=True):
            good = h & (counts[k] == copies)
            place = np.full(v.shape, HOLE)
            rows = order[starts[k[good]] + copy]
            place[good] = at[rows]
            turned.append(signs[rows] != np.signbit(v[good]))
            lines.append(place)
        negated = np.concatenate(turned)
        piece = _fitted(own, lines, bool(negated.mean() > 0.5) if len(negated) else False)
        if piece is not None and piece.within(flat.size):
            wrong, residual = difference(piece, flat)
            if wrong <= MOST_WRONG * piece.numbers.array.size:
                yield replace(piece, wrong=wrong, residual=residual)


def _unique(own: _Lines, flat: Array) -> Array:
    """Absolute values of the lines that the atom holds once: only these tell a place."""
    keys = keys_of(np.concatenate([v.reshape(-1) for v in own.values]))
    array = own.numbers.array
    flat_own = array.reshape(-1) if array.flags.c_contiguous else np.ascontiguousarray(array).reshape(-1)
    which, _ = occurrences(keys, own.change(flat_own, flat.dtype))
    return np.asarray(keys[np.bincount(which, minlength=len(keys)) == 1])


def _fitted(own: _Lines, lines: Sequence[Array], negated: bool) -> Found | None:
    """The place that the known positions agree on; None where they agree on none."""
    numbers = own.numbers
    runs: dict[str, tuple[Run, ...]] = {}
    orders: dict[str, tuple[int, ...]] = {}
    steps: list[Array] = []
    for axis, line in zip(numbers.axes, lines, strict=False):
        along = merged(line)
        found = digits(along)
        if found is None:
            if (along == HOLE).any() or numbers.array.size > LARGEST_ORDER or along[0] == HOLE:
                return None
            orders[axis] = tuple(int(x) for x in along)
        else:
            runs[axis] = found
        steps.append(np.array(orders[axis]) if axis in orders else spelled(runs[axis]))
    offsets = [place[place != HOLE] - _reach(own.bases, steps, axis, place) for axis, place in enumerate(lines)]
    known = np.concatenate(offsets) if offsets else np.empty(0)
    return Found(numbers, most(known), runs, orders, negated, own.change) if len(known) else None


def _reach(bases: Array, steps: Sequence[Array], axis: int, place: Array) -> Array:
    """How far each known point of the lines along an axis is from the atom's first number."""
    total = np.zeros(place.shape, np.int64)
    for d, along in enumerate(steps):
        total += along[None, :] if d == axis else along[bases[:, d], None]
    return np.asarray(total[place != HOLE])


def placed(numbers: Numbers, offset: int, strides: Mapping[str, int], change: Change, negated: bool = False) -> Found:
    """A piece at a given place: each axis an even step."""
    runs = {
        axis: (Run(n, strides[axis]),) if n > 1 else ()
        for axis, n in zip(numbers.axes, numbers.array.shape, strict=True)
    }
    return Found(numbers, offset, runs, {}, negated, change)
