"""Arrays for what keeps narrower numbers: only with consent, and never a finite number as infinity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from layoutx.errors import ConsentError, ConversionError, LayoutxError, raise_all
from layoutx.plan.plan import Array


def narrowed(
    arrays: Mapping[str, Array], wanted: Mapping[str, Any], allow: frozenset[str], what: str
) -> dict[str, tuple[str, str]]:
    """Name -> (dtype, narrower dtype) of the arrays that lose digits.

    Args:
        wanted: name -> the dtype in which it is kept.
        what: what keeps it, for errors: "target", "template".

    Raises:
        LayoutxError: narrower dtypes without consent, values that are too large for them; all together.
    """
    seen = Narrowing()
    for name, array in arrays.items():
        seen.look(name, array, wanted[name])
    return seen.settled(allow, what)


class Narrowing:
    """What becomes narrower, array by array, none of which is kept."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[str, str]] = {}
        self.problems: list[LayoutxError] = []

    def look(self, name: str, array: Array, wanted: Any) -> None:
        """Note whether an array loses digits, or numbers, in a dtype."""
        want = np.dtype(wanted)
        if array.dtype == want or np.can_cast(array.dtype, want, "safe"):
            return
        self.found[name] = (str(array.dtype), str(want))
        with np.errstate(over="ignore"):
            lost = np.isfinite(array) & ~np.isfinite(array.astype(want))
        if lost.any():
            largest = f"largest value {np.nanmax(np.abs(array)):.3g}, as {array.dtype}"
            self.problems.append(ConversionError(f"{name} does not fit into {want}", where=largest))

    def settled(self, allow: frozenset[str], what: str) -> dict[str, tuple[str, str]]:
        """Name -> (dtype, narrower dtype), where that was allowed and loses no number.

        Raises:
            LayoutxError: as `narrowed`.
        """
        problems = list(self.problems)
        if self.found and "rounds" not in allow:
            problems.append(no_consent(self.found, what))
        raise_all(problems, f"the {what} does not take these weights")
        return self.found


def no_consent(found: Mapping[str, tuple[str, str]], what: str) -> ConsentError:
    """The complaint about dtypes that became narrower, which nobody allowed."""
    return ConsentError(
        f"the {what}'s dtype is narrower for {len(found)} tensors",
        where=[f"{name}: {a} to {b}" for name, (a, b) in list(found.items())[:6]],
        do=f"allow it with --allow rounds (allow={{'rounds'}} in Python), or give a {what} of the source's dtype",
    )
