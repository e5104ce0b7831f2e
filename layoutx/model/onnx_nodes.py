"""One ONNX node with weights as a form: which input is which slot, and its attributes as the spec spells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.model.onnx_consts import Const, rows_of
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
LOOKUPS = ("Gather", "GatherND")
RECURRENT = ("RNN", "GRU", "LSTM")
# operators whose floats are sizes, bounds or fillings, and no weights
PLAIN = frozenset(
    ("Resize", "Upsample", "Pad", "Clip", "Slice", "Range", "OneHot", "Dropout", "Expand", "Tile", "TopK", "Reshape")
)
INTEGER = frozenset(("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "QGemm", "MatMulIntegerToFloat"))
DOMAINS = ("", "ai.onnx")
FIRST = "the weight is the first operand"
NO_BIAS = {"Conv": "B", "ConvTranspose": "B", "Gemm": "C"}  # where zeros that the graph spreads are none
OUT = -1e4  # what is added to a score that shall not count: this, or anything below
NEUTRAL = {"strides": 1, "dilations": 1, "pads": 0}


@frozen
class Reading:
    """What a node turned out to be: a form with config and tensors, or (form "") the reason why it is none.

    `tensors` of a form are named by slot, of anything else by their own names.
    """

    form: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    note: str = ""


def read_node(node: Any, consts: Mapping[str, Const], opset: int, rank: int | None) -> Reading | None:
    """The form of one node; None where it holds no weights.

    Args:
        opset: version of the default operator set.
        rank: number of dimensions of what goes in, where it is known.
    """
    given = {i: consts[name] for i, name in enumerate(node.input) if name in consts}
    if node.op_type in INTEGER and any(t.size > 1 for c in given.values() for t in c.tensors):
        return refused(list(given.values()), f"{node.op_type} holds quantised weights")
    if node.domain not in DOMAINS or node.op_type not in SLOTS:
        masked = node.op_type == "Add"
        weights = [c for c in given.values() if c.floats and not _state(c) and not (masked and _mask(c))]
        if not weights or (node.op_type in PLAIN and node.domain in DOMAINS):
            return None
        return refused(weights, f"layoutx has no form for the operator {node.domain or 'onnx'}.{node.op_type}")
    return _slotted(node, given, opset, rank)


def _slotted(node: Any, given: Mapping[int, Const], opset: int, rank: int | None) -> Reading | None:
    slots = SLOTS[node.op_type]
    wanted = [i for i, slot in enumerate(slots) if slot not in ("", "?") and i < len(node.input) and node.input[i]]
    held = [given[i] for i in wanted if i in given]
    numbers = [t for c in (held if node.op_type in LOOKUPS else given.values()) for t in c.tensors]
    if not any(t.dtype.kind not in "iub" for t in numbers):
        return None
    if not held and node.op_type == "MatMul" and 0 in given:
        return _first(given[0])
    if not held or len(held) < len(wanted):
        return refused(list(given.values()), "some of its weights are computed from the model's input")
    if node.op_type == "GatherND" and not rows_of(node, given.get(1)):
        return refused(held, "a lookup in something else than a table's rows") if held else None
    gemm = node.op_type in ("Gemm", "MatMul")
    turned = gemm and given[wanted[0]].turned
    tensors: dict[str, Tensor] = {}
    for i in wanted:
        const = given[i]
        if slots[i] in NO_BIAS.get(node.op_type, "") and _spread_zero(const):
            continue
        tensor = const.tensor if i == wanted[0] and turned else const.value
        if tensor is None:
            through = const.through or "an operator that ONNX's own tools do not compute"
            return refused(held, f"its {slots[i]} passes through {through}")
        tensors[slots[i]] = tensor
    states = [given[i] for i, slot in enumerate(slots) if slot == "?" and i in given]
    if any(not _zero(const) for const in states):
        lengths = any(t.dtype.kind == "i" for const in states for t in const.tensors)
        said = (
            "it stops at stored lengths (sequence_lens)"
            if lengths
            else "it starts from a stored state that is not zero"
        )
        return refused([*held, *states], said)
    return noted(_formed(node, tensors, turned, opset, rank))


def _first(const: Const) -> Reading:
    """W x: what acts on the rows of x is a Gemm with transB of what acts on the columns."""
    tensor = const.tensor
    if tensor is None or len(tensor.shape) != 2:
        return refused([const], f"{FIRST}, {const.through or 'and no matrix'}")
    how = f"{FIRST}: it is multiplied with the rows of its input"
    return noted(Reading("onnx.Gemm", {"transB": 0 if const.turned else 1}, {"B": tensor}, how))


def flat(tensor: Tensor) -> Tensor:
    """The same numbers as a vector."""
    return shaped(tensor, (tensor.size,))


def shaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same numbers in another shape."""
    if tensor.shape == shape:
        return tensor
    return replace(tensor, shape=shape, read=lambda: tensor.read().reshape(shape), mapped=False)


