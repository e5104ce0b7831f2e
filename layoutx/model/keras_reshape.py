"""Flatten, Reshape and Permute: the same elements under other dimensions, in both orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from layoutx.model.axes import Axis, Dim, Item, State, axes_in, size_of
from layoutx.model.graph import Node
from layoutx.model.keras_uses import partner

if TYPE_CHECKING:
    from layoutx.model.flow import Flow


def _stuck(node: Node, states: Sequence[State]) -> State | None:
    here = f'{node.class_name} "{node.name}"'
    if not states:
        return State(blocked=here)
    state = states[0]
    if state.blocked or state.lead:  # as a doubt too: from here on even a norm's channels may be in another order
        why = state.blocked or state.lead
        return State(blocked=why, doubt=why)
    return None


def flatten(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """All axes in one dimension. With data_format channels_first Keras first moves the channels to the end
    (keras 3.15.1 Flatten.call, tf_keras 2.21 Flatten.call), so its rows are channels-last all the same."""
    stuck = _stuck(node, states)
    if stuck is not None:
        return [stuck]
    last, first = states[0].last, states[0].first
    if node.config.get("data_format") == "channels_first" and len(last) > 1:
        last = (*last[1:], last[0])
    return [replace(states[0], last=(_join(last),), first=(_join(first),), spatial=False)]


def _join(dims: Sequence[Dim]) -> Dim:
    return tuple(item for dim in dims for item in dim)


def permute(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """Channels that stay last leave a map; any other order is one that the target's author writes down as well."""
    stuck = _stuck(node, states)
    dims = node.config.get("dims")
    if stuck is not None or not isinstance(dims, list):
        return [stuck or State(blocked=f'Permute "{node.name}"')]
    state = states[0]
    if sorted(dims) != list(range(1, len(state.last) + 1)):
        return [State(blocked=f'Permute "{node.name}"')]
    last = tuple(state.last[d - 1] for d in dims)
    if state.spatial and dims[-1] == len(dims) and not flow.channels_first:
        return [replace(state, last=last, first=(last[-1], *last[:-1]))]
    return [replace(state, last=last, first=last, spatial=False)]


