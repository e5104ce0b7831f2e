"""Blocks of positions that become channels, and channels that become them: SpaceToDepth, DepthToSpace, unfold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layoutx.model.axes import Axis, Dim, Shape, axes_in, size_of
from layoutx.model.onnx_axes import Flow, Value

Dims = tuple[Dim, ...] | None


def dealt(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Any) -> Dims:
    """DepthToSpace: channels as rows, columns and channels of a block (DCR), or its channels the slowest (CRD)."""
    dims, block = ins[0].dims if ins else None, said.get("blocksize")
    if dims is None or len(dims) != 4 or len(dims[1]) != 1 or not isinstance(block, int):
        return None
    axis = dims[1][0]
    if not isinstance(axis, Axis) or not axis.size or axis.size % block**2 or axis.id in flow.splits:
        return None
    rows, columns = (flow.axis(letter, node.name, block) for letter in ("ph", "pw"))
    channel = flow.axis("c", node.name, axis.size // block**2)
    flow.splits[axis.id] = (channel, rows, columns) if said.get("mode") == "CRD" else (rows, columns, channel)
    flow.note_map((dims[0], (channel,), (rows,), (columns,)))
    if "output" not in flow.uses.get(axis.origin, {}):  # of a Dense that is known already
        flow.use(axis.origin, "out", ins[0], dims[1:2], axis.size)
    positions: list[Dim] = [(flow.axis(x, node.name, _scaled(d, block)),) for x, d in zip("hw", dims[2:], strict=True)]
    made = (dims[0], (channel,), *positions)
    flow.note_map(made)
    return made


def _scaled(dim: Dim, block: int) -> int | None:
    size = size_of(dim)
    return None if size is None else size * block


def gathered(flow: Flow, node: Any, ins: Sequence[Value], out: Shape, said: Mapping[str, Any], ints: Any) -> Dims:
    """SpaceToDepth: rows, columns and channels of a block as channels (DCR), or the channels the slowest (CRD)."""
    dims, block = ins[0].dims if ins else None, said.get("blocksize")
    if dims is None or len(dims) != 4 or not isinstance(block, int):
        return None
    window = _window(flow, node.name, dims, (block, block))
    sizes = [n // block if (n := size_of(d)) else None for d in dims[2:]]
    positions: list[Dim] = [(flow.axis(x, node.name, n),) for x, n in zip("hw", sizes, strict=True)]
    return (dims[0], (*dims[1], *window) if said.get("mode") == "CRD" else (*window, *dims[1]), *positions)


def unfolded(flow: Flow, name: str, dims: Dims, size: Sequence[int]) -> Dims:
    """Windows of a map one after the other: the channels and positions of each (torch 2.13 nn.functional.unfold)."""
    if dims is None or len(dims) != 4:
        return None
    return (dims[0], (*dims[1], *_window(flow, name, dims, size)), (flow.axis("t", name, None),))


def _window(flow: Flow, name: str, dims: Sequence[Dim], size: Sequence[int]) -> Dim:
    """The positions of a window, which are a map with the channels."""
    window = tuple(flow.axis(letter, name, n) for letter, n in zip(("ph", "pw"), size, strict=True))
    flow.note_map((dims[0], dims[1], *((axis,) for axis in window)))
    flow.inputs -= {a.id for a in axes_in(dims[1])}
    return window
