"""Two models joined layer by layer: who is whose counterpart, what both hold, and the plan between them, if any."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.model.in_parts import ONCE
from layoutx.model.record import MADE, UNTRAINED, LayerRecord, ModelRecord
from layoutx.plan.plan import Array, Plan
from layoutx.plan.steps import Exactness
from layoutx.spec.bound import BoundForm


@frozen
class Side:
    """One layer in one of the two models.

    Attributes:
        name: the layer's name (Keras, ONNX) or module path (torch, flax) in that model; "" is a torch model itself.
        bound: its form bound to its own shapes and config.
        tensors: form tensor name -> stored tensor; read when asked for.
        refine: axis -> its dims on this side, `{"input": "(c h w)"}`.
        parts: layers of that model that together are this one: a convolution and the batch norm after it.
        told: its model shows the order of its axes itself; where it does not, `refine` is its framework's habit.
        less: what it is given or gives ("x", "y") -> the numbers along its last axis that it is compared without.
    """

    name: str
    bound: BoundForm
    tensors: Mapping[str, Tensor]
    refine: Mapping[str, str] = NOTHING
    parts: tuple[str, ...] = ()
    less: Mapping[str, Array] = NOTHING
    told: bool = True


@frozen
class Joined:
    """One layer of the source with its counterpart in the target.

    Attributes:
        plan: from the source's form to the target's; None where the target cannot hold the source, for `problem`.
        reason: how the pairing came about ("same name", "the same numbers").
        confidence: from 0 to 1; below 1 where something else would have been possible.
        last: axis -> its dims in the order of the NumPy reference (channels last).
        record: the layer on the side that has a config.
        instance: which layer of a stacked module the target is: {"layer": 1}.
        alike: the first of the layers that it could be exchanged with, which habits alone tell apart; "" for none.
        cropped: a run showed that one of the two gives a larger map, which its model cuts to the other's size.
    """

    source: Side
    target: Side
    record: LayerRecord
    plan: Plan | None = None
    problem: LayoutxError | None = None
    reason: str = ""
    confidence: float = 1.0
    last: Mapping[str, str] = NOTHING
    instance: Mapping[str, Any] = NOTHING
    alike: str = ""
    cropped: bool = False

    @property
    def rounds(self) -> bool:
        """Whether the target holds sums of the source's numbers, rounded to less than float64, or one of the two holds
        parts of its weights, each of them rounded."""
        narrow = any(t.dtype.kind == "f" and t.dtype.itemsize < 8 for t in self.target.tensors.values())
        sums = self.plan is not None and self.plan.exactness is Exactness.ROUNDS
        parts = any(t.derived.endswith(ONCE) for side in (self.source, self.target) for t in side.tensors.values())
        return narrow and (sums or parts or bool(self.source.less))


@frozen
class Joint:
    """All layers of two models; every tensor of both is in one of these.

    Attributes:
        pairs: in the source's order; a target tensor is in one pair only.
        open: source layer -> the names of the target layers that it could be, the likeliest first; none is chosen.
        lost: source layer -> why it has no counterpart.
        unused: target tensor that no pair takes -> why.
        skipped: layer -> why the user left it out.
        leftover: source tensor of no layer -> what it is.
        spare: target tensor that no layer could be -> why: constants of an ONNX graph, what its weights are made of.
        folded: batch norm of one model -> the convolution before it, which has the norm folded in in the other model.
        other_eps: batch norm that was folded with another eps than its own -> both, in words.
        traded: batch norm -> the layer before it whose bias is in the norm's mean in the other model.
    """

    pairs: tuple[Joined, ...]
    open: Mapping[str, tuple[str, ...]] = NOTHING
    lost: Mapping[str, str] = NOTHING
    unused: Mapping[str, str] = NOTHING
    skipped: Mapping[str, str] = NOTHING
    leftover: Mapping[str, str] = NOTHING
    folded: Mapping[str, str] = NOTHING
    spare: Mapping[str, str] = NOTHING
    other_eps: Mapping[str, str] = NOTHING
    traded: Mapping[str, str] = NOTHING


def spare_of(target: ModelRecord) -> dict[str, str]:
    """What no layer could be, because nobody trained it; of an ONNX graph whole numbers, constants, and what its
    weights are made of."""
    if target.framework != "onnx":
        return {name: why for name, why in target.leftover.items() if why.endswith(UNTRAINED)}
    tensors = target.store.tensors

    def plain(name: str) -> bool:
        tensor = tensors.get(name)
        return tensor is not None and (
            tensor.dtype.kind in "iub" or not prod(tensor.shape) or np.ptp(tensor.read()) == 0
        )

    return {n: why for n, why in target.leftover.items() if why.endswith(MADE) or ("constant of" in why and plain(n))}
