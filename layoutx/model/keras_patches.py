"""Patches of an image: windows side by side whose positions and channels are one vector of features each."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from layoutx.model.axes import Axis, Dim, Item, State, axes_in, size_of
from layoutx.model.graph import MOVED, Node
from layoutx.model.splits import deal

CHANNEL = 2  # the axis of an image's channels, behind the batch
Part = tuple[int, ...]  # axis of the input; how far one step goes in it; how many steps, 0 where nobody knows

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
    if sum(part[0] == CHANNEL for dim in parts for part in dim) > 1:
        return _dealt(flow, node, name, states[0], parts)
    cut: dict[tuple[int, ...], Item] = {}
    for axis, letters in enumerate(("h", "w", "c")):
        own = sorted((part for dim in parts for part in dim if part[0] == axis), key=lambda part: -part[1])
        made = [f"{'p' * at}{letters}" for at in range(len(own))]
        one = len(own) == 1
        cut |= {p: old[axis][0] if one else flow.axis(x, name, p[2]) for p, x in zip(own, made, strict=True)}
    dims = [tuple(cut[part] for part in dim) or (flow.axis("d", name, 1),) for dim in parts]
    channel = old[-1]
    return [_joined(flow, node, dims, channel)] if channel[0] in cut.values() else _lost(node, states)


def depth_to_space(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """keras.ops.nn.depth_to_space: channels as rows, columns and channels of a block, these the fastest."""
    block, last = node.config.get("block_size"), node.config.get("data_format") != "channels_first"
    many = size_of(states[0].last[-1]) if _image(flow, states) else None
    if not isinstance(block, int) or many is None or many % block**2 or not last:
        return _lost(node, states)
    new = many // block**2
    sides: list[list[Part]] = [[(i, 1, size_of(states[0].last[i]) or 0)] for i in range(2)]
    dealt: list[Part] = [(CHANNEL, block * new, block), (CHANNEL, new, block)]
    parts = [[*side, part] for side, part in zip(sides, dealt, strict=True)]
    return _dealt(flow, node, name, states[0], [*parts, [(CHANNEL, 1, new)]])


def _dealt(flow: Flow, node: Node, name: str, state: State, parts: Sequence[Sequence[Part]]) -> list[State]:
    """Channels as finer positions and fewer channels; torch's pixel_shuffle has these channels the slowest."""
    channel = state.last[-1][0]
    plain = all([part[0] for part in dim[:1]] == [at] for at, dim in enumerate(parts[:2]))
    inner = [part for dim in parts for part in dim if part[0] == CHANNEL]
    if not plain or not isinstance(channel, Axis) or channel.id in flow.splits:
        return _lost(node, [state])
    if len(parts) != 3 or len(inner) != sum(map(len, parts)) - 2 or len(parts[2]) > 1:
        return _lost(node, [state])
    made = {part: flow.axis("c" if part in parts[2] else "p", name, part[2]) for part in inner}
    last = tuple(made[part] for part in sorted(inner, key=lambda part: -part[1]))
    new = tuple(made[part] for part in parts[2]) or (flow.axis("c", name, 1),)
    fine = tuple(made[part] for dim in parts[:2] for part in dim if part in made)
    deal(flow, (channel,), last, (*(axis for axis in new if axis in last), *fine), f'{node.class_name} "{node.name}"')
    many = [prod(part[2] for part in dim) or None for dim in parts[:2]]
    sides: list[Dim] = [(flow.axis(x, name, n),) for x, n in zip("hw", many, strict=True)]
    return [State((*sides, new), (new, *sides), True)]


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
