"""The layers of a torch program with weights: what these meet, and the axes that come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from layoutx.model.axes import Dim, Shape
from layoutx.model.onnx_axes import Flow, Value
from layoutx.model.onnx_rules import spatial
from layoutx.model.torch_ops import PARTS, ruled
from layoutx.model.torch_program import Op

LINEAR = ("linear", "nondynamicallyquantizablelinear", "addmm", "mm")
CONVS = frozenset(f"conv{kind}{n}d" for kind in ("", "transpose") for n in (1, 2, 3)) | {"convolution"}
RECURRENT = ("lstm", "gru", "rnn", "rnntanh", "rnnrelu")
NORMS = (
    "batchnorm",
    "batchnorm1d",
    "batchnorm2d",
    "batchnorm3d",
    "nativebatchnormlegitnotraining",
    "nativebatchnorm",
    "prelu",
    "syncbatchnorm",
)
LAST_NORMS = ("layernorm", "nativelayernorm", "rmsnorm")


@dataclass(slots=True)
class Walk:
    """What is gathered while following one program."""

    flow: Flow
    shapes: Mapping[str, tuple[int, ...]]  # of the state dict
    below: Mapping[str, list[str]]  # path of a module -> names of the state dict below it
    owner: dict[str, str] = field(default_factory=dict)  # value name -> the state dict's name of a weight
    classes: dict[str, str] = field(default_factory=dict)
    parts: dict[str, list[Any]] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)  # names of weights that were turned over

    def rows_out(self, op: Op) -> bool:
        """Whether each row of the matrix that an operation reads makes one output: `linear` wants it so, `mm` not."""
        turned = any(ref.name in self.over for ref in op.refs())
        return turned if op.name in ("addmm", "mm") else not turned

    def weight(self, op: Op, ending: str = "weight") -> str:
        """The state dict's name of the weight that an operation reads; "" where it reads none of its module's."""
        for ref in op.refs():
            name = self.owner.get(ref.name, "")
            if name.rpartition(".")[2].startswith(ending):
                return name
        if op.whole and op.stack:
            path = op.stack[-1][0]
            return next((n for n in self.below.get(path, ()) if n.startswith(f"{path}.{ending}")), "")
        return ""


def made_by(walk: Walk, op: Op, path: str | None, ins: Sequence[Value]) -> list[tuple[Dim, ...] | None]:
    """The dims of an operation's outputs, and what a module's weights meet."""
    flow, value = walk.flow, ins[0] if ins else Value()
    out: Shape = flow.shapes.get(op.outputs[0])
    shape = walk.shapes.get(walk.weight(op), ())
    if path is not None:
        if op.name in LINEAR and len(shape) == 2:
            shape = shape if walk.rows_out(op) else shape[::-1]
            return [_linear(flow, path, value, shape, walk.weight(op).endswith("weight"))]
        if op.name in CONVS and len(shape) > 2:
            turned = "transpose" in op.name or bool(op.arg(6, "transposed", default=False) and op.name == "convolution")
            channels = shape[0] if not turned else None
            if value.dims is not None and len(value.dims) > 1 and len(value.dims[1]) > 1:  # a map's, and positions
                flow.use(path, "in", value, value.dims[1:2], shape[0 if turned else 1])
            known = out if out is not None else (None, channels, *[None] * (len(shape) - 2))
            return [spatial(flow, path, value.dims, known, None)]
        if op.name == "embedding" and len(shape) == 2:
            return [None if value.dims is None else (*value.dims, (flow.axis("n", path, shape[1]),))]
        if op.name in RECURRENT:
            return _recurrent(walk, op, path, value)
        if op.name in (*NORMS, *LAST_NORMS) and shape:
            _norm(flow, op, path, value, shape)
        if op.whole and op.name == "multiheadattention":
            return [value.dims]
    if op.name in PARTS and len(op.outputs) > 1:
        return []
    return [ruled(flow, op, ins, out)]


def _linear(flow: Flow, path: str, value: Value, shape: tuple[int, ...], own: bool) -> tuple[Dim, ...] | None:
    """`own`: it is the module's `weight`, and no part of a larger one, whose rows are another kind's."""
    new: Dim = (flow.axis("n", path, shape[0]),)
    if own:
        flow.use(path, "input", value, value.dims[-1:] if value.dims else (), shape[1])
        flow.use(path, "output", Value((new,)), (new,), shape[0])
    return None if value.dims is None else (*value.dims[:-1], new)


def _recurrent(walk: Walk, op: Op, path: str, value: Value) -> list[tuple[Dim, ...] | None]:
    """y is (batch, time, hidden) or (time, batch, hidden) as what goes in; states (layers, batch, hidden)."""
    flow = walk.flow
    kernel = walk.shapes.get(f"{path}.weight_ih_l0" if path else "weight_ih_l0", ())
    flow.use(path, "input", value, value.dims[-1:] if value.dims else (), kernel[1] if len(kernel) == 2 else None)
    given = op.arg(-1, "batch_first", default=False)
    if value.dims is None or len(value.dims) != 3:
        return [None]
    hidden: Dim = (flow.axis("n", path, None),)
    batch = value.dims[0 if given else 1]
    layers: Dim = (flow.axis("r", path, None),)
    return [(*value.dims[:2], hidden), (layers, batch, hidden), (layers, batch, hidden)]


def _norm(flow: Flow, op: Op, path: str, value: Value, shape: tuple[int, ...]) -> None:
    """Norms over a flattened map have their numbers in its order too."""
    dims, last = value.dims or (), op.name in LAST_NORMS
    used = dims[-len(shape) :] if last else dims[1:2]
    if value.dims is None and not last:
        return  # the channels of a map, whatever came before
    flow.use(path, "features" if last else "channel", value, used, prod(shape) if len(used) == 1 else None)
