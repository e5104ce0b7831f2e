"""A plan: source form, target form, the steps between them; callable on arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from layoutx.plan.fuse import fuse
from layoutx.plan.join import join
from layoutx.plan.prove import prove
from layoutx.plan.steps import Exactness, Step, exactness_of
from layoutx.spec.bound import BoundForm

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)  # no slots: its class is kept
class Plan:
    """The moves from one bound form to another.

    Calling it with source arrays gives the target arrays; `str()` says it in words, `code()` in NumPy.
    """

    source: BoundForm
    target: BoundForm
    steps: tuple[Step, ...]

    @cached_property
    def exactness(self) -> Exactness:
        """The class of the whole plan, before values are seen."""
        return exactness_of(self.steps)

    def exactness_of(self, tensor: str) -> Exactness:
        """The class of one target tensor."""
        return exactness_of(s for s in self.steps if getattr(s, "target", None) == tensor)

    def __call__(self, tensors: Mapping[str, Array], allow: Iterable[str] = ()) -> dict[str, Array]:
        """Move arrays: source tensor name -> array to target tensor name -> new array.

        Args:
            tensors: one array for each source tensor, of the planned shape; never modified.
            allow: "rounds", "conditional": what the caller consents to.

        Raises:
            BindError: arrays that are missing or of another shape.
            ConversionError: a guarded value that is not what absence means.
            ConsentError: a result that is not bit-reversible and was not allowed.
        """
        from layoutx.plan.run import consent, run

        result = run(self, tensors)
        consent(self, result, allow)
        return result.tensors

    def inverse(self) -> Plan:
        """The plan back. Composed with this one it is the identity wherever this one is `moves` or `fills`."""
        return plan(self.target, self.source)

    def code(self) -> str:
        """Runnable NumPy that does the same, reading and writing a dict of arrays by tensor name."""
        from layoutx.plan.code import code

        return code(self)

    def __str__(self) -> str:
        from layoutx.plan.words import words

        return words(self)


def plan(source: BoundForm, target: BoundForm) -> Plan:
    """Join, fuse and prove.

    Raises:
        ConversionError: the target cannot hold the source; every reason is shown.
    """
    steps = fuse(join(source, target))
    prove(steps, source, target)
    return Plan(source, target, steps)
