"""The pairs in the order of the source's calls, up to the first fault; what is given and gives the same is passed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layoutx.errors import LayoutxError
from layoutx.verify.compare import flow
from layoutx.verify.compare.calls import call_of, count, position
from layoutx.verify.compare.layers import Looked
from layoutx.verify.compare.limits import OK, coarsest, verdict
from layoutx.verify.compare.links import Runs, link_of, named_there
from layoutx.verify.compare.pairs import Couple
from layoutx.verify.compare.stacks import named_in, title


def up_to_first(
    couples: Sequence[Couple], runs: Runs, look: Callable[[Couple], list[Looked]]
) -> list[tuple[Couple, Looked]]:
    """What was found out about the pairs, the last of which is the first that differs, alone or by what it is given.

    Args:
        look: the whole look at one pair. Those that both runs give the same, and that give the same, are not run alone.
    """
    begun = {title(couple.source): position(couple.source, runs.source, 0) for couple in couples}
    last = len(runs.source.calls)
    order = sorted(couples, key=lambda couple: begun[title(couple.source)] % (last + 1))  # -1: not called, at the end
    found: list[tuple[Couple, Looked]] = []
    for number, couple in enumerate(order):
        found += [(couple, one) for one in passed(couple, runs) or look(couple)]
        until = begun[title(order[number + 1].source)] if number + 1 < len(order) else last
        if _differs(found, until if until >= 0 else last):
            break
    return found


def passed(couple: Couple, runs: Runs) -> list[Looked]:
    """Every call of a layer that is given the same and gives the same in both runs; [] where one is not, or may not be.

    The limit is that of a layer in its own right.
    """
    many = count(couple.source, runs.source)
    if runs.target is None or count(couple.target, runs.target) != many:
        return []
    found = []
    for number in range(many):
        link = _link(couple, runs, number)
        if link is None or not all(_same(side, runs) for side in (link.given, link.gave)):
            return []
        found.append(Looked((), link))
    return found


def _link(couple: Couple, runs: Runs, number: int) -> flow.Link | None:
    assert runs.target is not None
    call = call_of(couple.source, runs.source, number)
    try:
        here = named_in(couple.source, call, couple.last, runs.sources) if call is not None else None
    except LayoutxError:
        return None
    if here is None:
        return None
    there = named_there(couple, here, call_of(couple.target, runs.target, number), runs)
    return link_of(couple, runs, number, here, there)


def _same(side: flow.Side | None, runs: Runs) -> bool:
    if side is None:
        return False
    dtype = coarsest((side.expected, side.found), runs.dtypes)
    return verdict(side.apart, dtype, tolerance=runs.tolerance) == OK


def _differs(found: Sequence[tuple[Couple, Looked]], until: int) -> bool:
    """Whether a layer differs, or what one of the calls before `until` is given, all of whose givers are known now."""
    bad = {title(couple.source) for couple, one in found if any(not check.ok for check in one.checks)}
    if bad:
        return True
    links = sorted((x.link for _, x in found if x.link is not None and x.link.at < until), key=lambda link: link.at)
    wrong = any(link.given is not None and link.given.verdict != OK for link in links)
    return wrong and bool(flow.gaps(links, (), None))
