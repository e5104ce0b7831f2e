"""Norms that an exporter wrote out as several operators: layer, RMS and group norms, as one layer each.

torch's exporters do so before opset 17 (LayerNorm), before 21 (GroupNorm) and 23 (RMSNorm), and models that spell a
norm out themselves in any opset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.model.axes import Shape
from layoutx.model.onnx_consts import Const
from layoutx.model.onnx_forms import Reading, attributes, flat, noted, shaped
from layoutx.model.onnx_nodes import DOMAINS
from layoutx.model.onnx_tree import Root, Tree, forgetful


@frozen
class Norm:
    """A norm, and the positions of all of its nodes in order: the first reads what is normalised, the last gives it."""

    reading: Reading
    span: tuple[int, ...]


def norms(
    nodes: Sequence[Any],
    consts: Mapping[str, Const],
    readers: Mapping[str, Sequence[int]],
    shapes: Mapping[str, Shape],
) -> list[Norm]:
    """Every norm whose scale is stored: where one number for each feature multiplies what was normalised."""
    found = []
    makers = {name: i for i, node in enumerate(nodes) for name in node.output}
    for i, node in enumerate(nodes):
        if node.op_type == "Mul" and node.domain in DOMAINS:
            one = _Search(nodes, makers, consts, readers, shapes, []).norm(i)
            if one is not None:
                found.append(one)
    return found


class _Search(Tree):
    """One search, from a scale back to what is normalised."""

    def norm(self, at: int) -> Norm | None:
        """The norm whose scale this Mul multiplies with; None where it is something else."""
        scale, value = self.weighed(at)
        if scale is None:
            return None
        self.seen.append(at)
        found = self._spread(value) or self._grouped(value)
        if found is None and (root := self.inverse(value)) is not None:
            return self._shifted(at, scale, root) if scale.size > 1 else None
        if found is None:
            return None
        of, axes, op, config = found
        rank = len(axes) or self._rank(of, scale)
        if scale.size == 1 and self._features(of, rank, op) != 1:
            return None
        if (scale := _flattened(scale, rank, op)) is None:
            return None
        bias = self._bias(at, scale, rank, op) if op != "RMSNormalization" else None
        span = tuple(sorted(set(self.seen)))
        if not self._alone(span) or of not in self.nodes[span[0]].input:
            return None
        groups = int(config.get("num_groups", 1))
        if op == "GroupNormalization" and (bias is None or not groups or scale.size % groups):
            return None
        return _norm(op, config, scale, bias, span)

    def _shifted(self, at: int, scale: Tensor, root: Root) -> Norm | None:
        """As TensorFlow writes it: x * r + (beta - mean * r), with r = scale / sqrt(variance + eps)."""
        factor = self.nodes[at].output[0]
        times: dict[str, int] = {}
        for i in self.reads(factor):
            if i < 0 or self.nodes[i].op_type != "Mul" or list(self.nodes[i].input).count(factor) != 1:
                return None
            (other,) = (name for name in self.nodes[i].input if name != factor)
            times[other] = i
        x = next((name for name in times if self.plain(name) == self.plain(root.of)), "")
        means = [name for name in times if name != x]
        if not x or len(means) != int(root.centred):
            return None
        self.seen.extend(times.values())
        beta = self._joined(times[x], times[means[0]], means[0], root) if means else None
        if means and beta is None and not self._subtracted(times[x], times[means[0]], means[0], root):
            return None
        if _last(root.axes):
            rank, of = len(root.axes), root.of
            op = "LayerNormalization" if root.centred else "RMSNormalization"
            config: dict[str, Any] = {"axis": -rank, "epsilon": root.eps}
        elif beta is not None and root.axes == (*range(1 - len(scale.shape), -2), -1):
            rank, of = 2, self._around(root.of, max(self.seen))
            op = "GroupNormalization"
            config = {"num_groups": scale.shape[-2], "epsilon": root.eps, "since_version": 21}
        else:
            return None
        own, bias = _flattened(scale, rank, ""), None if beta is None else _flattened(beta, rank, "")
        span = tuple(sorted(set(self.seen)))
        if own is None or (beta is not None and bias is None) or not of:
            return None
        if op == "GroupNormalization":  # (groups, channels of each)
            own, bias = flat(own), bias and flat(bias)
        return _norm(op, config, own, bias, span) if self._alone(span) and of in self.nodes[span[0]].input else None

    def _around(self, value: str, last: int) -> str:
        """What Keras takes apart into groups before a group norm and puts together after it; "" if it does not.

        A Flatten after it is one Reshape with that (TensorFlow joins them): it is the norm's no longer.
        """
        before, after = self.node(value, "Reshape"), self.reads(self.nodes[last].output[0])
        if before is None or len(after) != 1 or after[0] < 0 or self.nodes[after[0]].op_type != "Reshape":
            return ""
        here, there = (self.shapes.get(x) for x in (before.input[0], self.nodes[after[0]].output[0]))
        if here is None or there is None or len(here) == len(there):
            self.seen.append(after[0])
        return str(before.input[0])

    def _joined(self, scaled: int, shift: int, mean: str, root: Root) -> Tensor | None:
        """The beta of `scaled + (beta - shift)`, or of `scaled + (beta + shift)` where the mean is negative already."""
        negative = self.node(mean, "Neg")
        after = self.reads(self.nodes[shift].output[0])
        if not self._mean_of(root, negative.input[0] if negative is not None else mean) or len(after) != 1:
            return None
        node = self.nodes[after[0]] if after[0] >= 0 else None
        if node is None or node.op_type != ("Add" if negative is not None else "Sub"):
            return None
        if node.op_type == "Sub" and node.input[1] != self.nodes[shift].output[0]:
            return None
        beta, _ = self.weighed(after[0])
        last = self.reads(node.output[0])
        both = {self.nodes[scaled].output[0], node.output[0]}
        if beta is None or len(last) != 1 or last[0] < 0:
            return None
        if self.nodes[last[0]].op_type != "Add" or set(self.nodes[last[0]].input) != both:
            return None
        self.seen.extend((after[0], last[0]))
        return beta

    def _subtracted(self, scaled: int, shift: int, mean: str, root: Root) -> bool:
        """Whether `scaled - shift` follows, of a norm without a beta; or `scaled + shift` of a negative mean."""
        negative = self.node(mean, "Neg")
        both = [self.nodes[scaled].output[0], self.nodes[shift].output[0]]
        after = self.reads(both[1])
        if not self._mean_of(root, negative.input[0] if negative is not None else mean):
            return False
        if len(after) != 1 or after[0] < 0 or self.reads(both[0]) != after:
            return False
        node = self.nodes[after[0]]
        ends = list(node.input)
        if (node.op_type, ends) != ("Sub", both) if negative is None else node.op_type != "Add" or {*ends} != {*both}:
            return False
        self.seen.append(after[0])
        return True

    def _mean_of(self, root: Root, mean: str) -> bool:
        """Whether this is the mean that a norm subtracts."""
        found = self.averaged(mean)
        return found is not None and found[1] == root.axes and self.plain(found[0]) == self.plain(root.of)

    def _bias(self, at: int, scale: Tensor, rank: int, op: str) -> Tensor | None:
        """What the node after it adds, if that is as many numbers in the same place."""
        after = self.reads(self.nodes[at].output[0])
        if len(after) != 1 or after[0] < 0 or self.nodes[after[0]].op_type != "Add":
            return None
        found, _ = self.weighed(after[0])
        found = None if found is None else _flattened(found, rank, op)
        if found is None or found.shape != scale.shape or found.dtype != scale.dtype:
            return None
        self.seen.append(after[0])
        return found

    @forgetful
    def _spread(self, value: str) -> tuple[str, tuple[int, ...], str, dict[str, Any]] | None:
        """(x - mean) / sqrt(variance + eps), or x / sqrt(mean of squares + eps), over the last axes."""
        node = self.node(value, "Div", "Mul")
        if node is None or len(node.input) != 2:
            return None
        for one, other in (tuple(node.input), tuple(reversed(node.input))):
            root = self.root(other) if node.op_type == "Div" else self.inverse(other)
            if root is not None and _last(root.axes):
                mean = self.mean(one) if root.centred else None
                of = one if not root.centred else mean[0] if mean else ""
                if self.plain(of) != self.plain(root.of) or (mean and mean[1] != root.axes):
                    return None
                op = "LayerNormalization" if root.centred else "RMSNormalization"
                return root.of, root.axes, op, {"axis": -len(root.axes), "epsilon": root.eps}
            if node.op_type == "Div":
                break
        return None

    @forgetful
    def _grouped(self, value: str) -> tuple[str, tuple[int, ...], str, dict[str, Any]] | None:
        """An instance norm of the groups, with ones and zeros, between two Reshapes."""
        back = self.node(value, "Reshape")
        inner = self.node(back.input[0], "InstanceNormalization") if back is not None else None
        first = self.node(inner.input[0], "Reshape") if inner is not None else None
        if back is None or inner is None or first is None:
            return None
        if not (self.all_are(inner.input[1], 1) and self.all_are(inner.input[2], 0)):
            return None
        before, after = self.shapes.get(first.input[0]), self.shapes.get(back.output[0])
        if before is not None and after is not None:
            pairs = zip(before, after, strict=False)
            if len(before) != len(after) or any(None not in (n, m) and n != m for n, m in pairs):
                return None
        ones = self.consts[inner.input[1]].value
        config = {"num_groups": ones.size if ones else 0, "epsilon": attributes(inner).get("epsilon", 1e-5)}
        return first.input[0], (), "GroupNormalization", {**config, "since_version": 21}

    def _features(self, value: str, rank: int, op: str) -> int | None:
        """How many numbers the scale of a norm of this value has; None where its shape is not known."""
        own = (self.shapes.get(value) or ())[-rank:]
        own = own[:1] if op == "GroupNormalization" else own
        return prod(n for n in own if n) if own and all(own) else None

    def _rank(self, value: str, scale: Tensor) -> int:
        """How many dimensions there are from the channels on."""
        shape = self.shapes.get(value)
        return len(shape) - 1 if shape else len(scale.shape) - (scale.shape[:1] == (1,))

    def _alone(self, span: Sequence[int]) -> bool:
        """Whether nobody else reads what is made on the way."""
        inside = set(span)
        return all(after in inside for at in span[:-1] for name in self.nodes[at].output for after in self.reads(name))


def _norm(op: str, config: Mapping[str, Any], scale: Tensor, bias: Tensor | None, span: tuple[int, ...]) -> Norm | None:
    """The layer, where the bias is as many numbers of the same dtype, or none was found."""
    names = {"LayerNormalization": ("Scale", "B"), "GroupNormalization": ("scale", "bias")}.get(op, ("scale", ""))
    if bias is not None and (bias.shape, bias.dtype) != (scale.shape, scale.dtype):
        return None
    tensors = {names[0]: scale} if bias is None else {names[0]: scale, names[1]: bias}
    return Norm(noted(Reading(f"onnx.{op}", config, tensors)), span)


def _last(axes: Sequence[int]) -> bool:
    """Whether they are the last axes of all."""
    return list(axes) == list(range(-len(axes), 0))


def _flattened(tensor: Tensor, rank: int, op: str) -> Tensor | None:
    """The numbers in the norm's own dimensions: a group norm's channels, the last `rank` of the others; None of others.

    A group norm's lie along the first of `rank` dimensions.
    """
    shape = (1,) * (rank - len(tensor.shape)) + tensor.shape
    if prod(shape[:-rank]) != 1:
        return None
    if op == "GroupNormalization":
        return flat(tensor) if shape[-rank] == tensor.size else None
    return shaped(tensor, shape[-rank:]) if rank <= len(tensor.shape) else None
