"""Norms that an exporter wrote out as several operators: layer, RMS and group norms, as one layer each.

torch's exporters do so before opset 17 (LayerNorm), before 21 (GroupNorm) and 23 (RMSNorm), and models that spell a
norm out themselves in any opset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.model.onnx_consts import Const
from layoutx.model.onnx_nodes import DOMAINS, Reading, asks, attributes, flat, noted, short

PASSES = ("Cast", "Identity")
MOST = 9  # of those in a row
Shape = tuple[int | None, ...] | None


@frozen
class Norm:
    """A norm, and the positions of all of its nodes in order: the first reads what is normalised, the last gives it."""

    reading: Reading
    span: tuple[int, ...]


@frozen
class _Root:
    """1 / sqrt(variance + eps): the value that it is the variance of, over which axes, and whether a mean was taken."""

    of: str
    axes: tuple[int, ...]
    centred: bool
    eps: float


def norms(
    nodes: Sequence[Any],
    consts: Mapping[str, Const],
    readers: Mapping[str, Sequence[int]],
    shapes: Mapping[str, Shape],
) -> list[Norm]:
    """Every norm whose scale is stored: where one number for each feature multiplies what was normalised."""
    found = []
    makers: dict[str, int] = {}
    for i, node in enumerate(nodes):
        if node.op_type == "Mul" and node.domain in DOMAINS:
            one = _Search(nodes, makers, consts, readers, shapes, []).norm(i)
            if one is not None:
                found.append(one)
        makers.update(dict.fromkeys(node.output, i))
    return found


@frozen
class _Search:
    """One search, from a scale back to what is normalised; `seen` are the nodes on the way."""

    nodes: Sequence[Any]
    makers: Mapping[str, int]
    consts: Mapping[str, Const]
    readers: Mapping[str, Sequence[int]]
    shapes: Mapping[str, Shape]
    seen: list[int]

    def norm(self, at: int) -> Norm | None:
        """The norm whose scale this Mul multiplies with; None where it is something else."""
        scale, value = self._weight(at)
        if scale is None:
            return None
        self.seen.append(at)
        found = self._spread(value) or self._grouped(value)
        if found is None:
            return None
        of, axes, op, config = found
        rank = len(axes) or self._rank(of, scale)
        if (scale := _flattened(scale, rank, op)) is None:
            return None
        bias = self._bias(at, scale, rank, op)
        span = tuple(sorted(set(self.seen)))
        if not self._alone(span) or of not in self.nodes[span[0]].input:
            return None
        names = {"LayerNormalization": ("Scale", "B"), "GroupNormalization": ("scale", "bias")}.get(op, ("scale", ""))
        if (bias is not None and not names[1]) or (bias is None and op == "GroupNormalization"):
            return None
        if op == "GroupNormalization" and scale.size % config["num_groups"]:
            return None
        tensors = {names[0]: scale} if bias is None else {names[0]: scale, names[1]: bias}
        return Norm(noted(Reading(f"onnx.{op}", config, tensors)), span)

    def _weight(self, at: int) -> tuple[Tensor | None, str]:
        """The stored factor of a Mul or the stored summand of an Add, and the input that is data."""
        inputs = list(self.nodes[at].input)
        held = [name for name in inputs if name in self.consts]
        data = [name for name in inputs if name not in self.consts]
        if len(held) != 1 or len(data) != 1 or not self.consts[held[0]].floats:
            return None, ""
        return self.consts[held[0]].value, data[0]

    def _bias(self, at: int, scale: Tensor, rank: int, op: str) -> Tensor | None:
        """What the node after it adds, if that is as many numbers in the same place."""
        after = self._reads(self.nodes[at].output[0])
        if len(after) != 1 or after[0] < 0 or self.nodes[after[0]].op_type != "Add":
            return None
        found, _ = self._weight(after[0])
        found = None if found is None else _flattened(found, rank, op)
        if found is None or found.shape != scale.shape or found.dtype != scale.dtype:
            return None
        self.seen.append(after[0])
        return found

    def _spread(self, value: str) -> tuple[str, tuple[int, ...], str, dict[str, Any]] | None:
        """(x - mean) / sqrt(variance + eps), or x / sqrt(mean of squares + eps), over the last axes."""
        node = self._node(value, "Div", "Mul")
        if node is None or len(node.input) != 2:
            return None
        for one, other in (tuple(node.input), tuple(reversed(node.input))):
            root = self._root(other) if node.op_type == "Div" else self._inverse(other)
            if root is not None:
                mean = self._mean(one) if root.centred else None
                of = one if not root.centred else mean[0] if mean else ""
                if self._plain(of) != self._plain(root.of) or (mean and mean[1] != root.axes):
                    return None
                op = "LayerNormalization" if root.centred else "RMSNormalization"
                return root.of, root.axes, op, {"axis": -len(root.axes), "epsilon": root.eps}
            if node.op_type == "Div":
                break
        return None

    def _inverse(self, value: str) -> _Root | None:
        node = self._node(value, "Reciprocal", "Div", "Pow")
        if node is None:
            return None
        if node.op_type == "Reciprocal":
            return self._root(node.input[0])
        if node.op_type == "Div":
            return self._root(node.input[1]) if self._number(node.input[0]) == 1 else None
        return self._variance(node.input[0]) if self._number(node.input[1]) == -0.5 else None

    def _root(self, value: str) -> _Root | None:
        node = self._node(value, "Sqrt", "Pow")
        if node is None or (node.op_type == "Pow" and self._number(node.input[1]) != 0.5):
            return None
        return self._variance(node.input[0])

    def _variance(self, value: str) -> _Root | None:
        """The mean of squares with eps added."""
        node = self._node(value, "Add")
        if node is None:
            return None
        for one, other in (tuple(node.input), tuple(reversed(node.input))):
            eps, mean = self._number(other), self._averaged(one)
            if eps is None or mean is None:
                continue
            squares = self._node(mean[0], "Pow", "Mul")
            twice = squares is not None and (
                self._number(squares.input[1]) == 2 if squares.op_type == "Pow" else len(set(squares.input)) == 1
            )
            if squares is None or not twice:
                return None
            taken = self._mean(squares.input[0])
            if taken is not None and taken[1] == mean[1]:
                return _Root(taken[0], mean[1], True, eps)
            return _Root(squares.input[0], mean[1], False, eps)
        return None

    def _mean(self, value: str) -> tuple[str, tuple[int, ...]] | None:
        """x and the axes, of x - mean(x)."""
        node = self._node(value, "Sub")
        mean = self._averaged(node.input[1]) if node is not None else None
        if node is None or mean is None or self._plain(mean[0]) != self._plain(node.input[0]):
            return None
        return node.input[0], mean[1]

    def _averaged(self, value: str) -> tuple[str, tuple[int, ...]] | None:
        """What a ReduceMean averages and over which axes, counted from the end: the last ones, which stay as ones."""
        node = self._node(value, "ReduceMean")
        if node is None:
            return None
        said = attributes(node)
        axes = said.get("axes")
        if axes is None and len(node.input) > 1 and node.input[1] in self.consts:
            given = self.consts[node.input[1]].value
            axes = None if given is None else [int(n) for n in given.read().reshape(-1)]
        rank = len(self.shapes.get(node.input[0]) or ())
        counted = tuple(sorted(a - rank if a >= 0 and rank else a for a in axes or ()))
        if not counted or counted != tuple(range(-len(counted), 0)) or not said.get("keepdims", 1):
            return None
        return node.input[0], counted

    def _grouped(self, value: str) -> tuple[str, tuple[int, ...], str, dict[str, Any]] | None:
        """An instance norm of the groups, with ones and zeros, between two Reshapes."""
        back = self._node(value, "Reshape")
        inner = self._node(back.input[0], "InstanceNormalization") if back is not None else None
        first = self._node(inner.input[0], "Reshape") if inner is not None else None
        if back is None or inner is None or first is None:
            return None
        if not (self._all(inner.input[1], 1) and self._all(inner.input[2], 0)):
            return None
        before, after = self.shapes.get(first.input[0]), self.shapes.get(back.output[0])
        if before is not None and after is not None:
            pairs = zip(before, after, strict=False)
            if len(before) != len(after) or any(None not in (n, m) and n != m for n, m in pairs):
                return None
        groups = self.consts[inner.input[1]].value
        config = {"num_groups": groups.size if groups else 0, "epsilon": attributes(inner).get("epsilon", 1e-5)}
        return first.input[0], (), "GroupNormalization", {**config, "since_version": 21}

    def _node(self, value: str, *ops: str) -> Any:
        """The node that makes a value, if it is one of these operators; casts are looked through."""
        passed: list[int] = []
        while (at := self.makers.get(value, -1)) >= 0 and value not in self.consts and len(passed) < MOST:
            node = self.nodes[at]
            if node.domain not in DOMAINS or node.op_type not in (*PASSES, *ops):
                return None
            passed.append(at)
            if node.op_type in ops:
                self.seen.extend(passed)
                return node
            value = node.input[0]
        return None

    def _plain(self, value: str) -> str:
        """What a value is, without its casts."""
        for _ in range(MOST):
            at = self.makers.get(value, -1)
            if at < 0 or self.nodes[at].op_type not in PASSES:
                break
            value = self.nodes[at].input[0]
        return value

    def _number(self, value: str) -> float | None:
        tensor = self.consts[value].value if value in self.consts else None
        if tensor is None or tensor.size != 1:
            return None
        return float(short(tensor.read().reshape(-1)[0].item()))

    def _all(self, value: str, number: int) -> bool:
        tensor = self.consts[value].value if value in self.consts else None
        return tensor is not None and bool(np.all(tensor.read() == number))

    def _rank(self, value: str, scale: Tensor) -> int:
        """How many dimensions there are from the channels on."""
        shape = self.shapes.get(value)
        return len(shape) - 1 if shape else len(scale.shape) - (scale.shape[:1] == (1,))

    def _alone(self, span: Sequence[int]) -> bool:
        """Whether nobody else reads what is made on the way."""
        inside = set(span)
        return all(after in inside for at in span[:-1] for name in self.nodes[at].output for after in self._reads(name))

    def _reads(self, value: str) -> list[int]:
        """Who reads a value, without those that only ask for its shape or dtype."""
        every = self.readers.get(value, ())
        return [i for i in every if i < 0 or not asks(self.nodes[i], value)]


def _flattened(tensor: Tensor, rank: int, op: str) -> Tensor | None:
    """The numbers in the norm's own dimensions: a group norm's channels, the last `rank` of the others; None of others.

    A group norm's lie along the first of `rank` dimensions.
    """
    shape = (1,) * (rank - len(tensor.shape)) + tensor.shape
    if prod(shape[:-rank]) != 1:
        return None
    if op == "GroupNormalization":
        return flat(tensor) if shape[-rank] == tensor.size else None
    own = shape[-rank:]
    if prod(own) != tensor.size or (rank > len(tensor.shape)):
        return None
    return tensor if tensor.shape == own else replace(tensor, shape=own, read=lambda: tensor.read().reshape(own))
