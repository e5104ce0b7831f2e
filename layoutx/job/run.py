"""A job carried out in memory: each layer read, moved, checked for consent, and proved."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from layoutx.errors import ConversionError, LayoutxError, raise_all
from layoutx.job.jobs import Job, LayerJob, Options
from layoutx.plan.blocks import memory
from layoutx.plan.guards import guards_of
from layoutx.plan.plan import Array
from layoutx.plan.run import Result, consent
from layoutx.plan.run import run as run_plan
from layoutx.plan.steps import Add, Copy, Drop, Exactness, Guard
from layoutx.progress import steps
from layoutx.verify.outcome import Proof

NOT_COMPUTED = "its bytes were compared, its outputs not computed"


@dataclass
class Moved:
    """What a job made.

    Attributes:
        arrays: output name -> array.
        results: layer -> what the run observed.
        proofs: layer -> what was shown.
        written: names of the output's tensors, where they are not kept as arrays.
        nbytes, shards: of the output's tensors, and in how many files they lie; there: how many of these a stopped run
            had finished.
        news: how often making the output showed more of a layer than was known before.
        rounded: output name of a kept tensor that became a narrower dtype -> what it lost, in words.
        hashes, origins: of the output's tensors, and of the source's that were read for them, by name.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)
    proofs: dict[str, Proof] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    nbytes: int = 0
    shards: int = 1
    there: int = 0
    news: int = 0
    rounded: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)


def move(
    job: Job,
    options: Options,
    *,
    live: bool = True,
    proved: Collection[str] | None = None,
    taken: Callable[[LayerJob, Mapping[str, Array]], None] | None = None,
) -> Moved:
    """Carry out a job in memory.

    Args:
        live: compute proofs with the target's framework, where it is installed.
        proved: the layers whose outputs are compared; None: all.
        taken: given the arrays of each layer that is proved, which are not kept then; the others are not made at all:
            only what forbids to leave their values out is looked at.

    Raises:
        LayoutxError: guards that do not hold, missing consent, a proof that fails; of all layers together.
    """
    moved = Moved()
    problems: list[LayoutxError] = []
    for layer in steps(job.layers, lambda one: f"moving and proving {one.record.name}"):
        try:
            prove = proved is None or layer.record.name in proved
            if taken is not None and not prove:
                _observed(layer, options, moved)
            else:
                carry(layer, options, moved, live, prove, taken)
        except LayoutxError as error:
            problems.append(error.at(layer.record.place))
    if taken is None:
        moved.arrays.update({name: tensor.read() for name, tensor in job.kept.items()})
    for tied, kept in job.tied.items():
        if tied in moved.arrays and kept in moved.arrays:
            problems += _unequal(f"{tied}, which is {kept} in the target,", moved.arrays[kept], moved.arrays[tied])
    raise_all(problems, f"{len(problems)} layers were not converted")
    return moved


def _unequal(what: str, first: Array, second: Array) -> list[LayoutxError]:
    """A tensor that two layers of the target share, where the source's two are not the same."""
    return [] if first.tobytes() == second.tobytes() else [written_twice(what)]


def written_twice(what: str) -> ConversionError:
    """The complaint about a tensor of the target for which two layers have different numbers."""
    return ConversionError(
        f"{what} would be written twice with different numbers",
        why="the target shares it between two layers, the source has a tensor for each",
        do="tie them in the source first, or leave one of the layers out with --skip",
    )


def _observed(layer: LayerJob, options: Options, moved: Moved) -> None:
    """What the values of a layer that is not made here allow: its guards hold, and were consented to."""
    guarded = {step.source for step in layer.plan.steps if isinstance(step, Guard)}
    flat = {name: memory(layer.plan.source.tensor(name), layer.sources[name].read()) for name in guarded}
    result = Result({}, guards=guards_of(layer.plan, flat) if flat else [], derived=derived_of(layer))
    consent(layer.plan, result, options.allow | layer.allowed)
    moved.results[layer.record.name] = result
    moved.proofs[layer.record.name] = unproved(layer, result)


def unproved(layer: LayerJob, result: Result) -> Proof:
    """What is known of a layer whose outputs nobody computed: that its plan is a bijection, or why it is none."""
    if result.exactness(layer.plan) is Exactness.ROUNDS:
        return Proof("not reversible: computed from parts" if result.derived else "not reversible: rounded")
    return _bijective(tuple(sorted({step.source for step in layer.plan.steps if isinstance(step, Drop)})))


@lru_cache
def _bijective(dropped: tuple[str, ...]) -> Proof:
    return Proof("bit-exact by its plan" + (f", without {', '.join(dropped)}" if dropped else ""), note=NOT_COMPUTED)


def carry(
    layer: LayerJob,
    options: Options,
    moved: Moved,
    live: bool,
    prove: bool,
    taken: Callable[[LayerJob, Mapping[str, Array]], None] | None,
) -> None:
    """Read, move and prove one layer; see `move`.

    Raises:
        LayoutxError: guards that do not hold, missing consent, a proof that fails.
    """
    source = {name: tensor.read() for name, tensor in layer.sources.items()}
    result = run_plan(layer.plan, source, plain=taken is not None)  # the fast way is held to it afterwards
    consent(layer.plan, result, options.allow | layer.allowed)
    name = layer.record.name
    moved.results[name] = result
    result.derived.update(derived_of(layer))
    if prove:
        from layoutx.verify.proof import prove_layer

        exactness = replace(result, derived={}).exactness(layer.plan)
        moved.proofs[name] = prove_layer(
            layer.plan, source, result.tensors, exactness, live=live, last=layer.last, refine=layer.refine
        )
    else:
        moved.proofs[name] = unproved(layer, result)
    if result.derived:
        moved.proofs[name] = replace(moved.proofs[name], round_trip="not reversible: computed from parts")
    if taken is not None:
        taken(layer, result.tensors)
        result.tensors = {}
        return
    for slot, array in result.tensors.items():
        full = layer.targets[slot]
        raise_all(_unequal(full, moved.arrays.get(full, array), array), "")
        moved.arrays[full] = array


def derived_of(layer: LayerJob) -> dict[str, str]:
    """Target tensor -> how the source tensor that it is made of was computed, unless that only moved numbers."""
    found: dict[str, str] = {}
    if not any(tensor.rounded for tensor in layer.sources.values()):
        return found
    for step in layer.plan.steps:
        names = [step.source] if isinstance(step, Copy) else []
        names += [term.source for term in step.terms] if isinstance(step, Add) else []
        said = [layer.sources[name].derived for name in names if layer.sources[name].rounded]
        if said and isinstance(step, (Copy, Add)):
            found[step.target] = said[0]
    return found
