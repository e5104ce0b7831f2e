"""Keras layers that make one tensor of several: sums, and concatenations along the features or the positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from layoutx.model.axes import Axis, Cat, Dim, State, axes_in, identifier, same_order, size_of
from layoutx.model.graph import Node
from layoutx.model.keras_ops import blocked
from layoutx.model.keras_spatial import as_map, channels_first
from layoutx.model.keras_uses import partner

if TYPE_CHECKING:
    from layoutx.model.flow import Flow

SUMS = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")
MERGED = ("sum", "mul", "ave", "max")


def features(state: State, why: str) -> State | None:
    """A tensor of which the last axis alone is known, where it is: several numbers that one layer made.

    Args:
        why: what hides the other axes.
    """
    alone = not state.blocked and not state.doubt and bool(state.last) and len(state.last[-1]) == 1
    dim = state.last[-1] if alone else ()
    return State((dim,), (dim,), lead=why) if dim and (size_of(dim) or 0) > 1 else None


def summed(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """The axes of the operand that has most of them."""
    if not states:
        return blocked(node)
    stuck = next((s for s in states if s.blocked), None)
    if stuck is not None:  # its features are those of any of its operands
        known = (one for s in states if (one := features(s, stuck.blocked)) is not None)
        return [stuck if flow.channels_first else next(known, stuck)]
    best = _spread(_fullest(states), states)
    for every in zip(*(reversed(s.last) for s in states), strict=False):
        longer = [[x for x in dim if isinstance(x, Cat) or x.size != 1] for dim in every]
        flow.tie({axis for one in longer if len(one) == 1 for axis in one if isinstance(axis, Axis)})
    doubt = next((s.doubt for s in states if s.doubt), "")
    unlike = "" if _built_alike(states, best) else f'{node.class_name} "{node.name}" of differently built axes'
    if all(_single(s, dim) for s in states for dim in s.last):  # the features are one axis whatever lies before them
        return [replace(best, doubt=doubt, lead=best.lead or unlike)]
    return [replace(best, doubt=doubt or unlike)]


def _fullest(states: Sequence[State]) -> State:
    """The operand whose axes the sum has; a Dense on a map keeps the map's own arrangement in it."""
    full = [s for s in states if len(s.last) == max(len(x.last) for x in states)]
    full = [s for s in full if not s.lead] or full
    return max(full, key=lambda s: sum(1 for d in s.last for a in axes_in(d) if a.size != 1))


def _spread(best: State, states: Sequence[State]) -> State:
    """The axes with those of length one as long as the other operands have them; the features alone, where one hides
    how long the others are."""
    longer: dict[Dim, tuple[Dim, Dim]] = {}
    for at, dim in enumerate(best.last, -len(best.last)):
        reach = [s for s in states if -at <= len(s.last) and (at == -1 or not s.lead)] if size_of(dim) == 1 else []
        other = next((s for s in reach if size_of(s.last[at]) != 1), None)
        if other is not None:
            longer[dim] = other.last[at], partner(other, other.last[at])
    last = tuple(longer.get(dim, (dim, dim))[0] for dim in best.last)
    first = tuple(longer.get(dim, (dim, dim))[1] for dim in best.first)
    hidden = next((s.lead for s in states if s.lead), "")
    if hidden and any(size_of(dim) == 1 for dim in last[:-1]):
        return replace(best, last=last[-1:], first=last[-1:], spatial=False, lead=hidden)
    return replace(best, last=last, first=first)


def _built_alike(states: Sequence[State], best: State) -> bool:
    if all(
        s.last == s.first and not s.lead and all(same_order(d, d) for d in s.last) for s in states
    ):  # in one order everywhere: positions as tokens
        return True
    return all(s.lead or _shape_of(s) == _shape_of(best) or _broadcasts(s, best) for s in states)


