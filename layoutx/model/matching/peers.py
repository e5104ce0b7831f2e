"""What stands beside a layer: a parameter that nothing feeds is placed where the layers around it have their places."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

Path = tuple[str, ...]


def among_peers(places: Mapping[tuple[str, int], str], known: Mapping[str, str]) -> dict[tuple[str, int], float]:
    """The share of the layers in one module with a layer whose places lie in one module with a candidate of it.

    Args:
        places: layers, each with the number of one of its candidates -> what that is called.
        known: layers that have their place -> what it is called.

    Returns:
        Nothing for layers that no other is beside, and for candidates without any of these places beside them.
    """
    beside: dict[Path, Counter[Path]] = {}
    for name, place in known.items():
        beside.setdefault(_holder(name), Counter())[_holder(place)] += 1
    found = {}
    for key, name in places.items():
        here, there = beside.get(_holder(key[0])), _holder(name)
        if here and there and here[there]:
            found[key] = here[there] / here.total()
    return found


@lru_cache(65536)  # each name is asked for with each of its candidates
def _holder(path: str) -> Path:
    """The module that holds a layer: its path without the last part."""
    return tuple(re.split(r"[./]", path)[:-1])
