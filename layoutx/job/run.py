"""A job carried out: each layer read, moved, checked for consent, and proved."""

from __future__ import annotations

from dataclasses import dataclass, field

from layoutx.errors import LayoutxError, raise_all
from layoutx.job.jobs import Job, LayerJob, Options
from layoutx.plan.plan import Array
from layoutx.plan.run import Result, consent
from layoutx.plan.run import run as run_plan
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
    for layer in job.layers:
        try:
            _layer(layer, options, moved, live)
        except LayoutxError as error:
            problems.append(error.at(layer.record.place))
    raise_all(problems, f"{len(problems)} layers were not converted")
    return moved


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
    moved.arrays.update({layer.targets[n]: array for n, array in result.tensors.items()})
