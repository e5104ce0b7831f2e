"""A job carried out straight into a live model's variables: all is looked at before the first of them is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import prod

import numpy as np

from layoutx.errors import LayoutxError, VerificationError, raise_all
from layoutx.files.hashes import leaves_of
from layoutx.frozen import frozen
from layoutx.job.jobs import Job, LayerJob, Options
from layoutx.job.narrowed import Narrowing
from layoutx.job.relaid import relaid
from layoutx.job.run import Moved, carry, derived_of, unproved, written_twice
from layoutx.job.slots import Slot
from layoutx.plan.blocks import memory
from layoutx.plan.plan import Array, Plan
from layoutx.plan.run import Result
from layoutx.plan.run import run as run_plan
from layoutx.plan.steps import Copy, Fill, Guard
from layoutx.plan.strided import copy
from layoutx.plan.views import bits, view
from layoutx.progress import steps
from layoutx.spec.bound import BoundTensor

LARGE = 1 << 19  # bytes of a layer from which a thread of its own pays
Steps = tuple[Copy | Fill, ...]


@frozen
class Way:
    """How one layer gets into its variables.

    Attributes:
        moved: target form tensor name -> the steps into its variable's own memory: copies and fills, nothing else.
        computed: tensors that are made first: sums, other dtypes, other signs, blocks of CuDNN.
        nbytes: how much is read.
    """

    layer: LayerJob
    moved: Mapping[str, Steps]
    computed: tuple[str, ...]
    nbytes: int


def ways(job: Job, slots: Mapping[str, Slot]) -> list[Way]:
    """How every layer gets into the target's variables; no number is read."""
    return [_way(layer, slots) for layer in job.layers]


def _way(layer: LayerJob, slots: Mapping[str, Slot]) -> Way:
    found = {t.name: _moves(layer, t, slots[layer.targets[t.name]]) for t in layer.plan.target.tensors}
    computed = tuple(name for name, own in found.items() if own is None)
    nbytes = sum(prod(tensor.shape) * tensor.dtype.itemsize for tensor in layer.sources.values())
    return Way(layer, {name: own for name, own in found.items() if own is not None}, computed, nbytes)


def _moves(layer: LayerJob, tensor: BoundTensor, slot: Slot) -> Steps | None:
    """The steps of a tensor that only moves bits; None of one that has to be computed."""
    own: list[Copy | Fill] = []
    dtype, strides = slot.dtype, slot.strides
    for step in layer.plan.steps:
        if getattr(step, "target", None) != tensor.name:
            continue
        if isinstance(step, Copy):
            source = layer.plan.source.tensor(step.source)
            if step.negate or source.cut is not None or layer.sources[step.source].dtype != dtype:
                return None
        elif not isinstance(step, Fill):
            return None
        placed = step if strides is None else relaid(step, tensor.shape, strides)
        if placed is None:
            return None
        own.append(placed)
    return tuple(own) if tensor.cut is None else None


def tried(
    found: Sequence[Way],
    job: Job,
    options: Options,
    slots: Mapping[str, Slot],
    level: str,
    proved: Collection[str],
    live: bool,
) -> tuple[Moved, dict[str, bytes], dict[str, tuple[str, str]]]:
    """All that can forbid a job, looked at layer by layer; no more than one layer is in memory.

    Args:
        level: "none": only what is computed is made; else every layer, by the plain executor.
        proved: layers whose outputs are compared.

    Returns:
        What was observed; variable -> checksum of what it has to hold, where layers were made; variable ->
        (dtype, narrower dtype) where digits are lost.

    Raises:
        LayoutxError: guards that do not hold, missing consent, a proof that fails, numbers for one variable that
            differ; of all layers together.
    """
    moved, narrowing, sums = Moved(), Narrowing(), dict[str, bytes]()
    problems: list[LayoutxError] = []
    many = Counter(job.tied.get(full, full) for layer in job.layers for full in layer.targets.values())

    def taken(layer: LayerJob, arrays: Mapping[str, Array]) -> None:
        for name, array in arrays.items():
            full = layer.targets[name]
            narrowing.look(full, array, slots[full].dtype)
            if level == "none" and many[job.tied.get(full, full)] < 2:
                continue
            with np.errstate(over="ignore"):
                stored = _bytes(array.astype(slots[full].dtype, copy=False))
            if sums.setdefault(job.tied.get(full, full), stored) != stored:
                kept = job.tied.get(full)
                problems.append(written_twice(f"{full}, which is {kept} in the target," if kept else full))

    doing = "looking at" if level == "none" else "moving and proving"
    for way in steps(found, lambda one: f"{doing} {one.layer.record.name}"):
        layer, name = way.layer, way.layer.record.name
        again = {t for t, full in layer.targets.items() if many[job.tied.get(full, full)] > 1}
        try:
            if level != "none":
                carry(layer, options, moved, live, name in proved, taken)
            elif again or way.computed or any(isinstance(step, Guard) for step in layer.plan.steps):
                part = replace(layer, plan=_part(layer.plan, {*way.computed, *again}))
                carry(part, options, moved, False, False, taken)
            else:
                moved.results[name] = Result({}, derived=derived_of(layer))
        except LayoutxError as error:
            problems.append(error.at(layer.record.place))
            continue
        if level == "none":
            moved.proofs[name] = replace(unproved(layer, moved.results[name]), note="nothing was read back")
        moved.written |= set(layer.targets.values())
    raise_all(problems, f"{len(problems)} layers were not converted")
    return moved, sums, narrowing.settled(options.allow, "target")


