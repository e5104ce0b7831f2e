"""The model's own inputs: their shapes as a Keras config says them, and what their axes are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layoutx.model.axes import Dim, State
from layoutx.model.graph import Graph, Node
from layoutx.model.keras_slots import stock

if TYPE_CHECKING:
    from layoutx.model.flow import Flow


def first_shape(graph: Graph) -> tuple[int | None, ...] | None:
    """The input shape of a Sequential: its first layer states it, however deep that layer lies."""
    node = graph.layers[0] if graph.layers else None
    while node is not None and node.shape is None and node.inner is not None and node.inner.layers:
        node = node.inner.layers[0]
    return shape_of(node) if node is not None else None


def shape_of(node: Node) -> tuple[int | None, ...] | None:
    """The shape, without batch, that a layer says it is given."""
    if node.shape is not None:
        return node.shape
    if isinstance(node.config.get("input_shape"), list):
        return tuple(node.config["input_shape"])
    if "input_dim" in node.config and stock(node) == "Dense":
        return (node.config["input_dim"],)
    return None


def input_state(flow: Flow, shape: Sequence[int | None] | None, origin: str) -> State:
    """A model input: of rank 3 and more (without batch) a map, else plain features or a sequence."""
    if shape is None:
        plain: Dim = (flow.axis("n", origin, None),)
        return State((plain,), (plain,), lead="the model's input, whose shape the file does not say")
    letters = {0: "", 1: "n", 2: "tf", 3: "hwc", 4: "dhwc"}.get(len(shape), "")
    names = list(letters) or [f"d{i}" for i in range(len(shape))]
    if len(shape) >= 3 and flow.channels_first:
        names = [names[-1], *names[:-1]]
    dims = tuple((flow.axis(x, origin, s),) for x, s in zip(names, shape, strict=True))
    spatial = len(shape) >= 3
    first = (dims[-1], *dims[:-1]) if spatial and not flow.channels_first else dims
    return State(dims, first, spatial)
