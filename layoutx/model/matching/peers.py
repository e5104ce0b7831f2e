"""What stands beside a layer: a parameter that nothing feeds is placed where the layers around it have their places."""

from __future__ import annotations

import re
from collections.abc import Mapping

Path = tuple[str, ...]


def among_peers(places: Mapping[tuple[str, int], str], known: Mapping[str, str]) -> dict[tuple[str, int], float]:
    """The share of the layers in one module with a layer whose places lie in one module with a candidate of it.

    Args:
        places: layers, each with the number of one of its candidates -> what that is called.
        known: layers that have their place -> what it is called.

    Returns:
        Nothing for layers that no other is beside, and for candidates without any of these places beside them.
    """
    beside: dict[Path, list[Path]] = {}
    for name, place in known.items():
        beside.setdefault(_holder(name), []).append(_holder(place))
    found = {}
    for key, name in places.items():
        here, there = beside.get(_holder(key[0]), []), _holder(name)
        near = sum(place == there for place in here)
        if near and there:
            found[key] = near / len(here)
    return found


def _holder(path: str) -> Path:
    """The module that holds a layer: its path without the last part."""
    return tuple(re.split(r"[./]", path)[:-1])
