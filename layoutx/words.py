"""Names in a text: a list that is cut short, and what a name that nothing has may have meant."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import islice

MOST = 6
MANY = 1000  # names that are looked through: of more it would take seconds


def first(lines: Sequence[str], most: int = MOST) -> list[str]:
    """The first `most` lines, and one that says how many are left: `and 4 more`; a single one that is left stands."""
    left = len(lines) - most
    return [*lines[:most], f"and {left:,} more"] if left > 1 else list(lines)


def listed(names: Sequence[str], most: int = MOST) -> str:
    """The same in a sentence: `a, b, c and 4 more`."""
    shown = first(names, most)
    return ", ".join(names) if len(shown) == len(names) else f"{', '.join(shown[:-1])} {shown[-1]}"


def natural(name: str) -> list[tuple[int, str]]:
    """To sort by: `dense_2` before `dense_10`, since the numbers count."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def near(name: str, known: Collection[str], what: str = "") -> str:
    """`near it are conv1, conv2`; where nothing is alike, and `what` says of what these are the names, some of all.

    Args:
        what: "the layers are", or "" where a list would not help.
    """
    from difflib import get_close_matches

    small = {one.lower(): one for one in islice(known, MANY)}
    alike = [small[one] for one in get_close_matches(name.lower(), small, 3)]
    if alike:
        return f"near it {'are' if len(alike) > 1 else 'is'} {', '.join(alike)}"
    return f"{what} {listed(list(known), 20)}" if what and known else ""
