"""How one tensor of an output is made: its dtype and shape, the steps that fill it, and the tensors they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from layoutx.files.dtypes import DType
from layoutx.files.store import Tensor
from layoutx.plan.given import dtype_of
from layoutx.plan.plan import Plan
from layoutx.plan.steps import Add, Copy, Fill, Loop, Step


@dataclass(frozen=True, slots=True)
class Move:
    """One output tensor; where all its sources are mapped, a move can be given to another process.

    Attributes:
        name: in the output.
        dtype, shape: as it is written.
        working: the dtype that the steps give; another than `dtype` where the numbers are rounded or widened.
        steps: Copy, Fill and Add into flat memory of `shape`, in elements.
        sources: the steps' source name -> stored tensor.
        form: the target's form, for errors.
        whole: the plan, where the tensor is cut into blocks (CuDNN) and cannot be made piece by piece.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    working: DType
    steps: tuple[Step, ...]
    sources: Mapping[str, Tensor]
    form: str = ""
    slot: str = ""
    whole: Plan | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        total = 1
        for n in self.shape:
            total *= n
        return total

    @property
    def nbytes(self) -> int:
        """Number of bytes in the output."""
        return self.size * self.dtype.itemsize


def moves_of(plan: Plan, sources: Mapping[str, Tensor], names: Mapping[str, str]) -> list[Move]:
    """The moves of one layer, each in the dtype that the plain executor would give it.

    Args:
        sources: source form tensor name -> stored tensor, of the planned shapes.
        names: target form tensor name -> its name in the output.

    Raises:
        ConversionError: sources whose dtypes have none in common.
    """
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
        found.append(
            Move(
                names[tensor.name],
                dtype,
                tensor.shape,
                dtype,
                steps,
                sources if blocks else {name: sources[name] for name in sources if name in read},
                plan.target.form.name,
                tensor.name,
                plan if blocks else None,
            )
        )
    return found


def kept(name: str, tensor: Tensor) -> Move:
    """The move of a stored tensor as it is."""
    loops = (Loop("", tensor.size, 1, 1),)
    step = Copy(name, "", 0, 0, loops)
    return Move(name, tensor.dtype, tensor.shape, tensor.dtype, (step,), {"": tensor}, slot=name)


def _dtype(steps: Sequence[Step], sources: Mapping[str, Tensor], declared: str) -> DType:
    if len(steps) == 1 and not declared and isinstance(steps[0], Copy):
        return sources[steps[0].source].dtype
    shells = {name: np.empty(0, tensor.dtype) for name, tensor in sources.items()}
    return dtype_of(steps, shells, declared)


def _read(steps: Sequence[Step]) -> set[str]:
    """The source tensors that steps read."""
    names = {step.source for step in steps if isinstance(step, Copy)}
    return names | {term.source for step in steps if isinstance(step, Add) for term in step.terms}
