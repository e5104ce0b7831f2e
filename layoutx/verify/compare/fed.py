"""What two runs give one layer, and whether it is the same."""

from __future__ import annotations

from layoutx.errors import LayoutxError
from layoutx.verify.compare import flow
from layoutx.verify.compare.calls import call_of
from layoutx.verify.compare.limits import OK
from layoutx.verify.compare.links import Runs
from layoutx.verify.compare.named import Named, named
from layoutx.verify.compare.pairs import Couple


def first_calls(couple: Couple, runs: Runs) -> tuple[Named, Named] | None:
    """The first call of a pair in both runs; None where one did not call it, or with other axes."""
    assert runs.target is not None
    here, there = call_of(couple.source, runs.source, 0), call_of(couple.target, runs.target, 0)
    if here is None or there is None:
        return None
    try:
        left = named(couple.source.bound, here, couple.source.refine, couple.last)
        return left, named(couple.target.bound, there, couple.target.refine, couple.last)
    except LayoutxError:
        return None


def fed_alike(couple: Couple, runs: Runs) -> bool | None:
    """Whether both runs give the layer the same at its first call; None where that cannot be compared."""
    both = first_calls(couple, runs)
    side = flow.given(couple, *both, runs.dtypes, runs.flow) if both is not None else None
    return None if side is None else side.verdict == OK
