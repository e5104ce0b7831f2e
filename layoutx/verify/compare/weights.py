"""The weights of two layers side by side: how far they are apart, and whether one side's are the other's rounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.plan.plan import Array
from layoutx.plan.run import run
from layoutx.spec.bound import Atom
from layoutx.verify.compare.limits import UNIT
from layoutx.verify.compare.pairs import Couple, Half
from layoutx.verify.relate.numbers import Numbers


def aligned(here: Mapping[Atom, Numbers], there: Mapping[Atom, Numbers]) -> Iterator[tuple[Array, Array]]:
    """Atoms of two layers with their axes in one order, in float64; one that a layer lacks is zero."""
    for atom in {**here, **there}:
        left, right = here.get(atom), there.get(atom)
        if left is None or right is None:
            own = left or right
            assert own is not None
            array = own.array.astype(np.float64)
            yield (array, np.zeros_like(array)) if right is None else (np.zeros_like(array), array)
        elif set(left.axes) == set(right.axes):
            turned = right.array.transpose([right.axes.index(axis) for axis in left.axes])
            if turned.shape == left.array.shape:
                yield left.array.astype(np.float64), turned.astype(np.float64)


def narrow_in(side: Half) -> str:
    """The coarsest dtype below float32 that a layer's weights are kept in; "" for none."""
    names = {tensor.dtype.name for tensor in side.tensors.values()}
    return max((name for name in names if name in UNIT), key=lambda name: UNIT[name], default="")


def narrowed(couple: Couple) -> tuple[str, str]:
    """The dtype below float32 that one side alone keeps its weights in, and which; ("", "") where both are alike."""
    here, there = narrow_in(couple.source), narrow_in(couple.target)
    if here == there:
        return "", ""
    return (there, "target") if UNIT.get(there, 0.0) > UNIT.get(here, 0.0) else (here, "source")


def unrounded(couple: Couple, dtype: str) -> dict[str, Array] | None:
    """The source's weights as the target's tensors; None unless the two differ by a rounding to `dtype` alone."""
    if couple.plan is None:
        return None
    try:
        moved = run(couple.plan, {name: tensor.read() for name, tensor in couple.source.tensors.items()}).tensors
    except LayoutxError:
        return None
    room = 2 * UNIT[dtype]  # rounded twice, where a norm was folded in first
    for name, tensor in couple.target.tensors.items():
        if name in moved and tensor.dtype.name != "int64":
            left, right = moved[name].astype(np.float64), tensor.read().astype(np.float64)
            least = 2.0**-24 if dtype == "float16" else 0.0  # float16 has no smaller numbers
            if left.shape != right.shape or not (np.abs(left - right) <= room * np.abs(left) + least).all():
                return None
    return dict(moved)
