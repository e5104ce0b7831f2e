"""Dimensions of a graph's values with the axes that a Reshape took apart replaced by their parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from layoutx.model.axes import Axis, Dim, Item

if TYPE_CHECKING:
    from layoutx.model.onnx_axes import Flow


def key_of(axes: Sequence[Item]) -> frozenset[int]:
    return frozenset(a.id for a in axes if not isinstance(a, Axis) or a.size != 1)


def apart(flow: Flow, dim: Dim, every: bool = False) -> Dim:
    """The dimension with axes replaced by the parts that a Reshape made of them.

    Args:
        every: their own parts too, whatever they turned out to be; else only where they turned out to be a map.
    """
    out: list[Item] = []
    for item in dim:
        parts = flow.splits.get(item.id, ()) if isinstance(item, Axis) else ()
        parts = parts if every or key_of(parts) in flow.maps else ()
        out.extend((apart(flow, parts, every) if every else parts) if parts else (item,))
    return tuple(out)


def lettered(letters: Mapping[int, str], dim: Dim) -> Dim:
    """The axes of a map under their usual letters."""
    return tuple(replace(x, letter=letters.get(x.id, x.letter)) if isinstance(x, Axis) else x for x in dim)
