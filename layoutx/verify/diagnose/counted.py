"""What no operation on all numbers alike makes: ids counted from elsewhere, steps that are set to zero (F37)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.diagnose.between import Found
from layoutx.verify.diagnose.ways import CLOSE

MOST = 0.5  # of the ids that have to be moved by one number, and the numbers that may be right beside zeros


def counted(found: Found) -> Found:
    """The same, explained where both models hand on whole numbers, or one of them zeros in some steps."""
    gap = found.gap
    if found.known or gap.expected.shape != gap.given.shape or not gap.expected.size:
        return found
    here, there = (np.asarray(array, np.float64) for array in (gap.expected, gap.given))
    if not (np.isfinite(here).all() and np.isfinite(there).all()):
        return found
    return _ids(found, here, there) or _zeros(found, here, there) or found


def exchanged(found: Found, inputs: Sequence[Array]) -> Found:
    """The same where the target reads another of the model's inputs there than the source does.

    Args:
        inputs: of the source, in its order.
    """
    gap = found.gap
    if found.known or gap.before or len(inputs) < 2:
        return found
    read = [next((i for i, one in enumerate(inputs) if _alike(one, array)), -1) for array in (gap.expected, gap.given)]
    if -1 in read or read[0] == read[1]:
        return found
    place = gap.places[-1] if gap.after else "its end"
    what = f"the target reads input {read[1]} at {place}, where the source reads input {read[0]}"
    code = "give the inputs in the source's order, or read them so in forward"
    return replace(found, what=what, mode="F38", code=code, after=0.0)


def _alike(one: Array, other: Array) -> bool:
    """Whether two arrays hold the same numbers in a row."""
    return one.size == other.size and np.array_equal(np.ravel(one), np.ravel(other))


def _ids(found: Found, here: Array, there: Array) -> Found | None:
    """Token and position ids: the table of one model has rows in front, for padding or special tokens."""
    if any((array % 1).any() or array.min() < 0 for array in (here, there)):
        return None
    by, many = Counter((there - here).ravel().tolist()).most_common(1)[0]
    if not by or many <= MOST * here.size:
        return None
    way = f"{abs(by):g} {'more' if by > 0 else 'less'}"
    where = "" if many == here.size else f" in {many} of {here.size} places, and others in the rest"
    what = f"{found.gap.place} the target counts otherwise: its ids are {way} than the source's{where}"
    code = f"ids = ids {'-' if by > 0 else '+'} {abs(by):g}   # or rows in front of the table: what the source has"
    return replace(found, what=what, mode="F37", code=code, after=0.0 if many == here.size else float("nan"))


def _zeros(found: Found, here: Array, there: Array) -> Found | None:
    """Steps that only one of them leaves at zero, all else being the same: a mask, padding_idx."""
    if here.ndim < 2:
        return None
    size = CLOSE * max(float(np.abs(here).max()), 1e-26)
    wrong: Array = np.max(np.abs(here - there), -1) > size
    zero: dict[str, Array] = {"source": np.abs(here).max(-1) == 0, "target": np.abs(there).max(-1) == 0}
    side = next((name for name, empty in zero.items() if wrong.any() and empty[wrong].all()), "")
    if not side or wrong.mean() > 1 - MOST * (1 - zero[side].mean()):
        return None
    other = "target" if side == "source" else "source"
    many = f"{int(wrong.sum())} of {wrong.size} places"
    what = f"{found.gap.place} the {side} sets {many} to zero (a mask, padding_idx), and the {other} does not"
    code = "x = x * mask[..., None]   # mask: False for the steps that are padding" if side == "source" else ""
    return replace(found, what=what, mode="F37", code=code or "leave out the mask", after=0.0)
