"""The arrays that a plan is given: numbers of the planned shapes, and of dtypes that go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.errors import BindError, ConversionError, LayoutxError, UsageError, raise_all
from layoutx.plan.plan import Array, Plan
from layoutx.plan.steps import Add, Copy, Step
from layoutx.spec.bound import BoundForm
from layoutx.spec.dtypes import is_numeric, named


def check_named(tensors: Any) -> None:
    """Refuse arrays without their names, as `get_weights()` gives them.

    Raises:
        UsageError: with what gives them names.
    """
    if not isinstance(tensors, Mapping):
        raise UsageError(
            f"the tensors are a {type(tensors).__name__}, not a mapping of names to arrays",
            why="by its name it is known what an array is",
            do="lx.inspect(model)[layer].arrays() gives those of a layer",
        )


def checked(plan: Plan, tensors: Mapping[str, Any], out: Mapping[str, Any] | None) -> dict[str, Array]:
    """The source arrays of a plan; array-likes of numbers (lists of floats, CPU tensors) become arrays.

    Raises:
        UsageError: no mapping.
        BindError: what is missing, unknown, of another shape, or no numbers; all of it together.
    """
    check_named(tensors)
    problems: list[LayoutxError] = []
    found = _side(plan.source, tensors, problems)
    if out is not None:
        for name, array in out.items():
            if not isinstance(array, np.ndarray):  # a copy of it would be filled, and lost
                problems.append(BindError(f"{name} is a {type(array).__name__}: arrays are needed to write into"))
        _side(plan.target, out, problems)
    raise_all(problems, "the arrays do not fit the plan")
    return found


def _side(bound: BoundForm, given: Mapping[str, Any], problems: list[LayoutxError]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for tensor in bound.tensors:
        if tensor.name not in given:
            problems.append(BindError(f"{bound.form.name} needs the tensor {tensor.name} {tensor.shape}"))
            continue
        array = _array(tensor.name, given[tensor.name], bound.form.name)
        if isinstance(array, LayoutxError):
            problems.append(array)
        elif array.shape != tensor.shape:
            what = f"{tensor.name} has shape {array.shape}, the plan is for {tensor.shape}"
            problems.append(BindError(what, where=bound.form.name))
        else:
            found[tensor.name] = array
    known = {t.name for t in bound.tensors}
    extra = [name for name in given if name not in known]
    if extra:
        problems.append(BindError(f"{bound.form.name} has no tensor {', '.join(extra)}"))
    return found


def _array(name: str, value: Any, form: str) -> Array | BindError:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # a ragged list, a tensor on a device
        return BindError(f"{name} is a {type(value).__name__} that is no array: {error}", where=form)
    if is_numeric(array.dtype):
        return array
    return BindError(f"{name} has dtype {array.dtype}: numbers are needed", where=form)


def dtype_of(steps: Sequence[Step], flat: Mapping[str, Array], declared: str) -> np.dtype[Any]:
    """The dtype of the target tensor that steps write: the declared one, else the widest of its sources.

    Raises:
        ConversionError: sources whose dtypes have none in common (bfloat16 and float16).
    """
    if declared:
        return named(declared) or np.dtype(declared)
    names = [s.source for s in steps if isinstance(s, Copy)]
    names += [term.source for s in steps if isinstance(s, Add) for term in s.terms]
    found = {name: flat[name].dtype.newbyteorder("=") for name in names}
    if not found:  # only fills: the layer's own floating type
        own = {name: a.dtype.newbyteorder("=") for name, a in flat.items() if a.dtype.kind not in "iub"}
        found = dict(list(own.items()) or [("", np.dtype(np.float32))])
    widest: np.dtype[Any] = next(iter(found.values()))
    try:
        for other in found.values():
            widest = np.promote_types(widest, other)
    except TypeError as error:  # DTypePromotionError
        raise ConversionError(
            f"{' and '.join(dict.fromkeys(map(str, found.values())))} go into one tensor and have no dtype in common",
            where=[f"{name or 'the layer'}: {dtype}" for name, dtype in found.items()],
            do="store both in one dtype first, as float32",
        ) from error
    return widest