def _part(plan: Plan, names: Collection[str]) -> Plan:
    """A plan for some of the target's tensors, with all its guards."""
    own = tuple(tensor for tensor in plan.target.tensors if tensor.name in names)
    kept = tuple(step for step in plan.steps if getattr(step, "target", None) in (None, *names))
    return replace(plan, target=replace(plan.target, tensors=own), steps=kept)


def fill(found: Sequence[Way], slots: Mapping[str, Slot], jobs: int = 1) -> None:
    """Write every layer into its variables, large ones on several threads."""
    order = sorted(found, key=lambda way: -way.nbytes)
    total = sum(way.nbytes for way in order)
    large = iter([way for way in order if way.nbytes >= LARGE and jobs > 1])

    def work() -> None:
        for way in large:
            _filled(way, slots, jobs if 2 * way.nbytes > total else 1)

    with ThreadPoolExecutor(max(1, jobs - 1)) as pool:  # starts its threads when it is given something to do
        others = [pool.submit(work) for _ in range(jobs - 1)] if total >= jobs * LARGE else []
        for way in order:
            if way.nbytes < LARGE or jobs == 1:
                _filled(way, slots, 1)
        work()
    for other in others:
        other.result()


def _filled(way: Way, slots: Mapping[str, Slot], jobs: int) -> None:
    layer = way.layer
    source = {name: tensor.read() for name, tensor in layer.sources.items()}
    flat = {name: memory(layer.plan.source.tensor(name), array) for name, array in source.items()}
    rest = list(way.computed)
    for name, own in way.moved.items():
        slot = slots[layer.targets[name]]
        room = slot.room()
        if room is not None:
            carry_out(own, room.flat, flat, jobs)
            room.done()
        elif slot.inner.device.type != "cpu":
            from layoutx.job.device import place

            place(slot.inner, own, flat)
        else:  # a tensor that only torch itself can write to
            rest.append(name)
    if rest:
        for name, array in run_plan(_part(layer.plan, rest), source).tensors.items():
            slot = slots[layer.targets[name]]
            with np.errstate(over="ignore"):  # what that loses was told before
                slot.write(array.astype(slot.dtype, copy=False))


def carry_out(own: Steps, to: Array, flat: Mapping[str, Array], jobs: int = 1) -> None:
    """Copies and fills into flat memory.

    Args:
        to: memory of the steps' target; flat: the steps' sources, of its dtype.
    """
    for step in own:
        loops = [(x.size, x.target) for x in step.loops]
        if isinstance(step, Fill):
            view(to, step.target_offset, loops)[...] = step.value
            continue
        of = view(bits(flat[step.source]), step.source_offset, [(x.size, x.source) for x in step.loops])
        copy(view(bits(to), step.target_offset, loops), of, jobs)


def _bytes(array: Array) -> bytes:
    """The digests of what an array holds, in C order."""
    return leaves_of(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def same(sums: Mapping[str, bytes], slots: Mapping[str, Slot]) -> None:
    """Compare what the variables hold with what was made.

    Raises:
        VerificationError: with all that differ.
    """
    wrong = [n for n, expected in sums.items() if _bytes(slots[n].look()) != expected]
    if wrong:
        raise VerificationError(
            f"{len(wrong)} variables do not hold what was written into them",
            where=wrong[:6],
            do="this is a fault of layoutx, or of the memory: please report it",
        )
