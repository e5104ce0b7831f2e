"""Layers that work on maps: the sizes they make (None where unknown) and where their channels stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from layoutx.model.axes import Axis, Dim, State, axes_in, heir_of, size_of
from layoutx.model.graph import Node
from layoutx.model.keras_slots import stock

if TYPE_CHECKING:
    from layoutx.model.flow import Flow

Spatial = Callable[["Flow", Node, str, State], State]
Size = int | None
LETTERS = {1: "t", 2: "hw", 3: "dhw"}
PLAIN = frozenset(f"{name}{n}D" for name in ("Conv", "Convolution") for n in (1, 2, 3))


def spatial_rule(name: str) -> Spatial | None:
    """The rule of a convolution, pooling, padding, cropping or up-sampling layer; None for other classes."""
    if re.fullmatch(r"ConvLSTM[123]D", name):
        return _recurrent
    if re.fullmatch(r"Global(Max|Average)Pooling[123]D", name):
        return _global
    if re.fullmatch(
        r"(Depthwise|Separable|LocallyConnected|Atrous)?(Conv(olution)?)?[123]D(Transpose)?|(Max|Average)Pooling[123]D"
        r"|(ZeroPadding|Cropping|UpSampling)[123]D",
        name,
    ):
        return _local
    return None


def channels_first(node: Node, flow: Flow) -> bool:
    """Where this layer's channels stand; null (Keras 2.0 to 2.4) means the file's own habit."""
    config = node.config
    if config.get("dim_ordering") in ("th", "tf"):
        return bool(config["dim_ordering"] == "th")
    value = config.get("data_format")
    return value == "channels_first" if value else flow.channels_first


def as_map(flow: Flow, state: State, first: bool) -> State:
    """A tensor that a spatial layer reads: its channels stand elsewhere in a channels-first framework."""
    if state.blocked or state.spatial or len(state.last) < 2:
        return state
    order = state.last if first else (state.last[-1], *state.last[:-1])
    _turn_split(flow, state.last, order)
    return replace(state, first=order, spatial=True)


def _turn_split(flow: Flow, last: Sequence[Dim], first: Sequence[Dim]) -> None:
    """If these dims are one axis taken apart by a Reshape, that axis is ordered like the map from now on."""
    axes = [d[0] for d in last if len(d) == 1 and isinstance(d[0], Axis)]
    parents = {flow.parents[a.id].id for a in axes if a.id in flow.parents}
    if len(parents) == 1:
        parent = parents.pop()
        if set(flow.splits[parent][0]) <= set(axes):
            ids = {a.id for a in flow.splits[parent][0] if isinstance(a, Axis)}
            flow.splits[parent] = (
                flow.splits[parent][0],
                tuple(x for d in first for x in d if isinstance(x, Axis) and x.id in ids),
            )


def _parts(flow: Flow, name: str, state: State, first: bool, rank: int) -> tuple[list[Size], Dim | None]:
    """Spatial sizes and the channel dim of what comes in; of a map that nobody could follow, as its config says."""
    if state.blocked or state.lead or len(state.last) != rank + 1:
        if state.shape is None or len(state.shape) != rank + 1:
            return [None] * rank, None
        said = state.shape[1:] if first else state.shape[:-1]
        return list(said), (flow.axis("c", name, state.shape[0 if first else -1]),)
    spatial = state.last[1:] if first else state.last[:-1]
    return [size_of(d) for d in spatial], state.last[0 if first else -1]


def _global(flow: Flow, node: Node, name: str, state: State) -> State:
    first = channels_first(node, flow)
    rank = _rank(node)
    _, channel = _parts(flow, name, state, first, rank)
    if channel is None:
        channel = (flow.axis("c", name, None),)
    if not node.config.get("keepdims"):
        return State((channel,), (channel,))
    ones: list[Dim] = [(flow.axis(x, name, 1),) for x in LETTERS[rank]]
    return _map(ones, channel, first)


def _map(spatial: Sequence[Dim], channel: Dim, first: bool) -> State:
    front = (channel, *spatial)
    return State(front if first else (*spatial, channel), front, True)


def _rank(node: Node) -> int:
    found = re.search(r"([123])D", node.class_name)
    return int(found[1]) if found else 2


def _local(flow: Flow, node: Node, name: str, state: State) -> State:
    first, rank = channels_first(node, flow), _rank(node)
    doubt = state.doubt or _unmapped(flow, node, name, state, rank)
    state = as_map(flow, state, first)
    sizes, channel = _parts(flow, name, state, first, rank)
    out = [_size(node, i, rank, size) for i, size in enumerate(sizes)]
    new = "onv" in node.class_name or "LocallyConnected" in node.class_name
    kept = (state.last[1:] if first else state.last[:-1]) if not new and len(state.last) == rank + 1 else ((),) * rank
    spatial: list[Dim] = [
        (heir_of(flow.axis(x, name, s), old),) for x, s, old in zip(LETTERS[rank], out, kept, strict=True)
    ]
    count = _channels(node, None if channel is None else size_of(channel))
    if new or channel is None:
        channel = (flow.axis("c", name, count),)
        if stock(node) in PLAIN and node.config.get("groups", 1) == 1:
            flow.use(name, "out", (channel,), (channel,), count)
        doubt = ""
    return replace(_map(spatial, channel, first), doubt=doubt)


def _unmapped(flow: Flow, node: Node, name: str, state: State, rank: int) -> str:
    """Why nobody knows how the elements of a map lie that was made of something else; "" where that is known.

    A layer without weights hands it on, one that reads several channels is told of it.
    """
    if state.blocked or state.lead or flow.channels_first:
        return ""
    crossed = {flow.crossed[a.id] for d in state.last for a in axes_in(d) if a.id in flow.crossed}
    if len(crossed) == 1 and size_of(state.last[-1]) != 1:
        why = f'Reshape "{crossed.pop()}", which makes a map across other axes'
    elif len(state.last) == 1 and rank > 1 and flow.veiled.keys() & {a.id for a in axes_in(state.last[0])}:
        why = "what makes a map of a vector: " + next(flow.veiled[a.id] for a in axes_in(state.last[0]))
    else:
        return ""
    stored = flow.records.get(name)
    if stored is not None and stored.tensors:
        shape = next(iter(stored.tensors.values())).shape
        if len(shape) > 1 and shape[-1 if "Transpose" in node.class_name else -2] > 1:
            flow.note(name, f"in axis could not be followed through {why}")
        return ""
    return why


def _recurrent(flow: Flow, node: Node, name: str, state: State) -> State:
    """ConvLSTM: frames of a film become maps of `filters` channels; all of them, or the last one."""
    first, rank = channels_first(node, flow), _rank(node)
    _unmapped(flow, node, name, state, rank)
    known = not state.blocked and not state.lead and len(state.last) == rank + 2
    time: Dim = state.last[0] if known else (flow.axis("t", name, None),)
    frame = replace(state, last=state.last[1:]) if known else State(blocked=name)
    sizes, _ = _parts(flow, name, frame, first, rank)
    out = [_size(node, i, rank, size) for i, size in enumerate(sizes)]
    spatial: list[Dim] = [(flow.axis(x, name, s),) for x, s in zip(LETTERS[rank], out, strict=True)]
    made = _map(spatial, (flow.axis("c", name, _channels(node, None)),), first)
    if not node.config.get("return_sequences"):
        return made
    return State((time, *made.last), (time, *made.first), True)


def _channels(node: Node, given: Size) -> Size:
    config = node.config
    filters = config.get("filters", config.get("nb_filter"))
    if isinstance(filters, int):
        return filters
    if "Depthwise" in node.class_name and given is not None:
        return given * int(config.get("depth_multiplier") or 1)
    return given


def _each(value: Any, i: int, rank: int) -> Any:
    """Entry i of a config value that is given once or for each axis."""
    if isinstance(value, list) and len(value) == rank:
        return value[i]
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _size(node: Node, i: int, rank: int, size: Size) -> Size:
    """The size of spatial axis i after this layer; None where it cannot be known from the config."""
    if size is None:
        return None
    name, config = node.class_name, node.config
    if name.startswith("UpSampling"):
        return size * int(_each(config.get("size", config.get("length", 2)), i, rank))
    if name.startswith(("ZeroPadding", "Cropping")):
        pair = config.get("padding", config.get("cropping", 1))
        if rank == 1 and isinstance(pair, list) and len(pair) == 2:
            both = int(pair[0]) + int(pair[1])
        else:
            one = _each(pair, i, rank)
            both = int(one[0]) + int(one[1]) if isinstance(one, list) else 2 * int(one)
        return size + both if name.startswith("Zero") else size - both
    return _window(node, i, rank, size)


def _window(node: Node, i: int, rank: int, size: int) -> Size:
    """Convolution and pooling arithmetic (keras 3.15.1 ops/operation_utils.py compute_conv_output_shape)."""
    config = node.config
    kernel = config.get("kernel_size", config.get("pool_size", config.get("pool_length", config.get("filter_length"))))
    if kernel is None and "nb_row" in config:
        kernel = [config["nb_row"], config["nb_col"]]
    stride = config.get("strides", config.get("subsample", config.get("stride", config.get("subsample_length"))))
    k = _each(kernel, i, rank)
    s = _each(stride, i, rank) or (k if "Pooling" in node.class_name else 1)
    d = _each(config.get("dilation_rate", 1), i, rank) or 1
    padding = config.get("padding", config.get("border_mode", "valid"))
    if not all(isinstance(v, int) for v in (k, s, d)):
        return None
    wide = (k - 1) * d + 1
    if "Transpose" in node.class_name or node.class_name.startswith("Deconvolution"):
        extra = _each(config.get("output_padding"), i, rank)
        return _transposed(size, wide, s, padding, extra)
    if padding in ("same", "causal"):
        return -(-size // s)
    return (size - wide) // s + 1 if padding == "valid" else None


def _transposed(size: int, wide: int, stride: int, padding: str, extra: Any) -> Size:
    """keras 3.15.1 backend/common/backend_utils.py compute_conv_transpose_output_shape."""
    if extra is None:
        return size * stride + max(wide - stride, 0) if padding == "valid" else size * stride
    pad = wide // 2 if padding == "same" else 0
    return (size - 1) * stride + wide - 2 * pad + int(extra)
