"""What a value of an ONNX graph is computed by, looked at backwards: means, variances, and their inverse roots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np

from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.model.axes import Shape
from layoutx.model.onnx_consts import Const, small_ints
from layoutx.model.onnx_forms import attributes, short
from layoutx.model.onnx_nodes import DOMAINS, asks
from layoutx.model.onnx_rules import axes_of

PASSES = ("Cast", "Identity")
MOST = 9  # of those in a row
F = TypeVar("F", bound=Callable[..., Any])


@frozen
class Root:
    """1 / sqrt(variance + eps): the value that it is the variance of, over which axes, and whether a mean was taken."""

    of: str
    axes: tuple[int, ...]
    centred: bool
    eps: float


def forgetful(method: F) -> F:
    """A question whose nodes are seen only where it is answered."""

    @wraps(method)
    def asked(self: Tree, *args: Any) -> Any:
        before = len(self.seen)
        found = method(self, *args)
        if found is None:
            del self.seen[before:]
        return found

    return cast(F, asked)


@frozen
class Tree:
    """A graph looked at backwards from one value; `seen` are the nodes on the way, casts among them."""

    nodes: Sequence[Any]
    makers: Mapping[str, int]
    consts: Mapping[str, Const]
    readers: Mapping[str, Sequence[int]]
    shapes: Mapping[str, Shape]
    seen: list[int]

    @forgetful
    def inverse(self, value: str) -> Root | None:
        node = self.node(value, "Reciprocal", "Div", "Pow")
        if node is None:
            return None
        if node.op_type == "Reciprocal":
            return self.root(node.input[0])
        if node.op_type == "Div":
            return self.root(node.input[1]) if self.number(node.input[0]) == 1 else None
        return self.variance(node.input[0]) if self.number(node.input[1]) == -0.5 else None

    @forgetful
    def root(self, value: str) -> Root | None:
        node = self.node(value, "Sqrt", "Pow")
        if node is None or (node.op_type == "Pow" and self.number(node.input[1]) != 0.5):
            return None
        return self.variance(node.input[0])

    @forgetful
    def variance(self, value: str) -> Root | None:
        """The mean of squares with eps added."""
        node = self.node(value, "Add")
        if node is None:
            return None
        for one, other in (tuple(node.input), tuple(reversed(node.input))):
            eps = self.number(other)
            mean = self.averaged(one) if eps is not None else None
            if eps is None or mean is None:
                continue
            squares = self.node(mean[0], "Pow", "Mul")
            twice = squares is not None and (
                self.number(squares.input[1]) == 2 if squares.op_type == "Pow" else len(set(squares.input)) == 1
            )
            if squares is None or not twice:
                return None
            before = len(self.seen)
            taken = self.mean(squares.input[0])
            if taken is not None and taken[1] == mean[1]:
                return Root(taken[0], mean[1], True, eps)
            del self.seen[before:]
            return Root(squares.input[0], mean[1], False, eps)
        return None

    @forgetful
    def mean(self, value: str) -> tuple[str, tuple[int, ...]] | None:
        """x and the axes, of x - mean(x)."""
        node = self.node(value, "Sub")
        mean = self.averaged(node.input[1]) if node is not None else None
        if node is None or mean is None or self.plain(mean[0]) != self.plain(node.input[0]):
            return None
        return node.input[0], mean[1]

    @forgetful
    def averaged(self, value: str) -> tuple[str, tuple[int, ...]] | None:
        """What a ReduceMean averages, and over which axes, counted from the end; they stay as ones."""
        node = self.node(value, "ReduceMean", "GlobalAveragePool")
        if node is None:
            return None
        said = attributes(node)
        rank = len(self.shapes.get(node.input[0]) or ())
        if node.op_type == "GlobalAveragePool":  # tf2onnx: of (batch, rows, features)
            axes: list[int] | None = list(range(2 - rank, 0))
        else:
            axes = axes_of(node, said, lambda name: small_ints(self.consts.get(name)))
        counted = tuple(sorted(a - rank if a >= 0 and rank else a for a in axes or ()))
        if not counted or counted[-1] >= 0 or not said.get("keepdims", 1):
            return None
        return node.input[0], counted

    def weighed(self, at: int) -> tuple[Tensor | None, str]:
        """The stored factor of a Mul or the stored summand of an Add, and the input that is data.

        One number is one where it is stored as a list: the scale of a norm of one channel.
        """
        inputs = list(self.nodes[at].input)
        held = [name for name in inputs if name in self.consts]
        data = [name for name in inputs if name not in self.consts]
        const = self.consts[held[0]] if len(held) == len(data) == 1 else None
        if const is None or not (const.floats or _listed(const)):
            return None, ""
        return const.value, data[0]

    def node(self, value: str, *ops: str) -> Any:
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

    def plain(self, value: str) -> str:
        """What a value is, without its casts."""
        for _ in range(MOST):
            at = self.makers.get(value, -1)
            if at < 0 or self.nodes[at].op_type not in PASSES:
                break
            value = self.nodes[at].input[0]
        return value

    def number(self, value: str) -> float | None:
        tensor = self.consts[value].value if value in self.consts else None
        if tensor is None or tensor.size != 1:
            return None
        return float(short(tensor.read().reshape(-1)[0].item()))

    def all_are(self, value: str, number: int) -> bool:
        tensor = self.consts[value].value if value in self.consts else None
        return tensor is not None and bool(np.all(tensor.read() == number))

    def reads(self, value: str) -> list[int]:
        """Who reads a value, without those that only ask for its shape or dtype."""
        every = self.readers.get(value, ())
        return [i for i in every if i < 0 or not asks(self.nodes[i], value)]


def _listed(const: Const) -> bool:
    """Whether it is one stored number, kept as a list of numbers."""
    found = const.known
    return found is not None and not const.literal and found.shape != () and found.dtype.kind not in "iub"
