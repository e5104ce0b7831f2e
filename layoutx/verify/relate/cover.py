"""A tensor explained piece by piece: places found by values, changed numbers, then what stands where it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from layoutx.lang.place import Block
from layoutx.plan.plan import Array
from layoutx.spec.bound import Atom, BoundTensor
from layoutx.verify.relate.change import UNCHANGED, changes, rough, roundings
from layoutx.verify.relate.found import Found, difference
from layoutx.verify.relate.numbers import Numbers, slot
from layoutx.verify.relate.search import placed, search

LARGEST_SORTED = 1 << 19  # the values of larger atoms are not sorted: a sample at their own place is compared
SAMPLE = 4096


@dataclass
class Cover:
    """The pieces of one tensor so far, and which elements they take."""

    flat: Array
    taken: Array
    pieces: list[Found] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether every element is explained."""
        return bool(self.taken.all())

    @property
    def plain(self) -> bool:
        """Whether every element is explained by the source's own numbers, exactly."""
        return self.whole and not any(p.wrong or p.change.kind not in ("", "rounded") for p in self.pieces)

    def take(self, found: Sequence[Found], preferred: Sequence[Atom]) -> None:
        """Add pieces that fit, the exact ones and those that are read here first."""
        for piece in sorted(found, key=lambda f: (f.wrong > 0, len(f.orders), f.numbers.atom not in preferred)):
            if piece.mark(self.taken):
                self.pieces.append(piece)


def cover(
    tensor: BoundTensor,
    flat: Array,
    numbers: Mapping[Atom, Numbers],
    sums: Sequence[Numbers],
    sizes: Mapping[str, int],
    expected: Array,
) -> Cover:
    """Explain a tensor's numbers by those of the source.

    Args:
        flat: the tensor's memory; expected: what the registry would have there, NaN where nobody knows.
        numbers: the source's atoms; sums: sums of them that the forward pass cannot tell apart.
        sizes: of the axes of the tensor's blocks.
    """
    done = Cover(flat, np.zeros(flat.size, bool))
    wanted = [(b.role, b.labels) for b in tensor.blocks]
    own = sorted(numbers.values(), key=lambda n: n.atom not in wanted)
    every = [*own, *sums]
    done.take(search(every, flat), wanted)
    if not done.whole and own:
        for change in roundings(own[0].array.dtype, flat):
            done.take(search(every, flat, change), wanted)
    if not done.whole:
        _constants(done, tensor, numbers, sizes, expected)
    if not done.whole:
        _changed(done, tensor, every, wanted, sizes)
    return done


def _constants(
    done: Cover, tensor: BoundTensor, numbers: Mapping[Atom, Numbers], sizes: Mapping[str, int], expected: Array
) -> None:
    """Places without a value that could be found (zeros, say), which hold what is read there."""
    for block in _open(done, tensor, sizes):
        here = slot(block, done.flat, sizes)
        wanted = slot(block, expected, sizes)
        if np.array_equal(here, wanted.astype(here.dtype)):
            known = numbers.get((block.role, block.labels))
            if known is None or set(known.axes) != set(block.strides):
                known = Numbers(block.role, block.labels, tuple(block.strides), np.asarray(wanted))
            done.take([placed(known, block.offset, block.strides, UNCHANGED, block.negated)], [])


def _open(done: Cover, tensor: BoundTensor, sizes: Mapping[str, int]) -> list[Block]:
    return [block for block in tensor.blocks if not slot(block, done.taken, sizes).any()]


def _changed(
    done: Cover, tensor: BoundTensor, every: Sequence[Numbers], wanted: Sequence[Atom], sizes: Mapping[str, int]
) -> None:
    """Numbers that were changed on their way: what is not explained yet has the sorted values of an atom, changed."""
    used = {piece.numbers.atom for piece in done.pieces}
    rest = [n for n in every if n.atom not in used]
    for block in _open(done, tensor, sizes):
        here = slot(block, done.flat, sizes)
        if slot(block, done.taken, sizes).any():
            continue
        for own in _near(rest, block, here.size):
            piece = _change_at(own, here, block, done)
            if piece is not None:
                done.take([piece], wanted)
                break
    left = done.flat[~done.taken]
    for own in [n for n in rest if n.array.size == left.size]:
        for change in rough(own.array, left) if left.size > LARGEST_SORTED else changes(own.array, left):
            done.take([p for p in search([own], done.flat, change) if not p.wrong or _near_enough(p)], wanted)


def _near(rest: Sequence[Numbers], block: Block, size: int) -> list[Numbers]:
    """Atoms that could stand at a place: its own, sums with it, then those of its size."""
    own = [n for n in rest if n.labels == block.labels and block.role in n.role.split(" + ") and n.array.size == size]
    if size > LARGEST_SORTED:
        return [n for n in own if set(n.axes) == set(block.strides)]
    known = {n.atom for n in own}
    return own + [n for n in rest if n.array.size == size and n.atom not in known]


def _change_at(own: Numbers, here: Array, block: Block, done: Cover) -> Found | None:
    large = here.size > LARGEST_SORTED
    for change in changes(*_sampled(own, here, block)) if large else changes(own.array, here):
        found = [] if large else [p for p in search([own], done.flat, change) if not p.wrong or _near_enough(p)]
        if found:
            return found[0]
        if set(own.axes) == set(block.strides):
            piece = placed(own, block.offset, block.strides, change)
            wrong, residual = difference(piece, done.flat)
            piece = replace(piece, wrong=wrong, residual=residual)
            if not wrong or _near_enough(piece):
                return piece
    return None


def _sampled(own: Numbers, here: Array, block: Block) -> tuple[Array, Array]:
    """The same few elements of an atom and of what stands at its place."""
    ours = own.array.transpose([own.axes.index(axis) for axis in block.strides])
    rng = np.random.default_rng(20261121)
    at = tuple(rng.integers(0, n, SAMPLE) for n in here.shape)
    return ours[at], here[at]


def _near_enough(piece: Found) -> bool:
    """Whether a changed piece is off by rounding only: the other converter may have computed in another order."""
    return rounding_only([piece], piece.residual)


def rounding_only(pieces: Sequence[Found], residual: float) -> bool:
    """Whether a difference is no more than rounding, for numbers of this size."""
    largest = max(float(np.abs(p.numbers.array).max(initial=0)) + abs(p.change.amount) for p in pieces)
    return residual <= 1e-6 * largest
