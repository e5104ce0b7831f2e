"""What an ONNX graph says of the heads of an attention: which part of a product a branch takes, how wide a head is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from layoutx.frozen import frozen
from layoutx.model.axes import Shape
from layoutx.model.onnx_consts import Const, small_ints
from layoutx.model.onnx_forms import attributes
from layoutx.model.onnx_nodes import asks
from layoutx.model.record import LayerRecord


@frozen
class Graph:
    """A graph with what was read of it: its nodes, who makes and reads each value, its records and their nodes."""

    nodes: Sequence[Any]
    makers: Mapping[str, int]
    readers: Mapping[str, Sequence[int]]
    records: Mapping[str, LayerRecord]
    owner: Mapping[int, str]
    fused: Mapping[int, str]
    consts: Mapping[str, Const]
    shapely: frozenset[str]
    shapes: Mapping[str, Shape]

    def reads(self, value: str) -> list[int]:
        """Who reads a value, without those that only ask for its shape or dtype."""
        return [i for i in self.readers.get(value, ()) if i < 0 or not asks(self.nodes[i], value)]

    def data(self, node: Any) -> list[str]:
        """The inputs that are neither stored nor computed from shapes."""
        return [name for name in node.input if name and name not in self.consts and name not in self.shapely]


@frozen
class Branch:
    """The way from a projection to the heads: the product's position, and the nodes after it in reverse order."""

    product: int
    path: tuple[tuple[int, str], ...]


def of_shapes(nodes: Sequence[Any], consts: Mapping[str, Const]) -> frozenset[str]:
    """Values that depend on sizes alone."""
    found: set[str] = set()
    for node in nodes:
        given = [name for name in (node.input[:1] if node.op_type == "CastLike" else node.input) if name]
        if node.op_type in ("Shape", "Size") or (given and all(n in found or n in consts for n in given)):
            found.update(node.output)
    return frozenset(found)


def place(graph: Graph, branch: Branch, width: int, many: int) -> int | None:
    """Which part of a packed product a branch takes: the first, second or third block of `width` columns."""
    for at, value in branch.path:
        node, said = graph.nodes[at], attributes(graph.nodes[at])
        if node.op_type == "Split":
            return list(node.output).index(value) if len(node.output) == many else None
        if node.op_type == "Gather":
            index, stacked = _ints(graph, node.input[1]), _stacked(graph, branch, width, many)
            return index[0] if index and len(index) == 1 and said.get("axis", 0) == 0 and stacked else None
        if node.op_type == "Slice":
            start = _ints(graph, node.input[1]) if len(node.input) > 1 else said.get("starts")
            return start[0] // width if start and len(start) == 1 and start[0] % width == 0 else None
    return None


def _stacked(graph: Graph, branch: Branch, width: int, many: int) -> bool:
    """Whether the columns are taken apart as (many, width): the blocks lie one behind the other."""
    first = [graph.nodes[at] for at, _ in branch.path if graph.nodes[at].op_type == "Reshape"][-1:]
    return bool(first) and _shape(graph, first[0].input[1])[-2:] == [many, width]


def head(graph: Graph, branch: Branch) -> int | None:
    """The size of a head: the last dimension that the nearest Reshape makes; the last but one where a turn precedes."""
    nodes = [graph.nodes[at] for at, _ in branch.path]
    for node, before in zip_longest(nodes, nodes[1:]):
        if node.op_type == "Reshape":
            shape = _shape(graph, node.input[1])[-2 if before is not None and _turns_last(before) else -1 :]
            return shape[0] if shape and shape[0] > 0 else None
    return None


def _turns_last(node: Any) -> bool:
    """Whether it exchanges the last two dimensions, and nothing else."""
    perm = attributes(node).get("perm", ()) if node.op_type == "Transpose" else ()
    return len(perm) > 1 and list(perm) == [*range(len(perm) - 2), len(perm) - 1, len(perm) - 2]


def _shape(graph: Graph, value: str) -> list[int]:
    """The last numbers of a shape, as far as they can be told; a Concat's are those of its last inputs."""
    stored = _ints(graph, value)
    at = graph.makers.get(value, -1)
    if stored is not None or at < 0:
        return stored or []
    node = graph.nodes[at]
    if node.op_type != "Concat":
        one = _number(graph, value)
        return [] if one is None else [one]
    found: list[int] = []
    for name in reversed(node.input):
        if not found and _empty(graph, name):
            continue
        more = _shape(graph, name)
        found = [*more, *found]
        if not more:
            break
    return found


def _number(graph: Graph, value: str) -> int | None:
    """One whole number that the graph computes from shapes: `embed_dim // num_heads`, of a model of any length."""
    stored = _ints(graph, value)
    at = graph.makers.get(value, -1)
    if stored is not None or at < 0:
        return stored[0] if stored is not None and len(stored) == 1 else None
    node = graph.nodes[at]
    if node.op_type in ("Cast", "Identity", "Squeeze", "Unsqueeze", "Reshape"):
        return _number(graph, node.input[0])
    if node.op_type in ("Gather", "Slice"):
        maker = graph.makers.get(node.input[0], -1)
        which = _ints(graph, node.input[1]) if len(node.input) > 1 else None
        shape = graph.shapes.get(graph.nodes[maker].input[0]) if maker >= 0 else None
        if shape is None or not which or graph.nodes[maker].op_type != "Shape":
            return None
        taken = shape[which[0] :] if node.op_type == "Slice" else [shape[which[0]]]
        return taken[0] if len(taken) == 1 else None
    if node.op_type in ("Div", "Mul"):
        one, other = (_number(graph, name) for name in node.input)
        if one is not None and other:
            return one // other if node.op_type == "Div" else one * other
    return None


def _empty(graph: Graph, value: str) -> bool:
    """Whether it is what follows the last dimension: torch's unflatten writes the sizes after it, of which none are."""
    at = graph.makers.get(value, -1)
    return at >= 0 and graph.nodes[at].op_type == "Slice" and _number(graph, value) is None


def _ints(graph: Graph, value: str) -> list[int] | None:
    return small_ints(graph.consts.get(value))
