"""Faults behind the first one on a path, and what skips a layer: all that was handed on before a place."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from layoutx.verify.compare import flow
from layoutx.verify.compare.limits import OK
from layoutx.verify.compare.pairs import Gap, Handed
from layoutx.verify.recording import Call, Recording

MOST = 24  # arrays that were handed on before a place, the latest first
INPUTS = "the inputs"


def behind(
    links: Sequence[flow.Link], outputs: Sequence[flow.Side], finals: Collection[str] | None, told: Sequence[Gap]
) -> list[Gap]:
    """Places where what is handed on differs, and where something wrong came in before.

    Whether they are faults of their own shows in what each model makes there of its own numbers.

    Args:
        links, outputs, finals: as for `flow.gaps`; told: the gaps that it found.
    """
    known = {(gap.after, gap.call) for gap in told}
    found = []
    for position, link in enumerate(links):
        before = flow.feeding(link, links[:position])
        if link.given is not None and link.given.verdict != OK and before and (link.layer, link.call) not in known:
            found.append(flow.gap_at(before, link, link.given))
    wrong = [side for side in outputs if side.verdict != OK]
    tail = [link for link in links if finals is None or link.layer in finals] or list(links)
    if wrong and tail and ("", 0) not in known:
        found.append(flow.gap_at(tail[-1:], None, wrong[0]))
    return found


def handed(gap: Gap, links: Sequence[flow.Link]) -> tuple[Handed, ...]:
    """All that layers before a gap were given and gave in both runs, the latest first: a connection may skip layers."""
    at = next((i for i, x in enumerate(links) if x.layer == gap.after and x.call == gap.call), len(links))
    found: list[Handed] = []
    for number, link in reversed(list(enumerate(links[:at]))):
        first = link.before == () or not number
        for side, words in (
            (link.gave, f"what {link.layer} gives"),
            (link.given, INPUTS if first else f"what {link.layer} is given"),
        ):
            if side is not None and words not in {one.words for one in found}:
                found.append(Handed(words, side.expected, side.found))
    return tuple(found[:MOST])


def called(
    start: Sequence[flow.Link], after: flow.Link | None, source: Recording, target: Recording
) -> tuple[tuple[Call, ...], tuple[Call, ...]]:
    """All calls from the layers before a place up to the layer behind it, in both runs; None: up to the outputs."""
    here = slice(max(0, min((x.at for x in start), default=0)), after.at if after is not None else None)
    there = slice(max(0, min((x.there for x in start), default=0)), after.there if after is not None else None)
    return tuple(source.calls[here]), tuple(target.calls[there])