def _formed(node: Any, tensors: dict[str, Tensor], turned: bool, opset: int, rank: int | None) -> Reading:
    op, config = node.op_type, attributes(node)
    first = next(iter(tensors.values()))
    if op == "MatMul":
        if len(first.shape) != 2:
            return _plainly(tensors, f"a weight of {len(first.shape)} dimensions")
        if turned:
            return Reading("onnx.Gemm", {"transB": 1}, tensors, "MatMul of a transposed weight: Gemm with transB")
    if op in LOOKUPS and (len(first.shape) != 2 or config.get("axis", 0) not in (0, -2)):
        return _plainly(tensors, "a lookup in something else than a table's rows")
    if op == "Gemm":
        config.pop("broadcast", None)  # before opset 7: C is spread over the rows, as it always is today
        if "C" in tensors and tensors["C"].shape[:-1] == (1,):
            tensors["C"] = flat(tensors["C"])
        config["transB"] = int(bool(config.get("transB", 0)) != turned)
    if op in ("Conv", "ConvTranspose"):
        config = {k: v for k, v in config.items() if k not in NEUTRAL or any(x != NEUTRAL[k] for x in v)}
        config["rank"] = len(first.shape) - 2
    if op == "GroupNormalization":
        config["since_version"] = 21 if opset >= 21 else 18
    if op == "BatchNormalization":
        if opset < 7 and not config.get("is_test", 0):
            return _plainly(tensors, "it uses the statistics of the batch (opset 6 without is_test)")
        config = {"training_mode": int(len([x for x in node.output if x]) > 1), **config}
    if op == "PRelu":
        if opset >= 7 and rank is not None and first.shape[:1] == (1,) and len(first.shape) == rank:
            tensors["slope"] = first = shaped(first, first.shape[1:])  # (1, channels, 1, 1) of torch's new exporter
        if first.size > 1 and opset >= 7 and rank is not None and len(first.shape) != rank - 1:
            return _plainly(tensors, f"a slope of shape {first.shape} does not go with the channels")
        config["rank"] = len(first.shape) - 1
    if op in RECURRENT:
        config.pop("output_sequence", None)  # opset 1: which outputs there are
    if op == "GatherND":
        return Reading("onnx.Gather", {}, tensors)
    return Reading(f"onnx.{op}", config, tensors)


def noted(reading: Reading) -> Reading:
    """The reading with which of its tensors the graph computes, and how."""
    ways: dict[str, list[str]] = {}
    for slot, tensor in reading.tensors.items():
        if reading.form and tensor.derived:
            ways.setdefault(tensor.derived, []).append(slot)
    said = [f"{' and '.join(slots)}: {way}" for way, slots in ways.items()]
    return replace(reading, note="; ".join(filter(None, [reading.note, *said])))


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes as plain values: texts as str, lists as list, floats as the shortest that float32 rounds so.

    Graphs and tensors are left out.
    """
    found: dict[str, Any] = {}
    for a in node.attribute:
        kinds = {a.FLOAT: "f", a.INT: "i", a.STRING: "s", a.FLOATS: "floats", a.INTS: "ints", a.STRINGS: "strings"}
        key = kinds.get(a.type)
        if key is not None:
            value = getattr(a, key)
            found[a.name] = _value(value) if key in "fis" else [_value(v) for v in value]
    return found


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return short(value) if isinstance(value, float) else value


def short(value: float) -> float:
    """The shortest number that float32 rounds so: 0.00001, which a file holds as 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def refused(consts: list[Const], why: str) -> Reading:
    """Weights of which nothing is known but their names."""
    return _plainly({t.name: t for c in consts for t in c.tensors if t.dtype.name not in ("int64", "bool")}, why)


def _plainly(tensors: Mapping[str, Tensor], why: str) -> Reading:
    return Reading("", {}, {t.name: t for t in tensors.values()}, why)


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
