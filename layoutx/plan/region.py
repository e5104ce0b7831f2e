"""Which elements of a stored tensor an atom, or a part of it, takes: a slice for each stored dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import prod

from layoutx.frozen import frozen
from layoutx.lang.place import Block
from layoutx.spec.bound import BoundForm, BoundTensor


@frozen
class Region:
    """Elements of one stored tensor.

    Attributes:
        tensor: the form's name.
        taken: for each stored dimension the indices that are taken, rising; () where the elements are no such box.
        shape: of the stored tensor.
    """

    tensor: str
    shape: tuple[int, ...]
    taken: tuple[tuple[int, ...], ...]

    @property
    def text(self) -> str:
        """`kernel[:, 128:256]`; the name alone where all of the tensor is taken."""
        if not self.taken:
            return f"{self.tensor} (strided)"
        if all(len(t) == n for t, n in zip(self.taken, self.shape, strict=True)):
            return self.tensor
        return f"{self.tensor}[{', '.join(slice_text(t, n) for t, n in zip(self.taken, self.shape, strict=True))}]"


def slice_text(taken: Sequence[int], size: int) -> str:
    """`:`, `5`, `128:256`, `0:9:3`, or the indices themselves."""
    if len(taken) == size:
        return ":"
    if len(taken) == 1:
        return str(taken[0])
    steps = {b - a for a, b in pairwise(taken)}
    if len(steps) != 1:
        return "[" + ", ".join(map(str, taken[:6])) + (", ..." if len(taken) > 6 else "") + "]"
    (step,) = steps
    return f"{taken[0]}:{taken[-1] + 1}" + (f":{step}" if step != 1 else "")


def picked(block: Block, at: Mapping[str, int]) -> Block:
    """A block with some of its axes fixed."""
    offset = block.offset + sum(block.strides[axis] * n for axis, n in at.items() if axis in block.strides)
    return replace(block, offset=offset, strides={a: s for a, s in block.strides.items() if a not in at})


def region(bound: BoundForm, tensor: BoundTensor, block: Block) -> Region:
    """The region of a block; of a tensor that is cut into blocks (CuDNN) only the name is told."""
    if tensor.cut is not None:
        return Region(tensor.name, tensor.shape, ())
    offset = block.offset
    loops = []
    for axis, step in block.strides.items():
        size = bound.sizes[axis]
        offset += (size - 1) * step if step < 0 else 0
        if size > 1:
            loops.append((abs(step), size))
    taken = []
    for dim, size in enumerate(tensor.shape):
        step = prod(tensor.shape[dim + 1 :])
        found = {(offset // step) % size}
        for stride, count in loops:
            if step <= stride < step * size:
                found = {n + k * stride // step for n in found for k in range(count)}
        taken.append(tuple(sorted(found)))
    wanted = prod(count for _, count in loops)
    return Region(tensor.name, tensor.shape, tuple(taken) if prod(map(len, taken)) == wanted else ())


def joined(regions: Sequence[Region]) -> Region:
    """Regions of one tensor as one, where together they are a box."""
    first = regions[0]
    if any(not r.taken for r in regions):
        return replace(first, taken=())
    taken = tuple(tuple(sorted({n for r in regions for n in r.taken[d]})) for d in range(len(first.shape)))
    whole = prod(map(len, taken)) == sum(prod(map(len, r.taken)) for r in regions)
    return replace(first, taken=taken if whole else ())
