"""Residual connections, x + f(x): forgotten, or taken from another place than in the source."""

from __future__ import annotations

from layoutx.verify.diagnose.ways import ONLY, PLUS, Way


def residual(right: Way, wrong: Way | None) -> tuple[str, str] | None:
    """(what is wrong, the line of code) where the two ways differ in what is added; None where they do not.

    Args:
        right, wrong: what the source and the target do; None where nobody knows what the target does.
    """
    there = (wrong.join, wrong.skip) if wrong is not None else ("", "")
    if (right.join, right.skip) == there or not _adds(right):
        return None
    if wrong is not None and _adds(wrong):
        said = "the residual connection is taken from the wrong place"
    elif wrong is not None and not wrong.skip and (right.skip or wrong.join.startswith(ONLY)):
        said = "the residual connection, x + f(x), is missing in the target"
    else:
        return None
    other = right.skip.removeprefix(PLUS) or "all that is added in the source"
    return said, f"x = f(x) + y   # y: {other}"


def _adds(way: Way) -> bool:
    return way.join == "added" or way.skip.startswith(PLUS)
