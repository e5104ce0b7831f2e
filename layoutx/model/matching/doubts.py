"""Where the order in which a model defines its layers tells nothing: it contradicts what else their names tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from layoutx.model.matching.habits import side_by_side
from layoutx.model.matching.sequence import forced
from layoutx.model.places import Candidate

if TYPE_CHECKING:
    from layoutx.model.matching.evidence import Clues

MISNAMED = 0.3  # by how much more alike the names of two pairs may be, were they exchanged, before order tells nothing


def kept(found: Clues, rest: Mapping[str, Sequence[int]], group: Sequence[str]) -> bool:
    """Whether the layers that are counted together with these can all have places in the order of definition."""
    if listed(found, rest, group):
        return False
    family = {found.said[name, 0].here.skeleton for name in group}
    names = [(found.said[layer.record.name, 0].here, layer.record.name) for layer in found.layers]
    counting = sorted((said.numbers, name) for said, name in names if said.skeleton in family)
    return forced([dict.fromkeys((c.at for c in found.options[name]), 1.0) for _, name in counting])[1]


def listed(found: Clues, rest: Mapping[str, Sequence[int]], group: Sequence[str]) -> bool:
    """Whether the places of a group are lists that a model may go through one after another, or side by side."""
    return side_by_side({found.said[name, at].there.text for name in group for at in rest[name]})


def beside(places: Iterable[Candidate]) -> bool:
    """Whether no place lies deeper in the module of another: a module may be defined before what it calls first."""
    homes = {f".{place.prefix}".rpartition(".")[0] + "." for place in places}
    return not any(a != b and b.startswith(a) for a in homes for b in homes)


def disordered(
    found: Clues, rest: Mapping[str, Sequence[int]], groups: Sequence[Sequence[str]], by_order: Mapping[str, int]
) -> set[str]:
    """Layers of which the order of definition tells nothing.

    Where the names of one group contradict it, it tells nothing of any: they speak first, and then what is known of
    the wiring. Two towers, of which the tables alone have names, were mixed with each other else.
    """
    if any(misnamed(found, rest, own, by_order) for own in groups):
        return {name for own in groups for name in own}
    return {name for own in groups if listed(found, rest, own) for name in own}


def misnamed(
    found: Clues, rest: Mapping[str, Sequence[int]], group: Sequence[str], by_order: Mapping[str, int]
) -> bool:
    """Whether two layers of a group would have places that are called much more like them, were these exchanged."""
    own = [(n, at) for n in group for at in rest[n] if found.options[n][at].at == by_order.get(n)]
    for i, (left, here) in enumerate(own):
        for right, there in own[:i]:
            pair = _like(found, left, right, there), _like(found, right, left, here)
            now = found.said[left, here].alike + found.said[right, there].alike
            if None not in pair and sum(worth or 0.0 for worth in pair) > now + MISNAMED:
                return True
    return False


def _like(found: Clues, name: str, other: str, at: int) -> float | None:
    """How much a layer is called like a place of another one; None where it does not fit there."""
    place = found.options[other][at]
    same = (n for n, one in enumerate(found.options[name]) if one is place or one.names == place.names)
    return next((found.said[name, n].alike for n in same), None)
