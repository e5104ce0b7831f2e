"""Weights that an ONNX graph computes from stored tensors: shapes by ONNX's inference, numbers by its own evaluator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

import numpy as np

from layoutx.errors import ModelError
from layoutx.files.dtypes import Array, DType, settled
from layoutx.files.limits import PREFIX, limit
from layoutx.files.onnx_file import bodies, dtype_of, need_onnx
from layoutx.files.store import Tensor, tensor_of

SMALL = 64  # whole numbers that inference may want to see: axes, shapes, bounds of slices
ROOM = 64 << 20  # bytes that may come of nothing: fills, masks, positions
COMPUTED = "computed in the graph"
DOMAINS = ("", "ai.onnx")
COUNTS = ("Abs", "Add", "Div", "Max", "Min", "Mod", "Mul", "Neg", "Range", "Sub")  # of sizes and places: whole numbers
MOVES = (  # what puts numbers elsewhere, and makes none
    *("Concat", "Constant", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape"),
    *("Shape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)
CHANCE = ("RandomNormal", "RandomUniform", "Bernoulli", "Multinomial")  # what begins so is another number every time
SHRINKS = ("NonZero", "Unique", "Compress")  # never more than they are given, and inference cannot say how much


@dataclass
class Folding:
    """The part of a graph that does not depend on its input: stored tensors by value name, and what makes the rest."""

    opset: int
    leaves: dict[str, Tensor] = field(default_factory=dict)
    makers: dict[str, Any] = field(default_factory=dict)
    known: dict[str, Tensor | None] = field(default_factory=dict)
    where: str = ""

    def inner(self) -> Folding:
        """The same for a body, which sees what is outside it."""
        return Folding(self.opset, dict(self.leaves), dict(self.makers), where=self.where)

    def computed(self, value: str, name: str) -> Tensor | None:
        """A value as a tensor, read when it is asked for; None where ONNX's own tools do not compute it."""
        if name not in self.known:
            self.known[name] = self._computed(value, name)
        return self.known[name]

    def _computed(self, value: str, name: str) -> Tensor | None:
        nodes, leaves = self._needed(value)
        if not all(map(_harmless, nodes)):
            return None
        try:
            found = _inferred(nodes, leaves, value, self.opset)
            if found is None:
                array = _evaluated(nodes, leaves, value, self.opset)
                found = (array.dtype, array.shape)
        except Exception:  # onnx raises whatever its evaluator's NumPy does
            return None
        ops = dict.fromkeys(node.op_type for node in nodes if node.op_type not in ("Constant", "Identity"))
        said = f"{COMPUTED} by {', '.join(ops)}" if ops else ""
        read = partial(self._read, nodes, leaves, value, name, found)
        return Tensor(name, *found, read, said, intact=_intact(nodes, leaves))

    def _read(
        self, nodes: list[Any], leaves: Mapping[str, Tensor], value: str, name: str, said: tuple[DType, tuple[int, ...]]
    ) -> Array:
        try:
            array = _evaluated(nodes, leaves, value, self.opset)
        except Exception as error:
            do = "fold constants in the export"
            raise ModelError(f"{name} cannot be computed", where=self.where, why=str(error), do=do) from error
        if (array.dtype, array.shape) != said:
            raise ModelError(f"{name} is {array.dtype} {array.shape} when computed, the graph says {said[0]} {said[1]}")
        return array

    def _needed(self, value: str) -> tuple[list[Any], dict[str, Tensor]]:
        """The nodes that make a value, each after those that it reads, and the stored tensors that they begin with."""
        order: dict[int, Any] = {}
        leaves: dict[str, Tensor] = {}
        waiting, seen = [value], set[str]()
        while waiting:  # without recursion: a chain may be as long as the graph
            name = waiting[-1]
            node = None if name in self.leaves else self.makers.get(name)
            fresh = [n for n in node.input if n and n not in seen] if node is not None and name not in seen else []
            seen.add(name)
            if fresh:
                waiting += fresh
                continue
            waiting.pop()
            if name in self.leaves:
                leaves[name] = self.leaves[name]
            elif node is not None:
                order.setdefault(id(node), node)
        return list(order.values()), leaves