def reshape(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """A vector becomes a map (its axis is taken apart), a map a vector or a sequence; anything else blocks."""
    stuck = _stuck(node, states)
    target = node.config.get("target_shape")
    if stuck is not None or not isinstance(target, list):
        return [stuck or State(blocked=f'Reshape "{node.name}"')]
    state, blocked = states[0], [State(blocked=f'Reshape "{node.name}"')]
    if len(target) == 1:
        return [replace(state, last=(_join(state.last),), first=(_join(state.first),), spatial=False)]
    sizes = _target(target, size_of(_join(state.last)))
    made = (
        _regroup(flow, name, list(_join(state.last)), sizes)
        if sizes is not None
        else _from_the_end(flow, name, list(_join(state.last)), target)
    )
    if made is None and sizes is None:
        return blocked
    if made is None:
        assert sizes is not None
        return [_fresh(flow, name, sizes)] if state.last == state.first and not state.doubt else blocked
    if len(state.last) == 1:
        return [_from_vector(flow, state, made)]
    whole = state.last[-1] == made[-1] or (flow.channels_first and state.last[0] == made[0])
    if not state.spatial and state.last != state.first:
        other = _as_before(state, made)
        return [replace(state, last=made, first=other)] if other is not None else blocked
    if not state.spatial or whole:
        spatial = state.spatial and len(made) > 2
        first = (made[-1], *made[:-1]) if spatial and not flow.channels_first else made
        return [replace(state, last=made, first=first, spatial=spatial)]
    doubt = f'Reshape "{node.name}" of a map'
    turned = None if flow.channels_first else _channels_in_front(flow, state, made, doubt)
    return [replace(state, last=made, first=turned or made, spatial=False, doubt="" if turned else doubt)]


def _as_before(state: State, made: Sequence[Dim]) -> tuple[Dim, ...] | None:
    """The same dimensions elsewhere, where each is made of old ones that stay whole, or of length one."""
    waiting, first = list(state.last), list[Dim]()
    for dim in made:
        parts, other = list[Item](), list[Item]()
        while waiting and len(parts) < len(dim) and tuple(parts) + waiting[0] == dim[: len(parts) + len(waiting[0])]:
            parts += waiting[0]
            other += partner(state, waiting.pop(0))
        if tuple(parts) != dim and size_of(dim) != 1:
            return None
        first.append(tuple(other) if parts else dim)
    return tuple(first) if all(size_of(dim) == 1 for dim in waiting) else None


def _channels_in_front(flow: Flow, state: State, made: Sequence[Dim], where: str) -> tuple[Dim, ...] | None:
    """A map whose positions are read one after the other, the rest with its channels: (w, (h c)), elsewhere (w, (c h)).

    None where the channels are not the last of a map of plain axes.
    """
    channel = state.last[-1]
    if any(len(dim) != 1 or not isinstance(dim[0], Axis) for dim in state.last):
        return None
    first = []
    for dim in made:
        rest = tuple(item for item in dim if item not in channel)
        if len(rest) < len(dim) and rest:
            flow.joined[frozenset(a.id for a in axes_in(dim) if a.size != 1)] = where
        first.append((*(channel if len(rest) < len(dim) else ()), *rest))
    return tuple(first)


def _from_the_end(flow: Flow, name: str, items: list[Item], target: Sequence[int | None]) -> tuple[Dim, ...] | None:
    """Dimensions behind a first one of unknown length, (-1, f * c) of (t, f, c): dealt out from the last axis on."""
    if len(target) < 2 or target[0] not in (-1, None) or not all(isinstance(n, int) and n > 0 for n in target[1:]):
        return None
    rest, out = list(items), list[Dim]()
    for size in reversed(target[1:]):
        dim: list[Item] = []
        while rest and (have := size_of(tuple(dim)) or 0) < (size or 0):
            if (width := size_of((rest[-1],))) is None or have * width > (size or 0):
                return None
            dim.insert(0, rest.pop())
        if size_of(tuple(dim)) != size:
            return None
        out.insert(0, tuple(dim) or (flow.axis("d", name, 1),))
    return (tuple(rest), *out) if rest else None


def _fresh(flow: Flow, name: str, sizes: Sequence[int]) -> State:
    """Dims that cut across the old axes: new axes, for both orders agree and so nothing is lost.

    But for a layer that reads a map of them: of the same elements a channels-first framework makes another one.
    """
    dims: tuple[Dim, ...] = tuple((flow.axis(f"d{i}", name, s),) for i, s in enumerate(sizes))
    if len(sizes) > 2 and sizes[-1] > 1 and max(sizes[:-1]) > 1:
        flow.crossed |= {axis.id: name for dim in dims for axis in axes_in(dim)}
    return State(dims, dims)


def _target(target: Sequence[int | None], total: int | None) -> list[int] | None:
    """The target sizes with -1 solved; None where the total is unknown."""
    known = [t for t in target if isinstance(t, int) and t > 0]
    product = prod(known)
    if total is None:
        return known if len(known) == len(target) else None
    if len(known) < len(target) - 1 or total % max(product, 1) or (len(known) == len(target) and product != total):
        return None
    return [t if isinstance(t, int) and t > 0 else total // product for t in target]


def _regroup(flow: Flow, name: str, items: list[Item], sizes: Sequence[int]) -> tuple[Dim, ...] | None:
    """Deals the axes out to new dimensions in order; an axis may be taken apart once, into whole new dimensions."""
    letters = {2: "tc", 3: "hwc", 4: "dhwc"}.get(len(sizes), "")
    if len(items) == 1 and isinstance(items[0], Axis):
        return _split(flow, name, items[0], sizes, letters)
    out: list[Dim] = []
    rest = list(items)
    for i, size in enumerate(sizes):
        dim: list[Item] = []
        have = 1
        while have < size and rest:
            width = size_of((rest[0],))
            if width is None:
                return None
            have *= width
            dim.append(rest.pop(0))
        while rest and size_of((rest[0],)) == 1 and (i == len(sizes) - 1):
            rest.pop(0)
        if have != size:
            return None
        out.append(tuple(dim) or ((flow.axis(letters[i] if letters else f"d{i}", name, 1)),))
    return tuple(out) if not [r for r in rest if size_of((r,)) != 1] else None


def _split(flow: Flow, name: str, axis: Axis, sizes: Sequence[int], letters: str) -> tuple[Dim, ...] | None:
    if axis.size is not None and prod(sizes) != axis.size:
        return None
    parts = [flow.axis(letters[i] if letters else f"d{i}", name, s) for i, s in enumerate(sizes)]
    if axis.id in flow.splits:  # taken apart twice: the second time must be the same cut
        old = list(axes_in(flow.splits[axis.id][0]))
        return tuple((a,) for a in old) if [a.size for a in old] == list(sizes) else None
    flow.splits[axis.id] = (tuple(parts), tuple(parts))
    flow.parents.update({p.id: axis for p in parts})
    return tuple((p,) for p in parts)


def _from_vector(flow: Flow, state: State, made: tuple[Dim, ...]) -> State:
    """Three and more dimensions are a map: a channels-first target takes its channels first."""
    if len(made) < 3 or flow.channels_first:
        return replace(state, last=made, first=made, spatial=False)
    first = (made[-1], *made[:-1])
    items = {x for d in made for x in d}
    for parent, (last, _) in list(flow.splits.items()):
        if set(last) == items:
            flow.splits[parent] = (last, tuple(x for d in first for x in d))
    return replace(state, last=made, first=first, spatial=True)
