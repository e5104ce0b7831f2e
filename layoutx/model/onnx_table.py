"""A stored table of positions that an ONNX graph adds to every sequence: the bare parameter of a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layoutx.model.bare import called_table, is_table
from layoutx.model.onnx_consts import Const
from layoutx.model.onnx_nodes import DOMAINS, Reading

FORM = "onnx.Add"
Shape = tuple[int | None, ...] | None


def table(node: Any, consts: Mapping[str, Const], shapes: Mapping[str, Shape]) -> Reading | None:
    """The layer, where an Add adds one row of numbers for each position of (batch, positions, width) or without batch.

    Only a tensor that is called so: masks and other constants that are added have such shapes too.
    """
    if node.op_type != "Add" or node.domain not in DOMAINS or len(node.input) != 2:
        return None
    held = [name for name in node.input if name in consts]
    given = [name for name in node.input if name not in consts]
    if len(held) != 1 or len(consts[held[0]].tensors) != 1:
        return None
    tensor, stored = consts[held[0]].value, consts[held[0]].tensors[0]
    if tensor is None or not is_table(tensor) or not called_table(stored.name):
        return None
    shape = shapes.get(given[0])
    rows = tensor.shape[-2:]
    if shape is not None and (
        not 2 <= len(shape) <= 3 or any(n not in (None, m) for n, m in zip(shape[-2:], rows, strict=True))
    ):
        return None
    config = {"leading": len(tensor.shape) == 3}
    return Reading(FORM, config, {"B": tensor}, tensor.derived)
