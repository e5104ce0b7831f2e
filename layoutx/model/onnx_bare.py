"""Stored numbers that an ONNX graph adds to sequences, lays before them, or multiplies channels by: bare parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.files.store import Tensor
from layoutx.model.axes import Shape
from layoutx.model.bare import called_table, is_scale, is_table, may_be_scale, ones_around
from layoutx.model.onnx_consts import Const
from layoutx.model.onnx_forms import Reading
from layoutx.model.onnx_nodes import DOMAINS

TABLE, SCALE, TOKENS = "onnx.Add", "onnx.Mul", "onnx.Concat"
FORMS = (TABLE, SCALE, TOKENS)


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


def tokens(
    nodes: Sequence[Any],
    node: Any,
    consts: Mapping[str, Const],
    makers: Mapping[str, int],
    shapes: Mapping[str, Shape],
) -> tuple[Reading, dict[int, str]] | None:
    """The layer, where a Concat lays the same stored rows before or behind every sequence of a batch; None elsewhere.

    A class token is (1, 1, width), spread over the batch by an Expand whose shape may depend on the data.

    Returns:
        The layer, and the Expand (position -> its input) where that is no constant.
    """
    if node.op_type != "Concat" or node.domain not in DOMAINS or len(node.input) != 2:
        return None
    passed = {name: at for name in node.input if (at := _spread(nodes, name, consts, makers)) is not None}
    held = [name for name in node.input if name in consts or name in passed]
    given = [name for name in node.input if name not in held]
    said = next((a.i for a in node.attribute if a.name == "axis"), None)
    shape = shapes.get(given[0]) if given else None
    if len(held) != 1 or said not in (1, -2) or (shape is not None and len(shape) != 3):
        return None
    stored = nodes[passed[held[0]]].input[0] if held[0] in passed else held[0]
    rows = _same_rows(consts[stored])
    if rows is None or (shape is not None and shape[-1] not in (None, rows.shape[-1])):
        return None
    between = {passed[held[0]]: stored} if held[0] in passed else {}
    return Reading(TOKENS, {"leading": len(rows.shape) == 3}, {"B": rows}, rows.derived), between


def _spread(nodes: Sequence[Any], value: str, consts: Mapping[str, Const], makers: Mapping[str, int]) -> int | None:
    """The Expand that spreads a constant in this value, which is none itself."""
    at = makers.get(value, -1)
    found = at >= 0 and value not in consts and nodes[at].op_type == "Expand" and nodes[at].input[0] in consts
    return at if found else None


def _same_rows(const: Const) -> Tensor | None:
    """The stored rows that a constant holds for each of a batch, (rows, width) or (1, rows, width); None where not.

    Where an exporter spread them over its batch when it ran, they are the first of it.
    """
    floats, value = [t for t in const.tensors if t.dtype.kind not in "iub"], const.value
    if len(floats) != 1 or value is None or len(value.shape) not in (2, 3) or not value.size:
        return None
    stored, every = floats[0], np.asarray(value.read()).reshape(-1, *value.shape[-2:])
    untold = not np.any(every) and not called_table(stored.name)  # zeros: padding, unless they are untrained
    if untold or not np.array_equal(every, np.broadcast_to(every[:1], every.shape)):
        return None
    if is_table(stored):
        return stored if np.array_equal(np.asarray(stored.read()).reshape(-1), every[0].reshape(-1)) else None
    if stored.shape != every.shape or not np.array_equal(stored.read(), every):
        return None
    shape, said = (1, *stored.shape[1:]), "the same for each of a batch"
    return Tensor(stored.name, stored.dtype, shape, lambda: every[:1], said, intact=True)
