"""Small whole tensors, made one after the other where they will lie: thousands of them cost a call or two each."""

from __future__ import annotations

import numpy as np

from layoutx.files.dtypes import Array, DType
from layoutx.frozen import frozen
from layoutx.move.filled import Seen, Sources, filled
from layoutx.move.moves import Move, Recipe
from layoutx.plan import strided
from layoutx.plan.steps import Copy
from layoutx.plan.views import unit


@frozen
class Strides:
    """One copy of raw bits: lengths, and where it begins and how it goes on both sides, in bytes.

    `source` is the number of the tensor that is read.
    """

    shape: tuple[int, ...]
    unit: DType
    source: int
    to: tuple[int, tuple[int, ...]]
    of: tuple[int, tuple[int, ...]]


class Small:
    """Makes small tensors; what follows from a recipe alone is worked out once for all tensors of it."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._copies: dict[int, tuple[Recipe, tuple[Strides, ...]]] = {}

    def make(self, move: Move, into: Array, seen: Seen) -> None:
        """Fill `into`, flat uint8 of the tensor's length.

        Raises:
            ConversionError: sums that overflow.
        """
        recipe = move.recipe
        known = self._copies.get(id(recipe))
        if known is None:
            known = self._copies[id(recipe)] = (recipe, _copies(recipe))
        if not known[1]:
            np.copyto(into, filled(move, recipe.cut, 0, self._sources.flat(move), seen))
        for one in known[1]:
            source = self._sources.one(move.tensors[one.source])
            np.copyto(np.ndarray(one.shape, one.unit, into, *one.to), np.ndarray(one.shape, one.unit, source, *one.of))


def _copies(recipe: Recipe) -> tuple[Strides, ...]:
    """The copies that make a tensor; none where anything else does, or where another order would be faster."""
    if recipe.whole is not None or recipe.dtype != recipe.working or recipe.nbytes >= strided.SMALL:
        return ()
    names, width, found = list(recipe.reads), recipe.dtype.itemsize, []
    for step in recipe.steps:
        if not isinstance(step, Copy) or step.negate or recipe.reads[step.source] != recipe.dtype:
            return ()
        shape = tuple(loop.size for loop in step.loops)
        to = (step.target_offset * width, tuple(loop.target * width for loop in step.loops))
        of = (step.source_offset * width, tuple(loop.source * width for loop in step.loops))
        found.append(Strides(shape, unit(width), names.index(step.source), to, of))
    return tuple(found)
