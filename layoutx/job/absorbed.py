"""A bias that the target's layer has no place for, taken into the mean of the batch norm that alone reads the layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from layoutx.errors import ConversionError
from layoutx.frozen import frozen
from layoutx.job.alone import Wiring, wiring_of_either
from layoutx.job.jobs import Job, LayerJob, Options
from layoutx.lang.parse import parse
from layoutx.lang.place import place
from layoutx.lang.tree import Axis, Dim, Spread, walk
from layoutx.model.keyed import Keyed
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.plan.plan import plan
from layoutx.plan.steps import Guard
from layoutx.spec.bound import BoundForm, BoundTensor, Place
from layoutx.spec.schema import Kind
from layoutx.verify.data import canonical_data, data_order
from layoutx.verify.probe import spatial_rank
from layoutx.words import first

Model = Keyed | ModelRecord
NORM, MEAN, OFFSET, BIAS, CHANNEL = "batch_norm", "mean", "offset", "bias", "channel"


@frozen
class Taken:
    """A layer whose bias has no place in the target, and the norm that can take it.

    Attributes:
        tensor: the layer's form tensor that is its bias.
    """

    layer: LayerJob
    norm: LayerJob
    tensor: str


def absorbed(job: Job, source: Model, target: Model, options: Options) -> Job:
    """The job with every such bias taken off the mean of its norm, where that was asked for.

    norm(x + bias) is norm(x) with mean - bias. Which norm follows which layer is told by the source's wiring, or by the
    target's where the source is names and numbers.

    Raises:
        ConversionError: biases that are not zero, and nobody asked to take them into the norms; all together.
    """
    homeless = [(layer, name) for layer in job.layers if (name := _homeless(layer))]
    found = list(_followed(job, homeless, source, target)) if homeless else []
    if not options.materialise:
        wrong = [one for one in found if np.any(one.layer.sources[one.tensor].read())]
        if wrong:
            raise _problem(wrong, job.target)
        return job
    made = {one.layer.record.name: _without(one) for one in found}
    made |= {one.norm.record.name: _with(one) for one in found}
    return replace(job, layers=tuple(made.get(layer.record.name, layer) for layer in job.layers))


def _homeless(layer: LayerJob) -> str:
    """The tensor that is the layer's bias, added to what it gives by its last axis, where all of it is only guarded.

    "" where there is none, or where it does not lie in one piece in the order of that axis, or an activation follows.
    """
    bound = layer.plan.source
    guarded = {step.source for step in layer.plan.steps if isinstance(step, Guard)}
    moved = {getattr(step, "source", "") for step in layer.plan.steps if not isinstance(step, Guard)}
    if not guarded or not added_last(bound.kind):
        return ""
    if any(side.settings.get("activation") not in (None, "linear") for side in (bound, layer.plan.target)):
        return ""
    for tensor in bound.tensors:
        block = tensor.blocks[0]
        if block.role != BIAS or len(tensor.blocks) > 1 or tensor.name not in guarded - moved or bound.maps:
            continue
        step, strides = 1, {}
        for axis in reversed([axis for axis in axes_of(bound.kind.roles[BIAS].axes) if bound.sizes[axis] > 1]):
            strides[axis] = step
            step *= bound.sizes[axis]
        if all(block.strides[axis] == own for axis, own in strides.items()) and step == prod(tensor.shape):
            return tensor.name
    return ""


def added_last(kind: Kind) -> bool:
    """Whether a kind has a bias that is added to what it gives by its last axis."""
    role, gives = kind.roles.get(BIAS), canonical_data(kind.name).get("y", ())
    return role is not None and bool(gives) and axes_of(role.axes) == axes_of(gives[-1:])


def axes_of(dims: Sequence[Dim]) -> list[str]:
    """The names of axes, in order."""
    return [part.name for part in walk(tuple(dims)) if isinstance(part, Axis)]


def _followed(job: Job, homeless: Sequence[tuple[LayerJob, str]], source: Model, target: Model) -> Iterator[Taken]:
    """Each of these layers that a norm alone reads."""
    told = wiring_of_either(source, target)
    if told is None:
        return
    here, wires = told[0] == 0, told[1]
    norms: dict[str, LayerJob] = {}
    for layer in job.layers:
        for name in _layers(layer, wires, here) if layer.plan.source.kind.name == NORM else ():
            norms[wires.alone.get(name, "")] = layer
    for layer, tensor in homeless:
        read = {wires.owner.get(layer.sources[tensor].name, "")} if here else _layers(layer, wires, here)
        for name in filter(None, read):
            if name in norms and _fits(layer, tensor, norms[name]):
                yield Taken(layer, norms[name], tensor)


def _layers(layer: LayerJob, wires: Wiring, here: bool) -> set[str]:
    """What the wiring calls a layer; `here`: it is the source's."""
    return wires.layers((tensor.name for tensor in layer.sources.values()) if here else layer.targets.values())


