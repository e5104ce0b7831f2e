"""Whether the numbers in names can be trusted: they count as both models define their layers, or contradict that."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence

from layoutx.model.matching.names import Name

Counted = tuple[Name, int]  # a name and its place in the order of definition
MOST = 0.25  # of the pairs of a series: ResNet's shortcut, called 0, stands behind its block's 1 and 2


def unruly(series: Iterable[Counted]) -> set[str]:
    """Skeletons of names whose numbers do not follow the order in which their model defines them."""
    found: dict[str, list[Counted]] = {}
    for name, at in series:
        found.setdefault(name.skeleton, []).append((name, at))
    return {skeleton for skeleton, own in found.items() if _inverted(own) > MOST}


def _inverted(own: Sequence[Counted]) -> float:
    """The share of pairs of which the one with the larger number comes first."""
    seen: list[tuple[int, ...]] = []
    wrong = 0
    for name, _ in sorted(own, key=lambda one: one[1]):
        wrong += len(seen) - bisect_right(seen, name.numbers)
        insort(seen, name.numbers)
    return 2 * wrong / (len(own) * (len(own) - 1)) if len(own) > 1 else 0.0


def contradicted(pairs: Sequence[tuple[Counted, Counted]], here: set[str], there: set[str]) -> bool:
    """Whether pairs of two families, found by their numbers, run against the order of definition.

    Args:
        here, there: the unruly families of each side. Where both are, a decoder's `up4` to `up1` say, the pairs decide.
    """
    left, right = pairs[0]
    places = [place for _, place in sorted((a[1], b[1]) for a, b in pairs)]
    return places != sorted(places) or (left[0].skeleton in here) != (right[0].skeleton in there)


def side_by_side(places: Iterable[str]) -> bool:
    """Whether places are items of several lists of one module: `filters.0`, `filters.1`, `gates.0`, `gates.1`.

    WaveNet calls them item by item, and defines them list by list: then the order of definition tells nothing. Numbers
    that leave some out (0, 2, 4) are those of a Sequential, which runs as a whole.
    """
    lists: dict[tuple[str, str], set[int]] = {}  # (module, list) -> its items
    for place in places:
        path, _, item = place.rpartition(".")
        if item.isdigit() and path:
            module, _, name = path.rpartition(".")
            lists.setdefault((module, name), set()).add(int(item))
    found: dict[str, list[set[int]]] = {}
    for (module, name), items in lists.items():
        if not name.isdigit() and len(items) > 1 and max(items) - min(items) < len(items):
            found.setdefault(module, []).append(items)
    return any(a & b for many in found.values() for i, a in enumerate(many) for b in many[:i])
