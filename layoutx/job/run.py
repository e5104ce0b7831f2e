"""A job carried out: each layer read, moved, checked for consent, and proved."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from layoutx.errors import ConversionError, LayoutxError, raise_all
from layoutx.job.jobs import Job, LayerJob, Options
from layoutx.plan.plan import Array
from layoutx.plan.run import Result, consent
from layoutx.plan.run import run as run_plan
from layoutx.plan.steps import Add, Copy
from layoutx.progress import steps
from layoutx.verify.proof import Proof, prove_layer


@dataclass
class Moved:
    """What a job made.

    Attributes:
        arrays: output name -> array.
        results: layer -> what the run observed.
        proofs: layer -> what was shown.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    proofs: dict[str, Proof] = field(default_factory=dict)


def move(job: Job, options: Options, *, live: bool = True) -> Moved:
    """Carry out a job in memory.

    Raises:
        LayoutxError: guards that do not hold, missing consent, a proof that fails; of all layers together.
    """
    moved = Moved()
    problems: list[LayoutxError] = []
    for layer in steps(job.layers, lambda one: f"moving and proving {one.record.name}"):
        try:
            _layer(layer, options, moved, live)
        except LayoutxError as error:
            problems.append(error.at(layer.record.place))
    for tied, kept in job.tied.items():
        if tied in moved.arrays and kept in moved.arrays:
            problems += _unequal(f"{tied}, which is {kept} in the target,", moved.arrays[kept], moved.arrays[tied])
    raise_all(problems, f"{len(problems)} layers were not converted")
    return moved


def _unequal(what: str, first: Array, second: Array) -> list[LayoutxError]:
    """A tensor that two layers of the target share, where the source's two are not the same."""
    if first.tobytes() == second.tobytes():
        return []
    return [
        ConversionError(
            f"{what} would be written twice with different numbers",
            why="the target shares it between two layers, the source has a tensor for each",
            do="tie them in the source first, or leave one of the layers out with --skip",
        )
    ]


def _layer(layer: LayerJob, options: Options, moved: Moved, live: bool) -> None:
    source = {name: tensor.read() for name, tensor in layer.sources.items()}
    result = run_plan(layer.plan, source)
    consent(layer.plan, result, options.allow)
    name = layer.record.name
    moved.results[name] = result
    moved.proofs[name] = prove_layer(
        layer.plan,
        source,
        result.tensors,
        result.exactness(layer.plan),
        live=live,
        last=layer.last,
        refine=layer.refine,
    )
    result.derived.update(_derived(layer))
    if result.derived:
        moved.proofs[name] = replace(moved.proofs[name], round_trip="not reversible: computed from parts")
    for slot, array in result.tensors.items():
        full = layer.targets[slot]
        raise_all(_unequal(full, moved.arrays.get(full, array), array), "")
        moved.arrays[full] = array


def _derived(layer: LayerJob) -> dict[str, str]:
    """Target tensor -> how the source tensor that it is made of was computed."""
    found = {}
    for step in layer.plan.steps:
        names = [step.source] if isinstance(step, Copy) else []
        names += [term.source for term in step.terms] if isinstance(step, Add) else []
        said = [text for name in names if (text := layer.sources[name].derived)]
        if said and isinstance(step, (Copy, Add)):
            found[step.target] = said[0]
    return found
