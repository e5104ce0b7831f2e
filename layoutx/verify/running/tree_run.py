"""Live models of jax, mlx and paddle: each run as its framework does, calls seen by module path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.recording import Recording
from layoutx.verify.running.events import Event, calls_of, seen_form
from layoutx.verify.running.given import Inputs, listed, no_layer, resolved, widest, widest_layer
from layoutx.verify.running.tree_families import Family, family_of
from layoutx.verify.running.untouched import same_random


@dataclass
class TreeRunner:
    """Runs a copy of the model, or the model itself where its framework has no float64 (mlx), its modes put back."""

    model: Any
    events: list[Event] = field(default_factory=list)
    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def framework(self) -> str:
        """Whose module it is."""
        return self.family.name

    @property
    def family(self) -> Family:
        """How its framework is called."""
        return family_of(self.model)

    def layers(self) -> Mapping[str, str]:
        """Module path with dots -> class name."""
        found = {name: type(module).__name__ for name, module in self.family.modules(self.model).items()}
        return found or {event.layer: event.class_name for event in self.events}

    def inputs(self, long: bool = False) -> tuple[Array, ...]:
        """These modules do not know the shapes of their inputs."""
        return ()

    def record(self, inputs: Inputs, double: bool = True) -> Recording:
        """One run at inference, in float64 where the model can (`note` says why not).

        Raises:
            UsageError: the model does not run on these inputs.
        """
        family, note = self.family, ""
        given = listed(inputs)
        if double and not family.doubles:
            double, note = False, f"not in float64: {family.name} has none"
        return widest(lambda wide, told: self._recorded(given, wide, told), double, note)

    def layer(self, name: str, inputs: Sequence[Array], names: Sequence[str] = ()) -> tuple[Array, ...]:
        """What one module gives alone, in float64 where the framework has it.

        Raises:
            UsageError: there is no module of this path. ModelError: it does not run on these inputs.
        """
        name = resolved(name, self.layers())
        names = tuple(names) or ("",) * len(inputs)

        def run(double: bool) -> tuple[Array, ...]:
            with same_random(), self.family.ready(self.model, double) as model:
                return self._alone(model, name, [np.asarray(a) for a in inputs], names)

        return widest_layer(run, name, self.family.doubles)

    def repeat(self, inputs: Inputs) -> tuple[tuple[Array, ...], tuple[Array, ...], tuple[Array, ...]] | None:
        """Unknown: these frameworks take random keys and modes in ways of their own."""
        return None

    def _alone(self, model: Any, name: str, inputs: list[Array], names: tuple[str, ...]) -> tuple[Array, ...]:
        module = self.family.modules(model).get(name)
        if module is None and name in self.parts:  # flax, haiku: made while the model was called
            module = self.parts[name]()
        if module is None:
            raise no_layer(name, self.layers())
        return self.family.alone(model, module, inputs, names, seen_form(self.events, name, names))

    def _recorded(self, given: tuple[Array, ...], double: bool, note: str) -> Recording:
        family = self.family
        with same_random(), family.ready(self.model, double) as model:
            outputs, self.events, self.parts = family.run(model, given)
        floats = [a.dtype for a in outputs if a.dtype.kind not in "iub"]
        if double and any(dtype != np.float64 for dtype in floats):
            note = f"not in float64: the model itself computes in {floats[0]}"
        dtype = floats[0].name if floats else "float32"
        return Recording(family.name, family.version(), dtype, given, outputs, calls_of(self.events), {}, note)
