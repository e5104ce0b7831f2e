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
    other = turned(couple) if runs.target is not None else None
    if other is None or fed_alike(couple, runs) is not False or not fed_alike(other, runs):
        return couple
    return other


def turned(couple: Couple) -> Couple | None:
    """The pair with all axes in canonical order, those of the target, else those of the source; None where both have
    that order already, or tensors that do not have it."""
    at = next((at for at in ("target", "source") if _other(getattr(couple, at), couple)), "")
    if not at:
        return None
    side = getattr(couple, at)
    try:
        bound = rebound(side, couple.last)
    except LayoutxError:
        return None
    side = replace(side, bound=bound, refine=dict(couple.last))
    return cast(Couple, replace(cast(Any, couple), **{at: side}))


def untold(couple: Couple) -> bool:
    """Whether one of the two has axes in an order that is its framework's habit alone."""
    return any(not side.told and _other(side, couple) for side in (couple.source, couple.target))


def _other(side: Half, couple: Couple) -> bool:
    return bool(side.refine) and dict(side.refine) != dict(couple.last)


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
