"""Where each atom sits: a layout and its sizes compiled to offsets and strides, never to a stack of views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from layoutx.errors import SizeError
from layoutx.frozen import frozen
from layoutx.lang.show import show_dim
from layoutx.lang.sizes import extent
from layoutx.lang.tree import Axis, Dim, Layout, Product, Sum, Unit

Labels = tuple[tuple[str, str], ...]


@frozen
class Block:
    """One atom inside one tensor.

    Attributes:
        role: the role whose numbers these are.
        labels: (axis, label) pairs of the enumerated axes, sorted by axis.
        offset: element index of the atom's first number (all its integer axes at 0) in C order.
        strides: axis -> step in elements; negative where the axis is stored back to front.
        negated: the stored values are the role's values with the sign changed.
    """

    role: str
    labels: Labels
    offset: int
    strides: Mapping[str, int]
    negated: bool = False


@frozen
class _Piece:
    role: str
    labels: Mapping[str, str]
    offset: int
    strides: Mapping[str, int]
    negated: bool = False


_WHOLE = _Piece("", {}, 0, {})


def shape_of(layout: Layout, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The stored shape.

    Raises:
        SizeError: an axis has no size.
    """
    return tuple(extent(dim, sizes) for dim in layout.dims)


def place(layout: Layout, sizes: Mapping[str, int], labels: Mapping[str, str] | None = None) -> list[Block]:
    """All atoms of a layout, in storage order of their labels.

    Args:
        layout: with `...` already expanded.
        sizes: axis -> length.
        labels: enumerated axes that are fixed from outside (by the tensor's name or the head), axis -> label.

    Raises:
        SizeError: an axis has no size, or stands twice in the dims of one atom.
    """
    pieces, _ = _row_major(layout.dims, sizes)
    head = layout.head
    blocks = []
    for piece in pieces:
        merged = {**(labels or {}), **piece.labels}
        role = piece.role or (head.role if head else "")
        blocks.append(
            Block(
                role,
                tuple(sorted(merged.items())),
                piece.offset,
                piece.strides,
                bool(head and head.negated) != piece.negated,
            )
        )
    return blocks


def _row_major(dims: Sequence[Dim], sizes: Mapping[str, int]) -> tuple[list[_Piece], int]:
    """The pieces of dims nested outermost first, in elements, and how many elements they span."""
    parts = [_pieces(dim, sizes) for dim in dims]
    steps, span = [], 1
    for _, size in reversed(parts):
        steps.append(span)
        span *= size
    steps.reverse()
    combined = []
    for choice in product(*(pieces for pieces, _ in parts)):
        combined.append(_join(choice, steps, dims))
    return combined, span


def _join(choice: Sequence[_Piece], steps: Sequence[int], dims: Sequence[Dim]) -> _Piece:
    role, offset, negated = "", 0, False
    labels: dict[str, str] = {}
    strides: dict[str, int] = {}
    for piece, step in zip(choice, steps, strict=True):
        again = set(labels) & set(piece.labels) | set(strides) & set(piece.strides)
        if again or (role and piece.role):
            name = ", ".join(sorted(again)) or "the role"
            raise SizeError(f"{name} stands twice in one layout", where=" ".join(show_dim(d) for d in dims))
        role = role or piece.role
        negated ^= piece.negated
        offset += piece.offset * step
        labels.update(piece.labels)
        strides.update({axis: stride * step for axis, stride in piece.strides.items()})
    return _Piece(role, labels, offset, strides, negated)


def _pieces(dim: Dim, sizes: Mapping[str, int]) -> tuple[list[_Piece], int]:
    match dim:
        case Axis(name, back):
            size = extent(dim, sizes)
            return [_Piece("", {}, max(size - 1, 0) if back else 0, {name: -1 if back else 1})], size
        case Unit():
            return [_WHOLE], 1
        case Product(dims):
            return _row_major(dims, sizes)
        case Sum():
            return _sum(dim, sizes)
        case _:
            raise SizeError("the spatial axes `...` are not expanded yet", where=show_dim(dim))


def _sum(node: Sum, sizes: Mapping[str, int]) -> tuple[list[_Piece], int]:
    pieces, at = [], 0
    for option in node.options:
        inner, span = _row_major(option.dims, sizes)
        for piece in inner:
            labels = dict(piece.labels)
            if node.axis is not None:
                labels[node.axis] = option.label
            role = piece.role if node.axis is not None else option.label
            pieces.append(_Piece(role, labels, at + piece.offset, piece.strides, piece.negated != option.negated))
        at += span
    return pieces, at
