"""Which weights a program of jax scans over, layer by layer: a loop that is given weights and no data at each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layoutx.model.jax_program import Traced

INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")  # the body of a function that is called in place
KEEPING = frozenset(["convert_element_type", "copy", "copy_p", "sharding_constraint", "optimization_barrier", "name"])
Held = tuple[str, tuple[int, ...]] | None  # a weight, and which of its axes each dimension is
Found = dict[str, set[tuple[int, int, int]]]
DATA: Held = ("", ())


def scanned_over(traced: Traced) -> dict[str, tuple[int, int, int]]:
    """Name of a weight -> the axis that a loop runs over, its size, and the loop's number; none that several run over.

    A loop over time is given data at each step, and what it is given beside it may be a table of positions.
    """
    jaxpr, weights = traced.jaxpr.jaxpr, traced.weights
    found: Found = {}
    held: list[Held] = []
    for variable, name in zip(jaxpr.invars, weights, strict=False):
        held.append((name, tuple(range(len(variable.aval.shape)))) if name else None)
    _body(jaxpr, [*held, *[DATA] * (len(jaxpr.invars) - len(held))], found)
    return {name: next(iter(ways)) for name, ways in found.items() if len(ways) == 1}


def _body(jaxpr: Any, given: Sequence[Held], found: Found) -> list[Held]:
    """What the outputs of a body hold, for what it is given."""
    held: dict[Any, Held] = dict(zip(jaxpr.invars, given, strict=False))

    def of(variable: Any) -> Held:
        return None if hasattr(variable, "val") else held.get(variable)

    for eqn in jaxpr.eqns:
        name, own = eqn.primitive.name, [of(v) for v in eqn.invars]
        inner = next((eqn.params[key] for key in INNER if key in eqn.params), None)
        made: list[Held] = [DATA if DATA in own else None] * len(eqn.outvars)
        if name == "scan":
            at = eqn.params["num_consts"] + eqn.params["num_carry"]
            if DATA not in own[at:]:
                loop = len({way for ways in found.values() for way in ways})
                for one in (one for one in own[at:] if one is not None and one[1]):
                    found.setdefault(one[0], set()).add((one[1][0], eqn.params["length"], loop))
            _body(eqn.params["jaxpr"].jaxpr, [*own[:at], *[DATA if one == DATA else None for one in own[at:]]], found)
        elif inner is not None and name not in ("while", "cond"):
            made = _body(getattr(inner, "jaxpr", inner), own, found)
        elif name == "transpose" and own[0] not in (None, DATA):
            made = [(own[0][0], tuple(own[0][1][i] for i in eqn.params["permutation"]))]
        elif name in KEEPING and own:
            made = [own[0]]
        held.update(zip(eqn.outvars, made, strict=False))
    return [of(v) for v in jaxpr.outvars]
