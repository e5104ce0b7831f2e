"""How one tensor of an output is made: its dtype and shape, the steps that fill it, and the tensors they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from math import prod

import numpy as np

from layoutx.files.dtypes import DType
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.move.pieces import LEAST, PIECE, ROOM, Cut, cut_of
from layoutx.plan.given import dtype_of
from layoutx.plan.plan import Plan
from layoutx.plan.steps import Add, Copy, Fill, Loop, Step


@frozen
class Recipe:
    """All of a move but its names and its stored tensors: the same for every layer of one signature.

    Attributes:
        dtype, shape: as it is written.
        working: the dtype that the steps give; another than `dtype` where the numbers are rounded or widened.
        steps: Copy, Fill and Add into flat memory of `shape`, in elements.
        reads: the steps' source name -> the dtype that is stored.
        form: the target's form, for errors. slot: the target form's tensor.
        whole: the plan, where the tensor is cut into blocks (CuDNN) and cannot be made piece by piece.
        size, nbytes: number of elements, and of bytes in the output.
        cut: its pieces, for a few threads; one that needs its whole plan has a single one.
    """

    dtype: DType
    shape: tuple[int, ...]
    working: DType
    steps: tuple[Step, ...]
    reads: Mapping[str, DType]
    form: str = ""
    slot: str = ""
    whole: Plan | None = None
    size: int = field(init=False)
    nbytes: int = field(init=False)
    cut: Cut = field(init=False)

    def __post_init__(self) -> None:
        size = prod(self.shape)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "nbytes", size * self.dtype.itemsize)
        cut = Cut(1, 1, size, 1) if self.whole is not None else cut_of(self.shape, self.width, self.steps)
        object.__setattr__(self, "cut", cut)

    @property
    def width(self) -> int:
        """Bytes of an element while it is made, or written, whichever is more."""
        return max(self.dtype.itemsize, self.working.itemsize)

    def cut_for(self, jobs: int) -> Cut:
        """Its pieces for so many threads: smaller ones for many, so that memory stays bounded."""
        piece = min(PIECE, max(LEAST, ROOM // jobs))
        if piece == PIECE or self.whole is not None or self.size * self.width <= piece:
            return self.cut
        return cut_of(self.shape, self.width, self.steps, piece)


@frozen
class Move:
    """One output tensor; where all its sources are mapped, a move can be given to another process.

    Attributes:
        name: in the output. recipe: how it is made.
        tensors: the stored tensors that it reads, in the recipe's order.
    """

    name: str
    recipe: Recipe
    tensors: tuple[Tensor, ...]

    @property
    def dtype(self) -> DType:
        """As it is written."""
        return self.recipe.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """As it is written."""
        return self.recipe.shape

    @property
    def working(self) -> DType:
        """The dtype that the steps give."""
        return self.recipe.working

    @property
    def steps(self) -> tuple[Step, ...]:
        """What fills it."""
        return self.recipe.steps

    @property
    def slot(self) -> str:
        """The target form's tensor."""
        return self.recipe.slot

    @property
    def whole(self) -> Plan | None:
        """The plan, where it cannot be made piece by piece."""
        return self.recipe.whole

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.recipe.size

    @property
    def nbytes(self) -> int:
        """Number of bytes in the output."""
        return self.recipe.nbytes

    @property
    def sources(self) -> dict[str, Tensor]:
        """The steps' source name -> stored tensor."""
        return dict(zip(self.recipe.reads, self.tensors, strict=True))


class Recipes:
    """Recipes that are worked out once: of layers whose plans have one signature, and of other dtypes."""

    def __init__(self) -> None:
        self._of: dict[tuple[object, ...], tuple[Plan, tuple[Recipe, ...]]] = {}
        self._cast: dict[tuple[int, DType], tuple[Recipe, Recipe]] = {}

    def of(self, plan: Plan, sources: Mapping[str, Tensor]) -> tuple[Recipe, ...]:
        """Of each tensor of a plan's target, for sources of these dtypes.

        Raises:
            ConversionError: sources whose dtypes have none in common.
        """
        given = tuple([(name, tensor.dtype) for name, tensor in sources.items()])
        key = (id(plan.steps), id(plan.target), given)  # what `fit` planned once has the same steps for all its layers
        found = self._of.get(key)
        if found is None:
            found = self._of[key] = (plan, _recipes(plan, dict(given)))  # the plan stays, and so no other has its ids
        return found[1]

    def cast(self, move: Move, dtype: DType) -> Move:
        """The same move, written in another dtype."""
        key = (id(move.recipe), dtype)
        if key not in self._cast:
            self._cast[key] = (move.recipe, replace(move.recipe, dtype=dtype))
        return replace(move, recipe=self._cast[key][1])


def moves_of(
    plan: Plan, sources: Mapping[str, Tensor], names: Mapping[str, str], recipes: Recipes | None = None
) -> list[Move]:
    """The moves of one layer, each in the dtype that the plain executor would give it.

    Args:
        sources: source form tensor name -> stored tensor, of the planned shapes.
        names: target form tensor name -> its name in the output.
        recipes: those of layers before this one.

    Raises:
        ConversionError: sources whose dtypes have none in common.
    """
    known = (recipes or Recipes()).of(plan, sources)
    return [Move(names[one.slot], one, tuple([sources[name] for name in one.reads])) for one in known]


def kept(name: str, tensor: Tensor) -> Move:
    """The move of a stored tensor as it is."""
    step = Copy(name, "", 0, 0, (Loop("", tensor.size, 1, 1),))
    recipe = Recipe(tensor.dtype, tensor.shape, tensor.dtype, (step,), {"": tensor.dtype}, slot=name)
    return Move(name, recipe, (tensor,))


def _recipes(plan: Plan, sources: Mapping[str, DType]) -> tuple[Recipe, ...]:
    own: dict[str, list[Step]] = {tensor.name: [] for tensor in plan.target.tensors}
    for step in plan.steps:
        if isinstance(step, (Copy, Fill, Add)):
            own[step.target].append(step)
    cut = {tensor.name for tensor in plan.source.tensors if tensor.cut is not None}
    found = []
    for tensor in plan.target.tensors:
        steps = tuple(own[tensor.name])
        dtype = _dtype(steps, sources, tensor.dtype)
        read = _read(steps)
        blocks = tensor.cut is not None or bool(read & cut)
        reads = sources if blocks else {name: sources[name] for name in sources if name in read}
        whole = plan if blocks else None
        found.append(Recipe(dtype, tensor.shape, dtype, steps, reads, plan.target.form.name, tensor.name, whole))
    return tuple(found)


def _dtype(steps: Sequence[Step], sources: Mapping[str, DType], declared: str) -> DType:
    if len(steps) == 1 and not declared and isinstance(steps[0], Copy):
        return sources[steps[0].source]
    shells = {name: np.empty(0, dtype) for name, dtype in sources.items()}
    return dtype_of(steps, shells, declared)


def _read(steps: Sequence[Step]) -> set[str]:
    """The source tensors that steps read."""
    names = {step.source for step in steps if isinstance(step, Copy)}
    return names | {term.source for step in steps if isinstance(step, Add) for term in step.terms}
