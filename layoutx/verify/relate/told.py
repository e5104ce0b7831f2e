"""A tensor whose pieces were found, as a relation: the layout it holds beside the one that is read, and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.spec.bound import Atom, BoundForm, BoundTensor
from layoutx.spec.schema import choose
from layoutx.verify.relate.change import UNCHANGED
from layoutx.verify.relate.cover import Cover, rounding_only
from layoutx.verify.relate.found import differing
from layoutx.verify.relate.numbers import Numbers
from layoutx.verify.relate.relation import LAYOUT, SAME, VALUES, TensorRelation
from layoutx.verify.relate.search import placed
from layoutx.verify.relate.telling import changed, differences, label_orders
from layoutx.verify.relate.written import Written, piece_of, written


@frozen
class Layer:
    """What all tensors of a layer are judged by.

    Attributes:
        numbers: the source's atoms; sums: sums of them that the forward pass cannot tell apart.
        expected: target tensor -> what the registry would have there.
        silent: enumerated axes that have one label on both sides.
    """

    target: BoundForm
    stored: Mapping[str, Array]
    numbers: Mapping[Atom, Numbers]
    sums: Sequence[Numbers]
    expected: Mapping[str, Array]
    silent: tuple[str, ...]


def reads_of(tensor: BoundTensor, layer: Layer) -> Written:
    """What the form reads, written the same way as what is found."""
    pieces, names = [], _written_as(layer.target)
    for block in tensor.blocks:
        shape = tuple(layer.target.sizes[axis] for axis in block.strides)
        empty = Numbers(block.role, block.labels, tuple(block.strides), np.broadcast_to(np.float64(0), shape))
        pieces.append(piece_of(placed(empty, block.offset, block.strides, UNCHANGED, block.negated), names))
    found = written(pieces, tensor.shape, layer.silent) if pieces and tensor.cut is None else None
    if found is not None:
        return found
    from layoutx.lang.show import show

    text = show(tensor.layout)
    return Written(text, tensor.layout.dims, text.partition(":")[0], dict(layer.target.sizes))


def told(tensor: BoundTensor, found: Cover, layer: Layer) -> TensorRelation:
    """A tensor that its pieces explain."""
    holds, reads = _holds(tensor, found, layer), reads_of(tensor, layer)
    words = changed(found.pieces, layer.silent)
    wrong = sum(piece.wrong for piece in found.pieces)
    residual = float(np.max([p.residual for p in found.pieces], initial=0.0))  # keeps a NaN
    if wrong and rounding_only(found.pieces, residual):
        words.append(f"up to rounding ({residual:.2g})")
    elif wrong:
        words.append(differing(wrong, found.flat.size, residual))
    touched = any(p.change != UNCHANGED for p in found.pieces)
    if holds is None:
        words.append("the same numbers, in an order that no layout says")
        return TensorRelation(
            tensor.name, LAYOUT, "", reads.text, tuple(words), residual, wrong, found=tuple(found.pieces)
        )
    words = differences(holds, reads, layer.target.form.name) + words
    status = VALUES if touched or wrong else LAYOUT if words else SAME
    return TensorRelation(
        tensor.name, status, holds.text, reads.text, tuple(words), residual, wrong,
        labels=label_orders(holds.dims), sizes=holds.sizes, found=tuple(found.pieces),
    )  # fmt: skip


def _holds(tensor: BoundTensor, found: Cover, layer: Layer) -> Written | None:
    pieces = [piece_of(p, _written_as(layer.target)) for p in found.pieces]
    if tensor.cut is not None:
        return reads_of(tensor, layer) if _in_place(tensor, found) else None
    return written(pieces, tensor.shape, layer.silent)


def _written_as(bound: BoundForm) -> dict[str, str]:
    """Role axes that a form writes under another axis' name."""
    found = {axis: choose(cases, bound.config) for axis, cases in bound.form.equal.items()}
    return {axis: name for axis, name in found.items() if name}


def _in_place(tensor: BoundTensor, found: Cover) -> bool:
    """Whether every piece lies where its atom is read."""
    here = {(b.role, b.labels): b for b in tensor.blocks}
    for piece in found.pieces:
        block = here.get(piece.numbers.atom)
        if block is None or set(block.strides) != set(piece.numbers.axes):
            return False
        there = placed(piece.numbers, block.offset, block.strides, piece.change)
        if (there.offset, there.runs) != (piece.offset, piece.runs):
            return False
    return True
