"""One ONNX node with weights: which of its inputs is which slot, and what has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.files.store import Tensor
from layoutx.model.onnx_consts import Const, rows_of
from layoutx.model.onnx_forms import LOOKUPS, NO_ROWS, Reading, Slotted, formed, noted, refused
from layoutx.model.onnx_names import MADE

# operator -> its inputs in order (onnx.defs, onnx 1.23.2); "" is data, "?" a state or length that starts as zeros
SLOTS: Mapping[str, tuple[str, ...]] = {
    "Conv": ("", "W", "B"),
    "ConvTranspose": ("", "W", "B"),
    "Gemm": ("", "B", "C"),
    "MatMul": ("", "B"),
    "BatchNormalization": ("", "scale", "B", "input_mean", "input_var"),
    "LayerNormalization": ("", "Scale", "B"),
    "GroupNormalization": ("", "scale", "bias"),
    "InstanceNormalization": ("", "scale", "B"),
    "RMSNormalization": ("", "scale"),
    "PRelu": ("", "slope"),
    "Gather": ("data", ""),
    "GatherND": ("data", ""),
    "RNN": ("", "W", "R", "B", "?", "?"),
    "GRU": ("", "W", "R", "B", "?", "?"),
    "LSTM": ("", "W", "R", "B", "?", "?", "?", "P"),
}
# operators whose floats are sizes, bounds or fillings, and no weights
PLAIN = frozenset(
    ("Resize", "Upsample", "Pad", "Clip", "Slice", "Range", "OneHot", "Dropout", "Expand", "Tile", "TopK", "Reshape")
)
INTEGER = frozenset(("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm", "MatMulIntegerToFloat"))
NARROW = frozenset(("int8", "uint8", "int4", "uint4", "int2", "uint2"))
DOMAINS = ("", "ai.onnx")
UNCOMPUTED = "an operator that ONNX's own tools do not compute"
FIRST = "the weight is the first operand"
NO_BIAS = {"Conv": "B", "ConvTranspose": "B", "Gemm": "C"}  # where zeros that the graph spreads are none
OUT = -1e4  # what is added to a score that shall not count: this, or anything below


def read_node(node: Any, consts: Mapping[str, Const], opset: int, rank: int | None) -> Reading | None:
    """The form of one node; None where it holds no weights.

    Args:
        opset: version of the default operator set.
        rank: number of dimensions of what goes in, where it is known.
    """
    given = {i: consts[name] for i, name in enumerate(node.input) if name in consts}
    if _quantised(node, given):
        return refused(list(given.values()), f"{node.op_type} holds quantised weights")
    if node.domain not in DOMAINS or node.op_type not in SLOTS:
        masked = node.op_type == "Add"
        weights = [c for c in given.values() if c.floats and not _state(c) and not (masked and _mask(c))]
        if not weights or (node.op_type in PLAIN and node.domain in DOMAINS):
            return None
        return refused(weights, f"layoutx has no form for the operator {node.domain or 'onnx'}.{node.op_type}")
    return _slotted(node, given, opset, rank)


def _quantised(node: Any, given: Mapping[int, Const]) -> bool:
    """Whether whole numbers of eight bits or fewer stand where a layer has its weights.

    ONNX's own operators say so, and those of other domains that read such numbers; a looked-up table of them is taken
    apart into floats behind the look-up.
    """
    tensors = [t for c in given.values() for t in c.tensors if t.size > 1]
    if node.op_type in INTEGER:
        return bool(tensors)
    if node.op_type in LOOKUPS and node.domain in DOMAINS:
        table = given[0].known if 0 in given else None
        tensors = [table] if table is not None and len(table.shape) > 1 else []
    elif node.domain in DOMAINS:
        return False
    return any(t.dtype.name in NARROW for t in tensors)


def _slotted(node: Any, given: Mapping[int, Const], opset: int, rank: int | None) -> Reading | None:
    """The form of a node whose operator has slots."""
    op, slots = node.op_type, SLOTS[node.op_type]
    wanted = [i for i, slot in enumerate(slots) if slot not in ("", "?") and i < len(node.input) and node.input[i]]
    held = [given[i] for i in wanted if i in given]
    numbers = [t for c in (held if op in LOOKUPS else given.values()) for t in c.tensors]
    if all(t.dtype.kind in "iub" for t in numbers):
        return None
    if not held and op == "MatMul" and 0 in given:
        return _first(given[0])
    if not held or len(held) < len(wanted):
        return refused(list(given.values()), "some of its weights are computed from the model's input")
    if op == "GatherND" and not rows_of(node, given.get(1)):
        return refused(held, NO_ROWS)
    turned = op in ("Gemm", "MatMul") and held[0].turned
    tensors = _weights(op, {slots[i]: given[i] for i in wanted}, turned)
    if isinstance(tensors, str):
        return refused(held, tensors)
    begins = [given[i] for i, slot in enumerate(slots) if slot == "?" and i in given]
    if why := _not_from_zeros(begins):
        return refused([*held, *begins], why)
    return formed(Slotted(node, tensors, turned, opset, rank))


def _weights(op: str, held: Mapping[str, Const], turned: bool) -> dict[str, Tensor] | str:
    """Slot -> tensor; why not, where one goes through something that changes it. A bias of spread zeros is none."""
    tensors: dict[str, Tensor] = {}
    first = next(iter(held))
    for slot, const in held.items():
        if slot == NO_BIAS.get(op) and _spread_zero(const):
            continue
        tensor = const.tensor if turned and slot == first else const.value
        if tensor is None:
            return f"its {slot} passes through {const.through or UNCOMPUTED}"
        tensors[slot] = tensor
    return tensors


def _not_from_zeros(begins: Sequence[Const]) -> str:
    """Why states and lengths are none that a form has; "" where all are zeros."""
    if all(_zero(const) for const in begins):
        return ""
    if any(t.dtype.kind == "i" for const in begins for t in const.tensors):
        return "it stops at stored lengths (sequence_lens)"
    return "it starts from a stored state that is not zero"


def _first(const: Const) -> Reading:
    """W x: what acts on the rows of x is a Gemm with transB of what acts on the columns."""
    tensor = const.tensor
    if tensor is None or len(tensor.shape) != 2:
        return refused([const], f"{FIRST}, {const.through or 'and no matrix'}")
    how = f"{FIRST}: it is multiplied with the rows of its input"
    return noted(Reading("onnx.Gemm", {"transB": 0 if const.turned else 1}, {"B": tensor}, how))


def asks(node: Any, value: str) -> bool:
    """Whether a node reads the shape or the dtype of a value, and none of its numbers."""
    return node.op_type in ("Shape", "Size") or (node.op_type == "CastLike" and node.input[0] != value)


def _state(const: Const) -> bool:
    """Whether it is what an unrolled layer begins with: zeros that the graph itself writes down or computes."""
    return (const.literal or const.fold is not None) and _zero(const)


def _mask(const: Const) -> bool:
    """Whether it keeps scores as they are (0) or puts them out: -inf, or one number below zero wherever it is not 0.

    Zeros alone are a mask where the graph or its exporter has made them; else they may be untrained weights.
    """
    value = const.value
    if value is None:
        return False
    numbers = np.asarray(value.read())
    others = numbers[numbers != 0]
    if not others.size:
        return const.literal or const.fold is not None or all(MADE.match(tensor.name) for tensor in const.tensors)
    least = others.max()
    return bool(least <= OUT or (least <= -1 and others.min() == least))


def _zero(const: Const) -> bool:
    return not const.tensors or (const.tensor is not None and not np.any(const.tensor.read()))


def _spread_zero(const: Const) -> bool:
    """Whether the graph makes zeros of one number: torch's new exporter does so for a bias that there is not."""
    return const.fold is not None and all(t.size == 1 for t in const.tensors) and _zero(const)
