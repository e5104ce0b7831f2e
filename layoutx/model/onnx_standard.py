"""Two nodes that standardise data by stored statistics, (x - mean) / deviation, as one layer; and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layoutx.files.store import Tensor
from layoutx.model.axes import Shape
from layoutx.model.onnx_consts import Const
from layoutx.model.onnx_forms import Reading, flat
from layoutx.model.onnx_nodes import DOMAINS

FORM = "onnx.Normalization"
# the first operator and the one that alone reads it: whether that is the way back (keras.Normalization(invert=True))
PAIRS: Mapping[tuple[str, str], bool] = {("Sub", "Div"): False, ("Mul", "Add"): True}


def standard(
    graph: Any,
    node: Any,
    consts: Mapping[str, Const],
    readers: Mapping[str, Sequence[int]],
    shapes: Mapping[str, Shape],
) -> tuple[Reading, dict[int, str]] | None:
    """The layer that begins at this node, and the second node with the input that is data; None where there is none.

    A number for each channel: one number for everything is a scale of the data (Rescaling), and no weight.
    """
    after = readers.get(node.output[0], ()) if node.output else ()
    if node.domain not in DOMAINS or len(after) != 1 or after[0] < 0:
        return None
    second = graph.node[after[0]]
    invert = PAIRS.get((node.op_type, second.op_type))
    if invert is None or second.domain not in DOMAINS:
        return None
    first, other = _numbers(node, consts), _numbers(second, consts)
    if first is None or other is None or first.dtype != other.dtype:
        return None
    rank = len(shapes.get(node.output[0]) or shapes.get(second.output[0]) or ())
    places = {_axis(tensor, rank) for tensor in (first, other)}
    if len(places) != 1 or (at := next(iter(places))) is None or first.size != other.size:
        return None
    mean, root = (other, first) if invert else (first, other)
    slots = {"mul.B": flat(root), "add.B": flat(mean)} if invert else {"sub.B": flat(mean), "div.B": flat(root)}
    ways = list(dict.fromkeys(t.derived for t in slots.values() if t.derived))
    return Reading(FORM, {"invert": invert, "axis": at}, slots, "; ".join(ways)), {after[0]: node.output[0]}


def _numbers(node: Any, consts: Mapping[str, Const]) -> Tensor | None:
    """What is stored of a node of two inputs; of Sub and Div it must be the second."""
    if len(node.input) != 2:
        return None
    held = [i for i, name in enumerate(node.input) if name in consts]
    if len(held) != 1 or (node.op_type in ("Sub", "Div") and held != [1]):
        return None
    tensor = consts[node.input[held[0]]].value
    return tensor if tensor is not None and tensor.size > 1 and tensor.dtype.kind not in "iub" else None


def _axis(tensor: Tensor, rank: int) -> int | None:
    """1 where the numbers are spread along the channels of a map that comes channels first, -1 along the last axis."""
    long = [i - len(tensor.shape) for i, n in enumerate(tensor.shape) if n != 1]
    if len(long) != 1:
        return None
    if long[0] == -1:
        return -1
    rank = max(rank, len(tensor.shape))
    return 1 if rank + long[0] == 1 else None
