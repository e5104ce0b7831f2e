"""Dtypes that hold numbers, by name: NumPy's own and those of `ml_dtypes`."""

from __future__ import annotations

from typing import Any

import numpy as np


def named(name: str) -> np.dtype[Any] | None:
    """The dtype of a name such as `int64` or `bfloat16`; None where no numeric dtype has it."""
    found = _known(name)
    if found is None:
        import ml_dtypes

        found = _known(getattr(ml_dtypes, name, None))
    return found if found is not None and is_numeric(found) else None


def is_numeric(dtype: np.dtype[Any]) -> bool:
    """Whether one element is one number: no text, object, date, bare bytes or record."""
    return dtype.isbuiltin == 2 or dtype.kind in "biufc"  # 2: defined outside NumPy, by ml_dtypes


def _known(name: Any) -> np.dtype[Any] | None:
    try:
        return None if name is None else np.dtype(name)
    except (TypeError, ValueError, SyntaxError):
        return None
