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
    found: dict[str, tuple[str, str]] = {}
    problems: list[LayoutxError] = []
    for name, array in arrays.items():
        want = np.dtype(wanted[name])
        if array.dtype == want or np.can_cast(array.dtype, want, "safe"):
            continue
        found[name] = (str(array.dtype), str(want))
        with np.errstate(over="ignore"):
            lost = np.isfinite(array) & ~np.isfinite(array.astype(want))
        if lost.any():
            largest = f"largest value {np.nanmax(np.abs(array)):.3g}, as {array.dtype}"
            problems.append(ConversionError(f"{name} does not fit into {want}", where=largest))
    if found and "rounds" not in allow:
        consent = "allow it with --allow rounds (allow={'rounds'} in Python)"
        problems.append(
            ConsentError(
                f"the {what}'s dtype is narrower for {len(found)} tensors",
                where=[f"{name}: {a} to {b}" for name, (a, b) in list(found.items())[:6]],
                do=f"{consent}, or give a {what} of the source's dtype",
            )
        )
    raise_all(problems, f"the {what} does not take these weights")
    return found
