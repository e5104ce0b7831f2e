"""Values that a target has no place for: they may be left out only if they are what absence means."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from layoutx.errors import ConversionError, raise_all
from layoutx.plan.plan import Array, Plan
from layoutx.plan.steps import Guard
from layoutx.plan.views import view

SLAB = 1 << 20  # numbers compared at a time: what they make is a byte each


def guards_of(plan: Plan, flat: Mapping[str, Array]) -> list[str]:
    """A line for each guard that holds; compared in slabs, no more than SLAB numbers at a time.

    Raises:
        ConversionError: values that the target has no place for; all of them together.
    """
    held, problems = [], []
    for step in plan.steps:
        if not isinstance(step, Guard):
            continue
        values = view(flat[step.source], step.source_offset, [(x.size, x.source) for x in step.loops])
        wrong, at = _differing(values, np.asarray(step.value, values.dtype))
        names = ", ".join(step.atoms)
        if wrong:
            problems.append(
                ConversionError(
                    f"{plan.target.form.name} has no place for {names}",
                    where=f"{plan.source.form.name} {step.source}: {wrong} of {values.size} values are not "
                    f"{step.value:g}, the first at {at}: {values[at]}",
                    why=f"leaving {names} out would change what the layer computes",
                    do=_elsewhere(plan),
                )
            )
        elif values.size:
            held.append(f"{step.source}: {names} is {step.value:g} everywhere and is left out")
    raise_all(problems, "values that the target has no place for")
    return held


def _elsewhere(plan: Plan) -> str:
    from layoutx.plan.offer import module_for, offer

    found = None if plan.target.form.by_class else module_for(plan.source, plan.target.form.framework)
    return "use a target form or config that has it" if found is None else f"build the target with {offer(found)}"


def _differing(values: Array, value: Array) -> tuple[int, tuple[int, ...]]:
    """How many values are not `value`, and the index of the first of them."""
    if values.size <= SLAB or not values.ndim:
        wrong = values != value
        many = int(wrong.sum())
        return many, tuple(int(i[0]) for i in np.nonzero(wrong)) if many and wrong.ndim else ()
    rows = max(1, SLAB * len(values) // values.size)
    total = 0
    first: tuple[int, ...] = ()
    for begin in range(0, len(values), rows):
        slab = values[begin] if rows == 1 else values[begin : begin + rows]
        many, at = _differing(slab, value)
        if many and not total:
            first = (begin, *at) if rows == 1 else (begin + at[0], *at[1:])
        total += many
    return total, first
