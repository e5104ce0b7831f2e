"""Which axis of a layer's weights its input meets: what Flatten and Concatenate built is remembered for that axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from layoutx.files.store import Tensor
from layoutx.model.axes import Axis, Dim, State, axes_in, same_order, size_of
from layoutx.model.graph import Node
from layoutx.model.keras_slots import RNNS, stock
from layoutx.model.splits import note_readers

if TYPE_CHECKING:
    from layoutx.model.flow import Flow

FEATURES = {"Dense": "input", "EinsumDense": "input", **dict.fromkeys(RNNS, "input")}
NORMS = {
    "BatchNormalization": "channel",
    "LayerNormalization": "features",
    "RMSNormalization": "features",
    "PReLU": "channel",
    "GroupNormalization": "channel",
}
CONVS = tuple(f"Conv{n}D{kind}" for n in (1, 2, 3) for kind in ("", "Transpose"))
CONVS += tuple(f"Convolution{n}D" for n in (1, 2, 3))
UNFOLLOWED = "input axis could not be followed through"


def consume(flow: Flow, node: Node, record: str, states: Sequence[State], keywords: Sequence[str]) -> None:
    """Remembers what the record's input axes are made of, for the classes whose weights carry such an axis."""
    stored = flow.records.get(record)
    if not states or stored is None or not stored.tensors:
        return
    kind = _kind(node)
    if kind in ("MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention"):
        _attention_uses(flow, record, states, keywords)
    elif kind in FEATURES:
        tensor = next(iter(stored.tensors.values()))
        total = tensor.shape[0] if tensor.shape and kind != "EinsumDense" else None
        _feature_use(flow, record, FEATURES[kind], states[0], total)
    elif kind in NORMS:
        _norm_use(flow, node, record, kind, states[0])
    elif kind in CONVS and not states[0].blocked and states[0].last:
        first = node.config.get("data_format") == "channels_first" or node.config.get("dim_ordering") == "th"
        flow.see(record, "in", states[0].last[0 if first else -1])
        _channel_use(flow, node, record, states[0], states[0].last[0 if first else -1])
    elif not stored.form:  # a class of the user's own, whose matrices may multiply what it is given
        for state in states:
            _feature_use(flow, record, "row", state, _rows(stored.tensors.values(), state))


def _rows(tensors: Iterable[Tensor], state: State) -> int | None:
    """How many features a class of the user's own reads, where one of its matrices has as many rows."""
    size = state.vector if state.blocked else size_of(state.last[-1]) if state.last else None
    found = [tensor.shape[-2] for tensor in tensors if len(tensor.shape) > 1]
    return size if size in found or not found else found[0]


def _kind(node: Node) -> str:
    kind = stock(node)
    if kind == "Bidirectional":
        inner = node.part("layer")
        return _kind(inner) if inner is not None else ""
    return "LSTM" if kind == "RNN" else kind


def _feature_use(flow: Flow, record: str, axis: str, state: State, total: int | None) -> None:
    if state.blocked:
        if None in (state.vector, total) or state.vector == total:  # of another size: not the vector passed on
            flow.note(record, f"{UNFOLLOWED} {state.blocked}")
        return
    if state.doubt:
        flow.note(record, f"{UNFOLLOWED} {state.doubt}")
        return
    if state.last:
        last = state.last[-1]
        flow.use(record, axis, (last,), (partner(state, last),), total)


def _channel_use(flow: Flow, node: Node, record: str, state: State, dim: Dim) -> None:
    """Channels of a convolution that are a map's channels and positions: the features of each time step."""
    other = partner(state, dim)
    if state.doubt:
        flow.note(record, f"in axis could not be followed through {state.doubt}")
    elif not same_order(dim, other):
        if node.config.get("groups", 1) != 1:
            flow.note(record, "in axis could not be followed: the groups mix channels and positions of a map")
            return
        flow.use(record, "in", (dim,), (other,), size_of(dim))


def partner(state: State, dim: Dim) -> Dim:
    """The same axes where channels come first; a map's dims are the same there, only elsewhere."""
    return next((d for d in state.first if d is dim or _ids(d) == _ids(dim)), dim)


def _ids(dim: Dim) -> set[int]:
    return {axis.id for axis in axes_in(dim)}


def _attention_uses(flow: Flow, record: str, states: Sequence[State], keywords: Sequence[str]) -> None:
    """query, value, key in the order of the arguments; key is the value where it is not given (Keras)."""
    named = dict(zip(keywords, states, strict=False))
    plain = [s for s, k in zip(states, keywords, strict=False) if k not in ("value", "key", "query")]
    query = named.get("query", plain[0] if plain else states[0])
    value = named.get("value", plain[1] if len(plain) > 1 else query)
    key = named.get("key", plain[2] if len(plain) > 2 else value)
    for axis, state in (("embed_q", query), ("embed_k", key), ("embed_v", value)):
        _feature_use(flow, record, axis, state, None)


def _norm_use(flow: Flow, node: Node, record: str, kind: str, state: State) -> None:
    if state.blocked or state.doubt:
        if state.doubt or kind == "LayerNormalization":
            flow.note(record, f"{UNFOLLOWED} {state.doubt or state.blocked}")
        return
    axes = node.config.get("axis", -1)
    rank = len(state.last)
    if kind == "PReLU":
        axes = -1
    wanted = sorted({(a - 1 if a > 0 else a) % rank for a in (axes if isinstance(axes, list) else [axes]) if rank})
    dims = [state.last[i] for i in wanted]
    partners = [d for d in state.first if any(partner(state, w) == d for w in dims)]
    if kind == "GroupNormalization":
        note_readers(flow, [state])
        if any(len(d) > 1 for d in dims):
            flow.note(record, "the groups of GroupNormalization after Flatten mix channels of a map")
        return
    sizes = [size_of(d) for d in dims]
    stored = next(iter(flow.records[record].tensors.values()))
    total = stored.size if len(dims) == 1 else None
    if None in sizes and len(dims) > 1:
        shape = [n for n in stored.shape if n != 1] if len(stored.shape) != len(dims) else list(stored.shape)
        dims, partners = _with_sizes(dims, partners, shape)
    flow.use(record, NORMS[kind], dims, partners if len(partners) == len(dims) else dims, total)


def _with_sizes(dims: list[Dim], partners: list[Dim], shape: list[int]) -> tuple[list[Dim], list[Dim]]:
    """Unknown sizes of single axes, taken from the shape of the weights."""
    if len(shape) != len(dims):
        return dims, partners
    new = {
        d: ((replace(d[0], size=n),) if len(d) == 1 and isinstance(d[0], Axis) else d)
        for d, n in zip(dims, shape, strict=True)
    }
    return [new[d] for d in dims], [new.get(p, p) for p in partners]
