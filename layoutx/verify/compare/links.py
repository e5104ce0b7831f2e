"""Both runs, and one call of one layer in them: what it is given and what it hands on, on both sides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from layoutx.errors import LayoutxError
from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.compare import flow
from layoutx.verify.compare.alone import Layer
from layoutx.verify.compare.calls import position
from layoutx.verify.compare.limits import FLOW, coarsest
from layoutx.verify.compare.masked import counting
from layoutx.verify.compare.named import Named, met
from layoutx.verify.compare.pairs import Couple
from layoutx.verify.compare.stacks import Stacks, named_in, title
from layoutx.verify.recording import Call, Recording


@frozen
class Runs:
    """Both models' runs.

    Attributes:
        source, target: what was recorded; None where the target did not run.
        layer: runs one layer of the target alone; None where only its recording is at hand.
        before: source layer -> the paired layers that feed it; a layer that is missing has no known wiring.
        tolerance: the user's; 0: the limits of `limits`. loose: in its place for what layers hand on.
        sources, targets: layers of stacks, on each side.
        masks: (batch, time), what they leave out counts for nothing.
    """

    source: Recording
    target: Recording | None
    layer: Layer | None
    before: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tolerance: float = 0.0
    loose: float = 0.0
    sources: Stacks = field(default_factory=dict)
    targets: Stacks = field(default_factory=dict)
    masks: tuple[Array, ...] = ()

    @property
    def flow(self) -> float:
        """The limit of what is handed on: the user's, or a looser one where the weights themselves were rounded."""
        return self.tolerance or (max(self.loose, FLOW[coarsest((), self.dtypes)]) if self.loose else 0.0)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """What was computed in."""
        return (self.source.dtype, *((self.target.dtype,) if self.target is not None else ()))


def named_there(couple: Couple, here: Named, template: Call | None, runs: Runs) -> Named | None:
    """The target's own call by name; None where its arrays do not have the axes that its form says."""
    if template is None:
        return None
    try:
        return met(couple, here, named_in(couple.target, template, couple.last, runs.targets))
    except LayoutxError:
        return None


def link_of(couple: Couple, runs: Runs, number: int, here: Named, there: Named | None) -> flow.Link | None:
    """One call of one layer in both runs; None where the target did not run, or has other axes than its form says."""
    if there is None or runs.target is None:
        return None
    name, masks = title(couple.source), runs.masks
    given, gave = (way(couple, here, there, runs.dtypes, runs.flow) for way in (flow.given, flow.gave))
    return flow.Link(
        name,
        title(couple.target),
        number,
        position(couple.source, runs.source, number),
        position(couple.target, runs.target, number),
        counting(given, masks, runs.dtypes, runs.flow) if given is not None else None,
        counting(gave, masks, runs.dtypes, runs.flow) if gave is not None else None,
        runs.before.get(name),
    )
