"""Axes that were taken apart: which layer may make the elements of one in another order, for whoever reads its parts.

A Dense whose units become a map, and a convolution whose channels are dealt out to positions (depth to space). Nobody
else may read those channels: he would find them in the other order.
"""

from __future__ import annotations

from collections.abc import Sequence

from layoutx.model.axes import Axis, Dim, State, axes_in, same_order
from layoutx.model.flow import Flow

STAYS = "output axis stays as it is, though a Reshape makes a map of it"


def note_readers(flow: Flow, given: Sequence[State], made: Sequence[State] = ()) -> None:
    """Counts who reads the last axis of each state and hands on another; a layer that hands it on is no reader."""
    passes = len(given) == 1 and bool(made) and made[0].last[-1:] == given[0].last[-1:]
    for state in () if passes else given:
        flow.taken.update({axis.id for axis in axes_in(state.last[-1] if state.last else ())})


def settle(flow: Flow) -> None:
    """Decides, once the model is walked, which axes may be made in the order that a channels-first framework wants.

    Others stay as they are for all who read them, and a note says so where a Reshape makes a map of them.
    """
    for parent in {a.id: a for a in flow.parents.values()}.values():
        last, first = flow.splits[parent.id]
        group = next((own for own in flow.tied if parent in own), {parent})
        if same_order(last, first):
            continue
        if all(_turnable(flow, axis) and flow.splits.get(axis.id, (last, first)) == (last, first) for axis in group):
            flow.splits |= dict.fromkeys((axis.id for axis in group), (last, first))
            continue
        flow.splits[parent.id] = (last, last)
        for made in (flow.records.get(axis.origin) for axis in group if parent.id not in flow.dealt):
            if made is not None and made.tensors:
                flow.note(made.name, STAYS)


def _turnable(flow: Flow, axis: Axis) -> bool:
    """Whether the layer that made an axis may make its elements in another order."""
    uses = flow.uses.get(axis.origin, {})
    return "output" in uses or ("out" in uses and flow.taken[axis.id] == 1)


def deal(flow: Flow, channel: Dim, last: Dim, first: Dim, where: str) -> None:
    """Takes the channels of a map apart, whose parts become finer positions and fewer channels.

    Args:
        last, first: the parts, the slowest first, here and in torch's pixel_shuffle.
    """
    (parent,) = axes_in(channel)
    flow.splits[parent.id] = (last, first)
    flow.parents |= {axis.id: parent for axis in axes_in(last)}
    flow.dealt.add(parent.id)
    flow.joined[frozenset(a.id for a in axes_in(last) if a.size != 1)] = where
