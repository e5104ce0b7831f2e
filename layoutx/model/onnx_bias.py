"""The bias that an ONNX graph adds after a product: one stored number an output, in any shape it is spread from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from layoutx.files.store import Tensor
from layoutx.model.axes import Shape
from layoutx.model.onnx_consts import Const
from layoutx.model.onnx_forms import Reading, flat
from layoutx.model.onnx_nodes import FIRST

ADDED = {"MatMul": "bias", "Gemm": "C", "Conv": "B", "ConvTranspose": "B"}


def with_bias(
    graph: Any,
    node: Any,
    reading: Reading,
    consts: Mapping[str, Const],
    readers: Mapping[str, list[int]],
    shapes: Mapping[str, Shape],
) -> tuple[Reading, dict[int, str]]:
    """The layer with the Add that alone reads its product, where that adds one stored number an output.

    Identities may lie between, for a matrix product Reshapes that keep the outputs last (tf's Tensordot), and for a
    convolution over one axis the Squeeze of another one (`onnx_thin`).

    Returns:
        The layer, and the nodes that belong to it (position -> the input that is data); none where there is no bias.
    """
    op = reading.form.removeprefix("onnx.")
    slot = ADDED.get(op, "")
    if not slot or slot in reading.tensors:
        return reading, {}
    count = _outputs(op, reading)
    passed: dict[int, str] = {}
    value = node.output[0]
    while True:
        at = readers.get(value, [])
        if len(at) != 1 or at[0] < 0:
            return reading, {}
        after = graph.node[at[0]]
        passed[at[0]] = value
        if after.op_type == "Add":
            break
        last = _lasting(shapes.get(after.output[0]) or (), count) if after.output else ()
        kept = after.op_type == "Reshape" and op in ("MatMul", "Gemm") and after.input[0] == value and bool(last)
        thin = after.op_type == "Squeeze" and op.startswith("Conv") and reading.config.get("rank") == 1
        if not kept and not thin and after.op_type != "Identity":
            return reading, {}
        value = after.output[0]
    other = [name for name in after.input if name != value]
    given = consts[other[0]].value if len(other) == 1 and other[0] in consts else None
    bias = _bias(given, op, reading, count, shapes.get(value))
    if bias is None or bias.dtype != next(iter(reading.tensors.values())).dtype:
        return reading, {}
    config = {**reading.config, "beta": 1.0} if "beta" in reading.config else reading.config
    return replace(reading, config=config, tensors={**reading.tensors, slot: bias}), passed


def _lasting(shape: Sequence[int | None], count: int) -> tuple[int, ...]:
    """The last dimensions that hold the outputs: all in one, or taken apart (the heads of Keras' EinsumDense)."""
    found: tuple[int, ...] = ()
    for size in reversed(shape):
        if size is None or prod(found) >= count:
            break
        found = (size, *found)
    return found if prod(found) == count else ()


def _outputs(op: str, reading: Reading) -> int:
    kernel = next(iter(reading.tensors.values())).shape
    if op == "ConvTranspose":
        return kernel[1] * int(reading.config.get("group", 1))
    return kernel[0] if op == "Conv" or reading.config.get("transB", 0) else kernel[1]


def _bias(given: Tensor | None, op: str, reading: Reading, count: int, shape: Shape) -> Tensor | None:
    """The numbers as `(output)`; None where they are spread over something else than the outputs."""
    if given is None or not given.shape or given.size != count:
        return None
    rank = len(next(iter(reading.tensors.values())).shape) if op.startswith("Conv") else 2
    if len(given.shape) > max(rank, len(shape or ())):
        return None
    if op in ("MatMul", "Gemm") and len(given.shape) > 1 and given.shape == _lasting(shape or (), count):
        return flat(given)
    rows = reading.note.startswith(FIRST)
    at = 1 - rank if op.startswith("Conv") else -2 if rows else -1
    if len(given.shape) < -at or given.shape[at] != count:
        return None
    return flat(given)
