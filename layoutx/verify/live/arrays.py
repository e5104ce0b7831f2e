"""What the runners share: arrays cast for a framework, and the error of a layer that does not take its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from layoutx.errors import BindError, UsageError
from layoutx.move.cast import is_floating

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = Mapping[str, Array]


def cast(array: Array, dtype: str) -> Array:
    """A C-ordered copy that a framework may keep; floating arrays get the dtype, indices and counts keep theirs."""
    array = np.asarray(array)
    return np.array(array, dtype if is_floating(array.dtype) else array.dtype, order="C")


def cast_all(arrays: Arrays, dtype: str) -> dict[str, Array]:
    """`cast` of each."""
    return {name: cast(array, dtype) for name, array in arrays.items()}


def options(config: Mapping[str, Any], *drop: str) -> dict[str, Any]:
    """The config without `version` and what else the framework's constructor does not know."""
    return {key: value for key, value in config.items() if key not in ("version", *drop)}


def refused(form: str, tensors: Arrays, why: object) -> BindError:
    """The error where the real layer does not take the config or the tensors."""
    shapes = ", ".join(f"{name} {np.shape(array)}" for name, array in tensors.items())
    return BindError(f"the real {form} does not take this", where=f"given: {shapes or 'no tensors'}", why=str(why))


def inputs(form: str, x: Arrays, *names: str) -> list[Array]:
    """The named inputs. Raises UsageError naming those that are missing."""
    missing = [name for name in names if name not in x]
    if missing:
        raise UsageError(f"{form} needs the inputs {', '.join(names)}", where=f"given: {', '.join(x) or 'nothing'}")
    return [x[name] for name in names]
