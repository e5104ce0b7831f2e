"""What a tensor would hold if the other file had been written as the registry says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.plan.blocks import memory, settle
from layoutx.plan.plan import Array, Plan, plan
from layoutx.plan.run import run
from layoutx.spec.bound import Atom, BoundForm
from layoutx.verify.relate.numbers import Numbers, slot


def expectation(
    source: BoundForm,
    weights: Mapping[str, Array],
    target: BoundForm,
    numbers: Mapping[Atom, Numbers],
    known: Plan | None = None,
) -> dict[str, Array]:
    """Target tensor -> what the registry's plan makes of the source; without a plan, NaN where nothing is known."""
    try:
        return run(known or plan(source, target), weights).tensors
    except (LayoutxError, KeyError):
        return {tensor.name: _common(target, tensor.name, numbers) for tensor in target.tensors}


def _common(target: BoundForm, name: str, numbers: Mapping[Atom, Numbers]) -> Array:
    """A tensor with the atoms that both forms have."""
    tensor = target.tensor(name)
    own = [numbers[(b.role, b.labels)] for b in tensor.blocks if (b.role, b.labels) in numbers]
    floats = [n.array.dtype for n in own if n.array.dtype.kind not in "iub"]
    dtype: np.dtype[Any] = floats[0] if floats else np.dtype(np.float64)
    array = np.full(tensor.shape, np.nan, dtype)
    for block in tensor.blocks:
        found = numbers.get((block.role, block.labels))
        to = slot(block, array.reshape(-1), target.sizes)
        if found is None or set(found.axes) != set(block.strides):
            continue
        values = found.array.transpose([found.axes.index(axis) for axis in block.strides])
        if values.shape == to.shape:
            to[...] = np.negative(values) if block.negated else values
    settle(tensor, array)
    return array


def flat_of(target: BoundForm, name: str, array: Array) -> Array:
    """A stored array as the memory that places count."""
    return memory(target.tensor(name), array)
