"""Bare parameters, which no layer computes with: their numbers themselves, as far as they were moved."""

from __future__ import annotations

from layoutx.errors import LayoutxError
from layoutx.model.bare import NUMBERS, PATH
from layoutx.plan.run import run
from layoutx.verify.compare.apart import apart, worst
from layoutx.verify.compare.limits import OK, OPEN, coarsest, verdict
from layoutx.verify.compare.pairs import Check, Couple, Half
from layoutx.verify.compare.stacks import title

HOW = "the numbers themselves"
APART = "its numbers are not the source's; the model's own code uses them, so that only a run shows whether it matters"
SHOWN = 4  # numbers that are written out


def is_free(couple: Couple) -> bool:
    """Whether nobody but the model's own code says what a parameter is for."""
    return any(side.bound.form.name in NUMBERS.values() for side in (couple.source, couple.target))


def is_bare(couple: Couple) -> bool:
    """Whether one of two layers is a parameter that its module holds under its own name."""
    return any(PATH in side.tensors for side in (couple.source, couple.target)) or is_free(couple)


def held(couple: Couple, problem: str, tolerance: float) -> Check | None:
    """How far a parameter is from the source's, moved into the target's layout; None where that cannot be told.

    Other numbers are no fault by themselves: one model may keep a factor as its logarithm.
    """
    if couple.plan is None:
        return None
    try:
        moved = run(couple.plan, {name: tensor.read() for name, tensor in couple.source.tensors.items()}).tensors
        own = {name: couple.target.tensors[name].read() for name in moved}
    except (LayoutxError, KeyError):
        return None
    found = [apart(moved[name], own[name]) for name in moved]
    gap = found[worst(found)]
    said = verdict(gap, coarsest([*moved.values(), *own.values()]), tolerance=tolerance)
    note = "" if said == OK else "; ".join((APART, *_shown(couple)))
    told = OK if said == OK else OPEN
    names = title(couple.source), title(couple.target)
    return Check(*names, told, gap.largest, gap.relative, gap.scale, unlike=gap.unlike, how=HOW, note=note,
                 problem=problem)  # fmt: skip


def _shown(couple: Couple) -> list[str]:
    """The numbers of both, where they are few."""

    def numbers(side: Half) -> str:
        return ", ".join(f"{x:.6g}" for tensor in side.tensors.values() for x in tensor.read().ravel().astype("f8"))

    few = all(tensor.size <= SHOWN for side in (couple.source, couple.target) for tensor in side.tensors.values())
    return [f"{numbers(couple.source)} in the source, {numbers(couple.target)} in the target"] if few else []
