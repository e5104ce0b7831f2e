"""What an axis of a layer's weights is made of, laid end to end, in the order of the model's own framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

from layoutx.model.axes import Axis, Cat, Dim, axes_in, plain
from layoutx.model.record import Piece


def pieces(dims: Sequence[Dim], total: int | None, opened: Callable[[Dim], Dim] = tuple) -> tuple[Piece, ...]:
    """The pieces of an axis that stands for these dims; () where a concatenation lies inside a product.

    Args:
        total: the axis' length in the weights, which decides one unknown size.
        opened: a dim with the axes that a Reshape took apart replaced by their parts.
    """
    every = _laid(tuple(item for dim in dims for item in dim), opened)
    if every is None:
        return ()
    open_ = [i for i, piece in enumerate(every) if piece.size is None]
    if len(open_) == 1 and total is not None:
        rest = total - sum(p.size or 0 for i, p in enumerate(every) if i != open_[0])
        solved = _solved(every[open_[0]], rest)
        every[open_[0]] = solved if solved is not None else every[open_[0]]
    return tuple(every)


def _laid(dim: Dim, opened: Callable[[Dim], Dim]) -> list[Piece] | None:
    dim = opened(dim)
    if len(dim) == 1 and isinstance(dim[0], Cat):
        found: list[Piece] = []
        for _, part, _ in dim[0].parts:
            inner = _laid(part, opened)
            if inner is None:
                return None
            found += inner
        return found
    dim = plain(dim)
    if any(isinstance(item, Cat) for item in dim):
        return None
    axes = [axis for axis in axes_in(dim) if axis.size != 1] or list(axes_in(dim))[:1]
    return [Piece(tuple((a.letter, a.size) for a in axes), _origins(axes), _turned(axes))]


def _turned(axes: Sequence[Axis]) -> bool:
    """Whether axes stand in another order than they were made in."""
    ages = [axis.age for axis in axes]
    return ages != sorted(ages)


def _origins(axes: Sequence[Axis]) -> tuple[str, ...]:
    """The layers that made the axes, the one that made the last (or the channels) first."""
    ordered = sorted(axes, key=lambda a: a.letter not in ("c", "n"))
    return tuple(dict.fromkeys(a.origin for a in ordered))


def _solved(piece: Piece, size: int) -> Piece | None:
    """A piece whose unknown sizes follow from its length: one, or neighbours, which then stand together as `h×w`."""
    unknown = [i for i, (_, n) in enumerate(piece.axes) if n is None]
    known = prod(n for _, n in piece.axes if n is not None)
    first, last = unknown[0], unknown[-1] + 1
    if len(unknown) != last - first or size < 1 or size % known:
        return None
    joined = ("×".join(name for name, _ in piece.axes[first:last]), size // known)
    return replace(piece, axes=(*piece.axes[:first], joined, *piece.axes[last:]))
