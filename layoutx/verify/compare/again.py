"""A layer that is called several times: which call of the target is which of the source, told by their data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from layoutx.errors import LayoutxError
from layoutx.verify.compare import flow
from layoutx.verify.compare.alone import modules_of
from layoutx.verify.compare.calls import call_of, count
from layoutx.verify.compare.limits import OK
from layoutx.verify.compare.named import Named, named
from layoutx.verify.compare.pairs import Couple, Half
from layoutx.verify.recording import Recording


def renumbered(couples: Sequence[Couple], source: Recording, target: Recording) -> Recording:
    """The target's recording with the calls of shared layers in the source's numbers.

    One model may call a shared layer on its second input first. Calls that are given the same are the same; those
    that have no counterpart so keep their order.
    """
    numbers: dict[tuple[str, int], int] = {}
    for couple in couples:
        many = count(couple.source, source)
        if many < 2 or count(couple.target, target) != many:
            continue
        order = _order(couple, source, target, many)
        numbers.update({(name, there): here for name in modules_of(couple.target) for here, there in enumerate(order)})
    if all(here == there for (_, there), here in numbers.items()):
        return target
    calls = (replace(call, number=numbers.get((call.layer, call.number), call.number)) for call in target.calls)
    return replace(target, calls=tuple(calls))


def _order(couple: Couple, source: Recording, target: Recording, many: int) -> list[int]:
    """For each call of the source the target's, by its number."""
    here = [_named(couple, couple.source, source, number) for number in range(many)]
    there = [_named(couple, couple.target, target, number) for number in range(many)]
    found: dict[int, int] = {}
    for number, own in enumerate(here):
        free = [k for k in (number, *range(many)) if k not in found.values()]
        same = (k for k in free if _same(couple, own, there[k], (source.dtype, target.dtype)))
        if (first := next(same, None)) is not None:
            found[number] = first
    rest = (k for k in range(many) if k not in found.values())
    return [found[number] if number in found else next(rest) for number in range(many)]


def _named(couple: Couple, side: Half, recording: Recording, number: int) -> Named | None:
    call = call_of(side, recording, number)
    try:
        return named(side.bound, call, side.refine, couple.last) if call is not None else None
    except LayoutxError:
        return None


def _same(couple: Couple, here: Named | None, there: Named | None, dtypes: Sequence[str]) -> bool:
    if here is None or there is None:
        return False
    side = flow.given(couple, here, there, dtypes)
    return side is not None and side.verdict == OK
