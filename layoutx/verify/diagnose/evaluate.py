"""What a suspect computes, and how far that is from what the source gave."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError
from layoutx.plan.plan import Array, Plan, plan
from layoutx.plan.run import run
from layoutx.spec.bound import BoundForm
from layoutx.verify.compare.limits import ROUNDED
from layoutx.verify.compare.pairs import rounded_constant
from layoutx.verify.diagnose.suspect import Suspect
from layoutx.verify.proof import LEAST, TOLERANCE
from layoutx.verify.reference import forward_roles
from layoutx.verify.roles import canonical

_PLANS: dict[int, tuple[BoundForm, Mapping[str, str], Plan]] = {}  # joining costs more than a small layer's forward run
KEPT = 32


def outputs(suspect: Suspect) -> dict[str, Array]:
    """What the target's layer computes by the NumPy reference in float64, in canonical order.

    Raises:
        LayoutxError: numbers, settings or data that the kind's function does not take.
    """
    bound = suspect.target
    values = _floats(run(_roles(bound, suspect.last), dict(suspect.stored)).tensors)
    settings, facts = {**bound.settings, **suspect.settings}, {**bound.facts, **suspect.facts}
    with np.errstate(all="ignore"):  # a wrong hypothesis may divide by zero
        found = forward_roles(bound, values, _floats(suspect.inputs), settings, facts)
        return dict(suspect.after(found)) if suspect.after is not None else found


def _floats(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Floating arrays in float64, without a copy where they are; integers as they are."""
    return {k: (a if a.dtype.kind in "iub" else a.astype(np.float64, copy=False)) for k, a in arrays.items()}


def _roles(bound: BoundForm, last: Mapping[str, str]) -> Plan:
    held = _PLANS.get(id(bound))
    if held is not None and held[0] is bound and held[1] == last:
        return held[2]
    made = plan(bound, canonical(bound, last))
    if len(_PLANS) >= KEPT:
        _PLANS.clear()
    _PLANS[id(bound)] = (bound, last, made)
    return made


def distance(expected: Mapping[str, Array], found: Mapping[str, Array]) -> float:
    """The largest absolute difference of outputs of the same name; infinite where shapes differ or a NaN is alone."""
    largest = -1.0
    for name, wanted in expected.items():
        given = found.get(name)
        if given is None:
            continue
        if given.shape != wanted.shape:
            return float("inf")
        with np.errstate(all="ignore"):
            apart = np.abs(np.asarray(wanted, np.float64) - given)
        apart = np.where((wanted == given) | (np.isnan(wanted) & np.isnan(given)), 0.0, apart)
        largest = max(largest, float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max(initial=0.0)))
    return largest if largest >= 0 else float("inf")


def matching(expected: Mapping[str, Array], found: Mapping[str, Array], limit: float) -> float:
    """The share of outputs that are right already: one half of a bidirectional layer, one channel, the first step."""
    right = many = 0
    for name in expected.keys() & found.keys():
        if expected[name].shape == found[name].shape:
            right += int(np.count_nonzero(np.abs(expected[name] - found[name]) <= limit))
            many += expected[name].size
    return right / max(many, 1)


def computed(suspect: Suspect) -> dict[str, Array]:
    """The outputs; {} where the layer does not compute."""
    try:
        return outputs(suspect)
    except (LayoutxError, ValueError, IndexError, KeyError, FloatingPointError):
        return {}


def tolerance(suspect: Suspect) -> float:
    """Up to which difference two outputs agree: by their precision and size."""
    floats = [a for a in (*suspect.expected.values(), *suspect.found.values()) if a.dtype.kind not in "iub"]
    dtype = "float64" if all(a.dtype.itemsize >= 8 for a in floats) else "float32"
    finite = [np.abs(a[np.isfinite(a)]).max(initial=0.0) for a in suspect.expected.values()]
    rounded = suspect.rounds or rounded_constant(suspect.source, suspect.target)
    limit = max(TOLERANCE[dtype], ROUNDED) if rounded else TOLERANCE[dtype]
    return limit * max(float(max(finite, default=1.0)), LEAST)


def wanted(suspect: Suspect, rounded: bool = True) -> Mapping[str, Array]:
    """What the target would hold, had the source's weights been moved; {} where these are unknown or do not fit.

    rounded: in the types that the target stores; else in the source's.
    """
    if not suspect.weights:
        return NOTHING
    with suppress(LayoutxError):
        found = run(plan(suspect.source, suspect.target), dict(suspect.weights)).tensors
        return {k: a.astype(suspect.stored[k].dtype) if rounded else a for k, a in found.items() if k in suspect.stored}
    return NOTHING


def near(now: Array, right: Array) -> bool:
    """Whether two arrays hold the same numbers up to the rounding of a product or a root."""
    room = 1e-6 * float(np.abs(right).max(initial=0.0))
    return now.shape == right.shape and bool(np.allclose(now, right, rtol=1e-6, atol=room, equal_nan=True))


def apart(suspect: Suspect, goal: Mapping[str, Array]) -> int:
    """How many stored numbers are not the source's; 0 where the source's are not known."""
    return sum(int(np.count_nonzero(suspect.stored[k] != a)) for k, a in goal.items() if a.dtype.kind not in "iub")
