"""Stored numbers that an ONNX graph adds to every sequence, or multiplies each channel by: bare torch parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layoutx.files.store import Tensor
from layoutx.model.bare import called_table, is_scale, is_table, may_be_scale, ones_around
from layoutx.model.onnx_consts import Const
from layoutx.model.onnx_nodes import DOMAINS, Reading

TABLE, SCALE = "onnx.Add", "onnx.Mul"
FORMS = (TABLE, SCALE)
Shape = tuple[int | None, ...] | None


def bare(node: Any, consts: Mapping[str, Const], shapes: Mapping[str, Shape]) -> Reading | None:
    """The layer, where an Add adds one row of numbers for each position of (batch, positions, width) or without batch.

    Only a table that is called so: masks and other constants that are added have such shapes too. Or where a Mul has
    one factor for each channel.
    """
    if node.op_type not in ("Add", "Mul") or node.domain not in DOMAINS or len(node.input) != 2:
        return None
    held = [name for name in node.input if name in consts]
    given = [name for name in node.input if name not in consts]
    if len(held) != 1 or len(consts[held[0]].tensors) != 1:
        return None
    tensor, stored = consts[held[0]].value, consts[held[0]].tensors[0]
    if tensor is None:
        return None
    read = _rows if node.op_type == "Add" else _factors
    config = read(tensor, stored.name, shapes.get(given[0]))
    return None if config is None else Reading(f"onnx.{node.op_type}", config, {"B": tensor}, tensor.derived)


def _rows(tensor: Tensor, name: str, shape: Shape) -> dict[str, Any] | None:
    if not is_table(tensor) or not called_table(name):
        return None
    rows = tensor.shape[-2:]
    if shape is not None and (
        not 2 <= len(shape) <= 3 or any(n not in (None, m) for n, m in zip(shape[-2:], rows, strict=True))
    ):
        return None
    return {"leading": len(tensor.shape) == 3}


def _factors(tensor: Tensor, name: str, shape: Shape) -> dict[str, Any] | None:
    """The factors meet the last axis, or with ones behind them the channels right after the batch.

    A name that says something else counts; that of a constant which an exporter has folded says nothing.
    """
    if not is_scale(tensor) or tensor.size == 1 or not may_be_scale(name):
        return None
    ones = ones_around(tensor.shape)
    behind = 0 if ones["last"] else ones["rank"]
    if shape is not None and (
        len(shape) < max(len(tensor.shape), 2)
        or (behind and len(shape) != behind + 2)
        or shape[-1 - behind] not in (None, tensor.size)
    ):
        return None
    return ones
