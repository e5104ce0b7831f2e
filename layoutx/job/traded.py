"""Layers whose bias one model has in the mean of the batch norm that follows: the same function, compared as such."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from layoutx.job.absorbed import BIAS, MEAN, NORM, added_last, axes_of
from layoutx.job.alone import wiring_of_either
from layoutx.job.joined import Joined, Joint, Side
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.plan.plan import Array
from layoutx.spec.bound import Atom
from layoutx.verify.compare.weights import aligned
from layoutx.verify.relate.numbers import Numbers, numbers_of
from layoutx.words import listed

ROUNDED = 1e-5  # of the numbers that are summed: the mean may be held in float32


def traded(joint: Joint, source: Keyed | ModelRecord, target: Keyed | ModelRecord) -> Joint:
    """The joint, with each such layer and its norm compared without what is in the bias here and in the mean there.

    norm(x + bias) is norm(x) with mean - bias. The numbers tell it: means that differ by what the biases differ by. A
    bias that was lost, and that no mean has, stays a difference of its layer.
    """
    pairs = list(joint.pairs)
    if not any(pair.source.bound.kind.name == NORM for pair in pairs):
        return joint
    told = wiring_of_either(source, target)
    if told is None:
        return joint
    at, wires = told
    owners: dict[str, int] = {}
    for number, pair in enumerate(pairs):
        side = (pair.source, pair.target)[at]
        owners |= dict.fromkeys(wires.layers(tensor.name for tensor in side.tensors.values()), number)
    found = {}
    for name, number in owners.items():
        before = owners.get(wires.alone.get(name, ""))
        less = _moved(pairs[before], pairs[number]) if before is not None else None
        if before is not None and less is not None:
            found[pairs[number].source.name] = pairs[before].source.name
            pairs[before], pairs[number] = _without(pairs[before], "y", less), _without(pairs[number], "x", less)
    return replace(joint, pairs=tuple(pairs), traded=found)


def said(joint: Joint) -> tuple[str, ...]:
    """What is to be said of such layers: one sentence for all of them, or none."""
    names = [f"{layer} in {norm}" for norm, layer in joint.traded.items()]
    if not names:
        return ()
    told = f"in one model a batch norm's mean holds the bias of the layer before it ({listed(names)})"
    return (f"{told}: both are compared without that bias, the same function",)


def _moved(layer: Joined, norm: Joined) -> Array | None:
    """What the norm's mean holds of the layer's bias in one of the two models; (channel,), None for nothing."""
    kinds = layer.source.bound.kind, norm.source.bound.kind
    if kinds[1].name != NORM or not added_last(kinds[0]) or layer.source.parts or layer.target.parts:
        return None
    if any(side.bound.settings.get("activation") not in (None, "linear") for side in (layer.source, layer.target)):
        return None
    biases, means = _both(layer, BIAS), _both(norm, MEAN)
    if biases is None or means is None or biases[0].shape != means[0].shape:
        return None
    less = biases[0] - biases[1]
    far = np.abs(means[0] - means[1] - less)
    room = ROUNDED * (np.abs(means[0]) + np.abs(less))
    return less if less.any() and bool((far <= room).all()) else None


def _both(pair: Joined, role: str) -> tuple[Array, Array] | None:
    """A role's numbers on both sides, in the order of its axes; zeros where a side has none, None where both have none.

    Also None for a role of several atoms: gates have no norm after them.
    """
    axes = axes_of(pair.source.bound.kind.roles[role].axes)
    found = list(aligned(_numbers(pair.source, role, axes), _numbers(pair.target, role, axes)))
    return (found[0][0].reshape(-1), found[0][1].reshape(-1)) if len(found) == 1 else None


def _numbers(side: Side, role: str, axes: list[str]) -> Mapping[Atom, Numbers]:
    held = [tensor.name for tensor in side.bound.tensors if any(block.role == role for block in tensor.blocks)]
    read = {name: side.tensors[name].read() for name in held if name in side.tensors}
    found = {atom: numbers for atom, numbers in numbers_of(side.bound, read).items() if atom[0] == role}
    return {atom: _in_order(numbers, axes) for atom, numbers in found.items()}


def _in_order(numbers: Numbers, axes: list[str]) -> Numbers:
    order = sorted(range(len(numbers.axes)), key=lambda at: axes.index(numbers.axes[at]))
    return replace(numbers, axes=tuple(numbers.axes[at] for at in order), array=numbers.array.transpose(order))


def _without(pair: Joined, name: str, less: Array) -> Joined:
    """The pair compared without these numbers in what it is given or gives, which is its problem no more."""
    side = replace(pair.source, less={**pair.source.less, name: less})
    return replace(pair, source=side, problem=None)
