"""Whether two runs give one layer the same inputs."""

from __future__ import annotations

from layoutx.errors import LayoutxError
from layoutx.verify.compare import flow
from layoutx.verify.compare.calls import call_of
from layoutx.verify.compare.limits import OK
from layoutx.verify.compare.links import Runs
from layoutx.verify.compare.named import named
from layoutx.verify.compare.pairs import Couple


def fed_alike(couple: Couple, runs: Runs) -> bool | None:
    """Whether both runs give the layer the same at its first call; None where that cannot be compared."""
    assert runs.target is not None
    here, there = call_of(couple.source, runs.source, 0), call_of(couple.target, runs.target, 0)
    if here is None or there is None:
        return None
    try:
        left = named(couple.source.bound, here, couple.source.refine, couple.last)
        right = named(couple.target.bound, there, couple.target.refine, couple.last)
        side = flow.given(couple, left, right, runs.dtypes, runs.flow)
    except LayoutxError:
        return None
    return None if side is None else side.verdict == OK
