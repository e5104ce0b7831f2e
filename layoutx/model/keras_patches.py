"""Patches of an image: windows side by side whose positions and channels are one vector of features each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layoutx.model.axes import Axis, Dim, Item, State, axes_in, size_of
from layoutx.model.graph import MOVED, Node

if TYPE_CHECKING:
    from layoutx.model.flow import Flow


def patched(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """keras.ops.image.extract_patches: windows side by side, all positions of one and its channels as features."""
    config = node.config
    size, strides = (_pair(config.get(key)) for key in ("size", "strides"))
    plain = config.get("data_format") in (None, "channels_last") and config.get("dilation_rate") in (None, 1, [1, 1])
    if not plain or not size or (strides or size) != size or not _image(flow, states):
        return _lost(node, states)
    state = states[0]
    same = config.get("padding") == "same"
    whole = [n + k - 1 if same and n else n for n, k in zip(map(size_of, state.last[:2]), size, strict=True)]
    many: list[Dim] = [(flow.axis(x, name, n // k if n else None),) for x, n, k in zip("hw", whole, size, strict=True)]
    window = tuple(flow.axis(letter, name, k) for letter, k in zip(("ph", "pw"), size, strict=True))
    return [_joined(flow, node, [*many, (*window, *state.last[-1])], state.last[-1])]


def rearranged(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """A layer of the user's own that makes features of the channels and some of the positions, found by a run."""
    if not _image(flow, states):
        return _lost(node, states)
    old, parts = states[0].last, [[tuple(part) for part in dim] for dim in node.config[MOVED]]
    cut: dict[tuple[int, ...], Item] = {}
    for axis, letters in enumerate(("h", "w", "c")):
        own = sorted((part for dim in parts for part in dim if part[0] == axis), key=lambda part: -part[1])
        made = [f"{'p' * at}{letters}" for at in range(len(own))]
        one = len(own) == 1
        cut |= {p: old[axis][0] if one else flow.axis(x, name, p[2]) for p, x in zip(own, made, strict=True)}
    dims = [tuple(cut[part] for part in dim) or (flow.axis("d", name, 1),) for dim in parts]
    channel = old[-1]
    return [_joined(flow, node, dims, channel)] if channel[0] in cut.values() else _lost(node, states)


def _joined(flow: Flow, node: Node, dims: Sequence[Dim], channel: Dim) -> State:
    """Dims of which one holds the channels with positions, elsewhere the channels first."""
    first = tuple((*channel, *(x for x in dim if x not in channel)) if channel[0] in dim else dim for dim in dims)
    (mixed,) = (dim for dim in dims if channel[0] in dim)
    flow.joined[frozenset(a.id for a in axes_in(mixed) if a.size != 1)] = f'patches of "{node.name}"'
    return State(tuple(dims), first)


def _image(flow: Flow, states: Sequence[State]) -> bool:
    """Whether one map of two sides is given, of plain axes, its channels last."""
    if len(states) != 1 or flow.channels_first:
        return False
    state = states[0]
    plain = len(state.last) == 3 and all(len(dim) == 1 and isinstance(dim[0], Axis) for dim in state.last)
    return plain and state.spatial and not (state.blocked or state.lead or state.doubt)


def _lost(node: Node, states: Sequence[State]) -> list[State]:
    return [next((s for s in states if s.blocked), State(blocked=f'{node.class_name} "{node.name}"'))]


def _pair(value: object) -> list[int]:
    """Two sizes, or one for both; [] of anything else."""
    both = [value, value] if isinstance(value, int) else list(value) if isinstance(value, (list, tuple)) else []
    return [n for n in both if isinstance(n, int)] if len(both) == 2 else []
