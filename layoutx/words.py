"""Names in a text: a list that is cut short, and what a name that nothing has may have meant."""

from __future__ import annotations

from collections.abc import Collection, Sequence

MOST = 3


def listed(names: Sequence[str], most: int = MOST) -> str:
    """`a, b, c and 4 more`: the first `most` names and how many are left; one that is left is named too."""
    left = len(names) - most
    return f"{', '.join(names[:most])} and {left:,} more" if left > 1 else ", ".join(names)


def near(name: str, known: Collection[str], what: str = "") -> str:
    """`near it are conv1, conv2`; where nothing is alike, and `what` says of what these are the names, some of all.

    Args:
        what: "the layers are", or "" where a list would not help.
    """
    from difflib import get_close_matches

    small = {one.lower(): one for one in known}
    alike = [small[one] for one in get_close_matches(name.lower(), small, 3)]
    if alike:
        return f"near it {'are' if len(alike) > 1 else 'is'} {', '.join(alike)}"
    return f"{what} {listed(list(known), 20)}" if what and known else ""
