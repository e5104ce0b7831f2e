"""What in an ONNX graph does not depend on its input: stored tensors, and what becomes of them before they are used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from layoutx.files.onnx_file import label
from layoutx.files.store import Store, Tensor

QUANTISED = ("DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear")


@dataclass(frozen=True, slots=True)
class Const:
    """A value that is the same for every input.

    Attributes:
        tensors: the stored tensors that it is made of; none where the graph computes it from shapes.
        turned: it is its one tensor with the two dimensions exchanged.
        through: the node that makes something else of its tensors, "" where their numbers are the value.
    """

    tensors: tuple[Tensor, ...] = ()
    turned: bool = False
    through: str = ""

    @property
    def tensor(self) -> Tensor | None:
        """The stored tensor that is this value; None where there are several, or none."""
        return self.tensors[0] if len(self.tensors) == 1 and not self.through else None

    @property
    def floats(self) -> bool:
        """Whether it may be a weight: more than one number, and not whole numbers."""
        return any(t.size > 1 and t.dtype.kind not in "iub" for t in self.tensors)


def constants(graph: Any, store: Store, prefix: str = "", outer: dict[str, Const] | None = None) -> dict[str, Const]:
    """Value name -> what it is made of, for all values of a graph that do not depend on its inputs."""
    found = dict(outer or {})
    for proto in graph.initializer:
        if prefix + proto.name in store.tensors:
            found[proto.name] = Const((store.tensors[prefix + proto.name],))
    for i, node in enumerate(graph.node):
        if node.op_type == "Constant" and node.output:
            tensor = store.tensors.get(prefix + node.output[0])
            found[node.output[0]] = Const((tensor,) if tensor is not None else ())
            continue
        given = [name for name in node.input if name]
        if given and all(name in found for name in given) and not any(a.HasField("g") for a in node.attribute):
            made = _made(node, i, [found[name] for name in given])
            found.update({name: made for name in node.output if name})
    return found


def _made(node: Any, position: int, given: list[Const]) -> Const:
    """What one node makes of constants."""
    first = given[0]
    here = f"{node.op_type} {label(node, position)}"
    tensors = tuple({t.name: t for const in given for t in const.tensors}.values())
    if first.through:
        return Const(tensors, through=first.through)
    if node.op_type == "Identity":
        return first
    if node.op_type in QUANTISED:
        return Const(tensors, through=f"{here}: they are quantised")
    tensor = first.tensor
    if node.op_type == "Cast" and tensor is not None and _widens(tensor, node):
        return first
    if node.op_type == "Transpose" and tensor is not None and len(tensor.shape) == 2:
        perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), [1, 0])
        return replace(first, turned=first.turned != (perm == [1, 0]))
    if node.op_type in ("Shape", "Size"):
        return Const()
    return Const(tensors, through=here)


def _widens(tensor: Tensor, node: Any) -> bool:
    """Whether a Cast keeps every number as it is: the stored numbers are then the weights."""
    from layoutx.files.onnx_file import dtype_of

    to = next((dtype_of(a.i) for a in node.attribute if a.name == "to"), None)
    if to is None:
        return False
    if tensor.dtype.isbuiltin == 2:  # bfloat16 and float8 are all floats of 32 bits cut short
        return to.name in ("float32", "float64") and "float" in tensor.dtype.name
    return bool(np.can_cast(tensor.dtype, to, "safe"))