def _model(nodes: list[Any], inputs: list[Any], given: list[Any], values: Sequence[str], opset: int) -> Any:
    helper = need_onnx().helper
    outputs = [helper.make_empty_tensor_value_info(value) for value in values]
    graph = helper.make_graph(nodes, "constant", inputs, outputs, given)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def _inferred(
    nodes: list[Any], leaves: Mapping[str, Tensor], value: str, opset: int
) -> tuple[DType, tuple[int, ...]] | None:
    """Dtype and shape without reading a weight; None where inference does not tell both."""
    onnx = need_onnx()
    inputs, given = [], []
    for name, tensor in leaves.items():
        if tensor.dtype.kind in "iu" and tensor.size <= SMALL:
            given.append(onnx.numpy_helper.from_array(np.asarray(tensor.read()), name))
        else:
            kind = onnx.helper.np_dtype_to_tensor_dtype(tensor.dtype)
            inputs.append(onnx.helper.make_tensor_value_info(name, kind, tensor.shape))
    model = onnx.shape_inference.infer_shapes(_model(nodes, inputs, given, [value], opset), data_prop=True)
    kind = model.graph.output[0].type.tensor_type
    dims = [d.dim_value for d in kind.shape.dim if d.HasField("dim_value")]
    dtype = dtype_of(kind.elem_type)
    if dtype is None or not kind.HasField("shape") or len(dims) != len(kind.shape.dim) or min(dims, default=0) < 0:
        return None
    return dtype, tuple(dims)


def _evaluated(nodes: list[Any], leaves: Mapping[str, Tensor], value: str, opset: int) -> Array:
    """The numbers, as ONNX's reference evaluator computes them in the graph's own dtypes, node by node.

    Raises:
        ValueError: a node would make very much more than the graph is given, or nobody can tell how much it makes.
    """
    from onnx.reference import ReferenceEvaluator

    helper = need_onnx().helper
    held = {name: np.asarray(tensor.read()) for name, tensor in leaves.items()}
    room = max(ROOM, limit("EXPANSION") * sum(array.nbytes for array in held.values()))
    for node in nodes:
        given = {name: held[name] for name in node.input if name}
        tensors = {name: tensor_of(name, array) for name, array in given.items()}
        for output in filter(None, node.output):
            found = None if node.op_type in SHRINKS else _inferred([node], tensors, output, opset)
            if found is None and node.op_type not in SHRINKS:
                raise ValueError(f"the size of what {node.op_type} makes cannot be told beforehand")
            room -= prod(found[1]) * found[0].itemsize if found else 8 * sum(map(np.size, given.values()))
        if room < 0:
            raise ValueError(f"{node.op_type} would make very much more than the file holds ({PREFIX}EXPANSION)")
        kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
        inputs = [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in given.items()]
        outputs = [output for output in node.output if output]
        made = ReferenceEvaluator(_model([node], inputs, [], outputs, opset)).run(outputs, given)
        held.update(zip(outputs, made, strict=True))
    return settled(np.ascontiguousarray(held[value]).reshape(np.shape(held[value])))


def _intact(nodes: list[Any], leaves: Mapping[str, Tensor]) -> bool:
    """Whether the stored numbers are only put elsewhere: all that is computed are sizes and places."""
    numbers = {name for name, tensor in leaves.items() if tensor.dtype.kind not in "iu"}
    for node in nodes:
        counted = node.op_type in COUNTS and numbers.isdisjoint(node.input)
        if not counted and node.op_type not in MOVES:
            return False
        if not counted and node.op_type != "Shape":
            numbers.update(node.output if numbers & {*node.input} or _holds_numbers(node) else ())
    return True


def _holds_numbers(node: Any) -> bool:
    """Whether a node is a Constant of other than whole numbers."""
    kinds = need_onnx().TensorProto
    whole = (kinds.INT32, kinds.INT64)
    said = [a for a in node.attribute if not (a.name.startswith("value_int") or a.t.data_type in whole)]
    return node.op_type == "Constant" and bool(said)


def _harmless(node: Any) -> bool:
    """Whether a node is ONNX's own, gives the same numbers every time, and has no body that may go round for ever."""
    loops = any(bodies(attribute) for attribute in node.attribute)
    return node.domain in DOMAINS and not loops and not node.op_type.startswith(CHANCE)
