"""An ONNX node with its weights in their slots as a form: what each operator says, as the spec spells it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.model.onnx_consts import Const

LOOKUPS = ("Gather", "GatherND")
RECURRENT = ("RNN", "GRU", "LSTM")
NEUTRAL = {"strides": 1, "dilations": 1, "pads": 0}
NO_ROWS = "a lookup in something else than a table's rows"


@frozen
class Reading:
    """What a node turned out to be: a form with config and tensors, or (form "") the reason why it is none.

    `tensors` of a form are named by slot, of anything else by their own names.
    """

    form: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    note: str = ""


@frozen
class Slotted:
    """A node with its weights by slot, in the slots' order.

    Attributes:
        turned: whether the graph transposes the first of them. opset, rank: as for `read_node`.
    """

    node: Any
    tensors: Mapping[str, Tensor]
    turned: bool
    opset: int
    rank: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the first weight."""
        return next(iter(self.tensors.values())).shape


Config = dict[str, Any]


def formed(of: Slotted) -> Reading:
    """The form of a node; without one, why."""
    return noted(SPELLED.get(of.node.op_type, _as_it_is)(of, attributes(of.node)))


def _as_it_is(of: Slotted, config: Config) -> Reading:
    return Reading(f"onnx.{of.node.op_type}", config, of.tensors)


def _matmul(of: Slotted, config: Config) -> Reading:
    if len(of.shape) != 2:
        return _plainly(of.tensors, f"a weight of {len(of.shape)} dimensions")
    if of.turned:
        return Reading("onnx.Gemm", {"transB": 1}, of.tensors, "MatMul of a transposed weight: Gemm with transB")
    return _as_it_is(of, config)


def _gemm(of: Slotted, config: Config) -> Reading:
    config.pop("broadcast", None)  # before opset 7: C is spread over the rows, as it always is today
    config["transB"] = int(bool(config.get("transB", 0)) != of.turned)
    rows = {slot: flat(t) for slot, t in of.tensors.items() if slot == "C" and t.shape[:-1] == (1,)}
    return Reading("onnx.Gemm", config, {**of.tensors, **rows})


def _lookup(of: Slotted, config: Config) -> Reading:
    if len(of.shape) != 2 or config.get("axis", 0) not in (0, -2):
        return _plainly(of.tensors, NO_ROWS)
    return Reading("onnx.Gather", {} if of.node.op_type == "GatherND" else config, of.tensors)


def _conv(of: Slotted, config: Config) -> Reading:
    told = {k: v for k, v in config.items() if k not in NEUTRAL or any(x != NEUTRAL[k] for x in v)}
    return _as_it_is(of, {**told, "rank": len(of.shape) - 2})


def _group_norm(of: Slotted, config: Config) -> Reading:
    return _as_it_is(of, {**config, "since_version": 21 if of.opset >= 21 else 18})


def _batch_norm(of: Slotted, config: Config) -> Reading:
    if of.opset < 7 and not config.get("is_test", 0):
        return _plainly(of.tensors, "it uses the statistics of the batch (opset 6 without is_test)")
    several = len([name for name in of.node.output if name]) > 1
    return _as_it_is(of, {"training_mode": int(several), **config})


def _prelu(of: Slotted, config: Config) -> Reading:
    """The slope goes with the channels: (channels, 1, 1), or (1, channels, 1, 1) of torch's new exporter."""
    slope = of.tensors["slope"]
    if of.opset >= 7 and of.rank is not None:
        if slope.shape[:1] == (1,) and len(slope.shape) == of.rank:
            slope = shaped(slope, slope.shape[1:])
        if slope.size > 1 and len(slope.shape) != of.rank - 1:
            return _plainly({"slope": slope}, f"a slope of shape {slope.shape} does not go with the channels")
    return Reading("onnx.PRelu", {**config, "rank": len(slope.shape) - 1}, {"slope": slope})


def _recurrent(of: Slotted, config: Config) -> Reading:
    config.pop("output_sequence", None)  # opset 1: which outputs there are
    return _as_it_is(of, config)


SPELLED: Mapping[str, Callable[[Slotted, Config], Reading]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "BatchNormalization": _batch_norm,
    "PRelu": _prelu,
    **dict.fromkeys(LOOKUPS, _lookup),
    **dict.fromkeys(("Conv", "ConvTranspose"), _conv),
    **dict.fromkeys(RECURRENT, _recurrent),
}


def flat(tensor: Tensor) -> Tensor:
    """The same numbers as a vector."""
    return shaped(tensor, (tensor.size,))


def shaped(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same numbers in another shape."""
    if tensor.shape == shape:
        return tensor
    return replace(tensor, shape=shape, read=lambda: tensor.read().reshape(shape), mapped=False)


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