def _fits(layer: LayerJob, tensor: str, norm: LayerJob) -> bool:
    """Whether the norm has a running mean on both sides, by the channels that the bias is added to."""
    bound, there, atom = norm.plan.source, norm.plan.target, (MEAN, ())
    if atom not in bound.places or atom not in there.places or {atom} & {*bound.maps, *there.maps}:
        return False
    if bound.sizes.get(CHANNEL) != layer.sources[tensor].size:
        return False
    rank = spatial_rank(layer.plan.source)
    sides = ((layer.plan.source, bound), (layer.plan.target, there))
    if rank and any(_first(one, "y") != _first(other, "x") for one, other in sides):
        return False
    axis, more = norm.record.config.get("axis"), norm.record.config.get("rank")
    axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis
    rank = more if isinstance(more, int) else rank
    first = _first(bound if norm.record.form == bound.form.name else there, "x")
    return axis in ((None, 1, -1 - rank) if first else (None, -1, rank + 1))


def _first(bound: BoundForm, name: str) -> bool:
    """Whether the channels stand before the positions of a map."""
    return any(isinstance(dim, Spread) for dim in data_order(bound)[name][2:])


def _without(one: Taken) -> LayerJob:
    """The layer as if it had no bias."""
    layer, bound = one.layer, one.layer.plan.source
    tensors = tuple(tensor for tensor in bound.tensors if tensor.name != one.tensor)
    places = {atom: found for atom, found in bound.places.items() if found.tensor != one.tensor}
    sources = {name: tensor for name, tensor in layer.sources.items() if name != one.tensor}
    plain = plan(replace(bound, tensors=tensors, places=places), layer.plan.target)
    said = f"its {one.tensor} is taken off the mean of the norm that follows"
    return replace(layer, plan=plain, sources=sources, record=_noted(layer, said))


def _with(one: Taken) -> LayerJob:
    """The norm with the bias among its tensors, as what is taken off beside the mean: the sum is what has a place."""
    layer, norm, bound = one.layer, one.norm, one.norm.plan.source
    own, name = layer.plan.source.tensor(one.tensor), f"{layer.record.name}.{one.tensor}"
    last = max(range(len(own.shape)), key=lambda at: (own.shape[at], at))
    dims = " ".join(CHANNEL if at == last else "1" for at in range(len(own.shape)))
    layout = parse(f"{'' if own.blocks[0].negated else '-'}{OFFSET}: {dims}")
    block = place(layout, bound.sizes)[0]
    tensors = (*bound.tensors, BoundTensor(name, own.shape, layout, (block,), own.dtype))
    summed = replace(bound, tensors=tensors, places={**bound.places, (OFFSET, ()): Place(name, block)})
    return replace(
        norm,
        plan=plan(summed, norm.plan.target),
        sources={**norm.sources, name: layer.sources[one.tensor]},
        record=_noted(norm, "the bias of the layer before it is taken off its mean"),
        allowed=frozenset({"rounds"}),
    )


def _noted(layer: LayerJob, said: str) -> LayerRecord:
    note = "; ".join(text for text in (layer.record.note, said) if text)
    return replace(layer.record, note=note)


def _problem(found: Sequence[Taken], framework: str) -> ConversionError:
    where = first([f"{one.layer.record.place}: {one.norm.record.name} follows" for one in found])
    many = f"{len(found)} layers have a bias" if len(found) > 1 else "a layer has a bias"
    norms = "the batch norms that follow them" if len(found) > 1 else "the batch norm that follows it"
    return ConversionError(
        f"{many} that the {framework} model has no place for; {norms} can take it",
        where=where,
        why="norm(x + bias) is norm(x) with mean - bias: the same function, rounded once and not reversible",
        do="take it off the mean: --materialise (materialise=True in Python); or build the target's layers with a bias",
    )
