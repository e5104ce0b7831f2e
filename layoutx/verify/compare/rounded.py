"""Layers whose weights were rounded below float32 on one side: whether that alone is what differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from layoutx.verify.compare.alone import Trial, with_weights
from layoutx.verify.compare.apart import apart
from layoutx.verify.compare.flow import Side
from layoutx.verify.compare.limits import FAIL, OK, UNIT, WRONG, coarsest, verdict
from layoutx.verify.compare.pairs import Couple
from layoutx.verify.compare.weights import narrow_in, narrowed, unrounded


def computed_in(couple: Couple) -> tuple[str, ...]:
    """float32, for a layer that a norm was folded into: its weights were computed in that, or kept in less."""
    both = (couple.source, couple.target)
    if not any(side.parts for side in both):
        return ()
    wide = all(tensor.dtype.name == "float64" for side in both for tensor in side.tensors.values())
    return () if wide else ("float32",)


def rounding(couple: Couple, own: Trial) -> str:
    """The dtype below float32 whose rounding of the weights is all that differs; "" where something else does too.

    Shown by running the target's layer with the source's weights: it then gives what the source gave.
    """
    dtype, _ = narrowed(couple)
    weights = unrounded(couple, dtype) if dtype else None
    if weights is None:
        return ""
    try:
        found = with_weights(couple, own.raw)(weights, own.inputs)
    except Exception:  # frameworks raise what they like
        return ""
    sides = [(own.expected[name], found[name]) for name in own.expected if name in found]
    wide = coarsest([array for pair in sides for array in pair], computed_in(couple))
    return dtype if sides and all(verdict(apart(*pair), wide, rounded=True) == OK for pair in sides) else ""


def softened(sides: Sequence[Side], couples: Sequence[Couple]) -> tuple[Side, ...]:
    """The models' outputs, of which a difference within the precision of the weights is no failure."""
    narrow = max((narrowed(couple)[0] for couple in couples), key=lambda name: UNIT.get(name, 0.0), default="")
    limit = WRONG.get(narrow, 0.0)
    return tuple(
        replace(side, verdict="INACCURATE")
        if side.verdict == FAIL and not side.apart.odd and not side.apart.unlike and side.apart.relative <= limit
        else side
        for side in sides
    )


def precision_note(couples: Sequence[Couple]) -> str:
    """What to expect where one model's weights are below float32; "" where none are."""
    told = [narrowed(couple) for couple in couples]
    several = sorted({one for one in told if one[0]})
    found = []
    for dtype, whose in several:
        many = told.count((dtype, whose))
        layers = f"{many} of {len(couples)} layers" if many < len(couples) else "all layers"
        found.append(
            f"the {whose}'s weights are {dtype} ({layers}), which rounds each by up to {UNIT[dtype]:.1g} of itself: "
            f"a layer's output then differs by about as much, relative to its largest value"
        )
    both = {narrow_in(side) for couple in couples for side in (couple.source, couple.target)} - {""}
    return "; ".join(found) if both else ""