def _shape_of(state: State) -> list[tuple[int, bool]]:
    """What two tensors must have in common so that one sum treats their axes alike."""
    pairs = zip(state.last, state.first, strict=True)
    return [(len([a for a in axes_in(d) if a.size != 1]), d == f and same_order(d, f)) for d, f in pairs]


def _broadcasts(state: State, best: State) -> bool:
    """A map of which some axes have length one, or one of another make with one axis at most that is longer."""
    longer = [dim for dim in state.last if size_of(dim) != 1]
    return all(_single(s, d) for s in (state, best) for d in s.last) and (
        state.spatial == best.spatial or len(longer) < 2
    )


def _single(state: State, dim: Dim) -> bool:
    """Whether a dimension is one axis, or several end to end that lie alike everywhere."""
    return len(dim) == 1 and same_order(dim, partner(state, dim))


def concatenated(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """The axes of the first with one of them longer; along the features its parts are remembered."""
    stuck = next((s for s in states if s.blocked), None)
    if stuck is not None:
        return [stuck]
    at = _joined_axis(node, states)
    if at is None:
        return blocked(node)
    if len({s.spatial for s in states}) > 1:
        states = [as_map(flow, s, channels_first(node, flow)) for s in states]
    base = states[0]
    if at == len(base.last) - 1 or (flow.channels_first and at == 0):
        joined = _joined(flow, name, at, states, labels)
    else:
        joined = _longer(flow, name, [s.last[at] for s in states])
    position = base.first.index(partner(base, base.last[at]))
    last = tuple(joined if i == at else d for i, d in enumerate(base.last))
    first = tuple(joined if i == position else d for i, d in enumerate(base.first))
    doubt = next((s.doubt for s in states if s.doubt), "")
    lead = next((s.lead for s in states if s.lead), "")
    return [State(last, first, base.spatial, doubt=doubt, lead=lead)]


def _joined_axis(node: Node, states: Sequence[State]) -> int | None:
    """The axis, batch not counted, along which tensors of one rank are laid end to end; None along the batch."""
    ranks = {len(s.last) for s in states}
    axis = node.config.get("axis", node.config.get("concat_axis", -1))
    if len(ranks) != 1 or 0 in ranks or not isinstance(axis, int) or axis == 0:
        return None
    return (axis - 1 if axis > 0 else axis) % ranks.pop()


def _joined(flow: Flow, name: str, at: int, states: Sequence[State], labels: Sequence[str]) -> Dim:
    """Features side by side: the next layer's rows are those of each part in turn."""
    parts = [part for s, label in zip(states, labels, strict=True) for part in _parts(s, s.last[at], label)]
    return (Cat(flow.axis("c", name, None).id, tuple(parts)),)


def _longer(flow: Flow, name: str, dims: Sequence[Dim]) -> Dim:
    """An axis of positions that is longer; by how much is not known of one alone: constants are laid beside it."""
    sizes = [size_of(dim) for dim in dims]
    known = [size for size in sizes if size is not None]
    return (flow.axis("t", name, sum(known) if len(known) == len(sizes) > 1 else None),)


def merged(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """Keras 1 has one layer for all (keras@1.2.2 keras/engine/topology.py Merge); dots, functions: not followed."""
    mode = node.config.get("mode", "sum")
    if mode == "concat":
        return concatenated(flow, node, name, states, labels)
    return summed(flow, node, name, states, labels) if mode in MERGED else blocked(node)


def _parts(state: State, dim: Dim, label: str) -> Sequence[tuple[str, Dim, Dim]]:
    """The pieces of one input: those of an earlier concatenation stay side by side, however deep the chain."""
    if len(dim) == 1 and isinstance(dim[0], Cat):
        return dim[0].parts
    return [(_label(dim, label), dim, partner(state, dim))]


def _label(dim: Dim, maker: str) -> str:
    origin = next((a.origin for a in axes_in(dim)), maker)
    return identifier(origin or maker or "part")
