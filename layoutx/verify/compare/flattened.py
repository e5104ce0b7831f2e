"""In which order the target really flattens a map: seen in its own run, where its framework's habit does not tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from layoutx.errors import LayoutxError
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.verify.compare.fed import fed_alike
from layoutx.verify.compare.links import Runs
from layoutx.verify.compare.pairs import Couple, Half


def seen(couple: Couple, runs: Runs) -> Couple:
    """The pair with the target's axes in the order in which its own run shows them.

    A torch module may permute its map before it flattens it, and an ONNX graph may keep channels last: then what its
    layer is given agrees with the source in the other order, number by number.
    """
    if not couple.target.refine or dict(couple.target.refine) == dict(couple.last) or runs.target is None:
        return couple
    other = turned(couple)
    if other is None or fed_alike(couple, runs) is not False or not fed_alike(other, runs):
        return couple
    return other


def turned(couple: Couple) -> Couple | None:
    """The pair with the target's axes in canonical order; None where its tensors do not have that order."""
    target = couple.target
    try:
        bound = rebound(target, couple.last)
    except LayoutxError:
        return None
    side = replace(cast(Any, target), bound=bound, refine=dict(couple.last))
    return cast(Couple, replace(cast(Any, couple), target=side))


def rebound(side: Half, refine: Any) -> BoundForm:
    """A layer's form bound once more, its axes made of other dims."""
    bound = side.bound
    shapes = {tensor.name: tensor.shape for tensor in bound.tensors}
    number = _instance(bound)
    return bind(
        bound.kind, bound.form, bound.config, shapes=shapes, sizes=bound.sizes, refine=dict(refine), instance=number
    )


def _instance(bound: BoundForm) -> dict[str, int]:
    from layoutx.verify.compare.states import stack_place

    return {bound.form.each: stack_place(bound)[0]} if bound.form.each else {}
