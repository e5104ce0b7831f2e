"""What each Keras layer does to the axes of a tensor: kept, made anew, flattened, taken apart, laid end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from layoutx.model.axes import Dim, State, same_order, size_of
from layoutx.model.bare import NUMBERS, alone, called_scale, called_table
from layoutx.model.graph import MOVED, Node
from layoutx.model.keras_leaves import snake
from layoutx.model.keras_merged import SUMS, concatenated, merged, summed
from layoutx.model.keras_ops import (
    ELEMENTWISE,
    REDUCED,
    Rule,
    attended,
    blocked,
    einsummed,
    padded,
    reshaped,
    transposed,
    widened,
)
from layoutx.model.keras_patches import rearranged
from layoutx.model.keras_reshape import flatten, permute, reshape
from layoutx.model.keras_slots import RNNS, UNTOUCHED, stock
from layoutx.model.keras_spatial import spatial_rule

if TYPE_CHECKING:
    from layoutx.model.flow import Flow
    from layoutx.model.record import LayerRecord

CODE = "of which only its code tells what it makes"

SAME = UNTOUCHED | frozenset(
    [
        "PReLU",
        "BatchNormalization",
        "LayerNormalization",
        "GroupNormalization",
        "RMSNormalization",
        "Normalization",
    ]
)


def rule_of(node: Node) -> Rule:
    """The rule of a layer's class; anything unknown blocks."""
    return rearranged if MOVED in node.config else _rule(stock(node), _operation(node))


@lru_cache(1024)
def _rule(name: str, operation: str) -> Rule:
    if operation in ELEMENTWISE:
        return summed
    if operation in OPERATIONS:
        return OPERATIONS[operation]
    if name in SAME:
        return _same
    if name in SUMS:
        return summed
    spatial = spatial_rule(name)
    if spatial is not None:
        return lambda flow, node, origin, states, _: (
            [spatial(flow, node, origin, states[0])] if states else blocked(node)
        )
    return RULES.get(name, _unknown)


def follows(node: Node) -> bool:
    """Whether it is known what a layer does to the axes of its inputs."""
    own = node.custom and (called_table(node.class_name) or called_scale(node.class_name))
    return own or rule_of(node) is not _unknown


def _operation(node: Node) -> str:
    """The operation of a Keras 3 node or of a TFOpLambda ("math.multiply"), "" for a layer."""
    if node.class_name == "TFOpLambda":
        return str(node.config.get("function", "")).rsplit(".", 1)[-1]
    return snake(node.class_name) if node.operation else ""


def untold(node: Node) -> State:
    """What a layer makes that no config describes: its code alone tells."""
    told = "" if node.operation or (stock(node) and stock(node) != "Lambda") else f", {CODE}"
    return State(blocked=f'{node.class_name} "{node.name}"{told}')


def _unknown(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """A layer of which nothing is known; from vectors that hold no map it cannot make a flattened map.

    A class that holds a table of positions and nothing else adds it, or multiplies by factors: the axes stay. Of one
    that holds several (a class token, positions) the features do, where they are no flattened map.
    """
    if len(states) == 1 and name in flow.records and _spread(flow.records[name]):
        return list(states)
    if len(states) == 1 and name in flow.records and _tables(flow.records[name]) and _settled(states[0]):
        return list(states)
    if not states or any(s.blocked or len(s.last) != 1 for s in states):
        return [untold(node)]
    if all(same_order(s.last[0], s.first[0]) and not s.doubt for s in states):
        axis = flow.axis("n", name, None)
        flow.veiled[axis.id] = f'{node.class_name} "{node.name}"'
        return [State(((axis,),), ((axis,),))]
    return [replace(untold(node), vector=size_of(states[0].last[0]) if len(states) == 1 else None)]


def _settled(state: State) -> bool:
    """Whether the features of a sequence are one axis, which no framework has in another order."""
    known = not state.blocked and not state.spatial and len(state.last) == 2
    return known and len(state.last[-1]) == 1 and same_order(state.last[-1], state.first[-1])


def _tables(record: LayerRecord) -> bool:
    """Whether each of a layer's weights is called as a table is."""
    each = [replace(record, name=f"{record.name}/{own}", tensors={own: t}) for own, t in record.tensors.items()]
    return not record.form and bool(each) and all(map(_spread, each))


def _spread(record: LayerRecord) -> bool:
    """Whether a layer's one weight is called as what is added to all that goes through, or multiplied with it."""
    found = alone(record, "keras")
    return found is not record and found.form not in NUMBERS.values()


def _same(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    return [states[0]] if states else blocked(node)


def _dense(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """Dense, Embedding and the like: the last axis is new, those before it stay as Keras has them."""
    size = node.config.get("units", node.config.get("output_dim"))
    new: Dim = (flow.axis("n", name, size if isinstance(size, int) else None),)
    kind = stock(node)
    if kind == "Dense":
        flow.use(name, "output", (new,), (new,), size_of(new))
    state = states[0] if states else blocked(node)[0]
    if state.blocked:  # the features are known again, the axes before them are not
        return [State((new,), (new,), lead=state.blocked)]
    lead = state.last if kind == "Embedding" else state.last[:-1]
    on_map = f'Dense "{node.name}" on a map' if state.spatial and len(lead) > 1 else ""
    dims = (*lead, new)
    return [State(dims, dims, doubt=state.doubt, lead=state.lead or on_map)]


def _table(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """A ReversibleEmbedding as an Embedding; called the other way round it reads features."""
    plain = len(states) == 1 and not states[0].blocked and len(states[0].last) < 2
    return _dense(flow, replace(node, class_name="Embedding"), name, states, labels) if plain else blocked(node)


def _rnn(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    config = node.config
    both = 1
    if stock(node) == "Bidirectional":
        inner = node.part("layer")
        config = inner.config if inner is not None else config
        both = 2 if node.config.get("merge_mode", "concat") == "concat" else 1
    cells = [part for key, part in node.parts if key.startswith("cell")]
    units = config.get("units", config.get("output_dim", cells[-1].config.get("units") if cells else None))
    new = flow.axis("n", name, units * both if isinstance(units, int) else None)
    state = states[0] if states else State()
    time = state.last[0] if state.last and not state.blocked and not state.lead else (flow.axis("t", name, None),)
    out = (time, (new,)) if config.get("return_sequences") else ((new,),)
    plain: list[Dim] = [(flow.axis("n", name, units if isinstance(units, int) else None),) for _ in range(4)]
    more = [State((d,), (d,)) for d in plain]
    return [State(out, out), *(more if config.get("return_state") else [])]


def _attention(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    """The query's axes with new features."""
    state = states[0] if states else blocked(node)[0]
    if state.blocked:
        return [state]
    shape = node.config.get("output_shape")
    size = shape if isinstance(shape, int) else None if shape else size_of(state.last[-1])
    dims: tuple[Dim, ...] = (*state.last[:-1], (flow.axis("n", name, size),))
    return [State(dims, dims, lead=state.lead)]


def _einsum(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    shape = node.config.get("output_shape")
    shape = [shape] if isinstance(shape, int) else shape if isinstance(shape, list) else None
    if shape is None:
        return blocked(node)
    dims = tuple((flow.axis("n", name, s),) for s in shape)
    on_map = bool(states) and states[0].spatial and len(states[0].last) > 2
    return [State(dims, dims, lead=f'EinsumDense "{node.name}" on a map' if on_map and len(dims) > 2 else "")]


def _repeat(flow: Flow, node: Node, name: str, states: Sequence[State], labels: Sequence[str]) -> list[State]:
    if not states or states[0].blocked:
        return list(states[:1]) or blocked(node)
    time = (flow.axis("t", name, node.config.get("n")),)
    return [replace(states[0], last=(time, *states[0].last), first=(time, *states[0].first))]


OPERATIONS: dict[str, Rule] = {
    **REDUCED,
    "softmax": _same,
    "concatenate": concatenated,
    "reshape": reshaped,
    "transpose": transposed,
    "einsum": einsummed,
    "expand_dims": widened,
    "dot_product_attention": attended,
    "pad": padded,
}
RULES: dict[str, Rule] = {
    "Flatten": flatten,
    "Reshape": reshape,
    "Permute": permute,
    "Concatenate": concatenated,
    "Merge": merged,
    "RepeatVector": _repeat,
    "Dense": _dense,
    "Embedding": _dense,
    "ReversibleEmbedding": _table,
    "EinsumDense": _einsum,
    "RNN": _rnn,
    "Bidirectional": _rnn,
    "MultiHeadAttention": _attention,
    "GroupedQueryAttention": _attention,
    "GroupQueryAttention": _attention,
    "Attention": _attention,
    "AdditiveAttention": _attention,
    **dict.fromkeys(RNNS, _rnn),
}
