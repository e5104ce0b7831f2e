"""Shapes that an ONNX graph computes: `x.view(x.size(0), -1)` is Shape, Gather, Unsqueeze, Concat, Reshape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from layoutx.model.axes import Dim, size_of

Size = int | Dim | None  # a number, the length of a dimension that is not known, or something else
Ints = Callable[[str], "list[int] | None"]
SAME = ("Identity", "Cast", "Unsqueeze", "Squeeze")  # of a list of sizes, or of one size


def sizes_of(node: Any, sizes: Mapping[str, Sequence[Size]], dims: Sequence[Dim] | None, ints: Ints) -> list[Size]:
    """What a node makes of sizes, as a list; [] where that is no list of sizes.

    Args:
        sizes: what earlier nodes made.
        dims: the dimensions of the node's first input.
        ints: the numbers of a stored tensor.
    """
    op = node.op_type
    if op == "Shape":
        return [size if (size := size_of(d)) is not None else d for d in dims or ()] if not node.attribute else []
    given = [list(sizes.get(name, ())) or list(ints(name) or ()) for name in node.input if name]
    if op in SAME and given:
        return given[0]
    if op == "Concat" and all(given):
        return [size for part in given for size in part]
    if (
        op == "Gather"
        and len(given) > 1
        and all(type(i) is int and -len(given[0]) <= i < len(given[0]) for i in given[1])
    ):
        return [given[0][i] for i in given[1] if isinstance(i, int)]
    if op == "Slice" and len(given) in (3, 4) and all(len(part) == 1 and type(part[0]) is int for part in given[1:]):
        start, end = given[1][0], given[2][0]
        return given[0][start:end] if isinstance(start, int) and isinstance(end, int) else []
    return []


def wanted_of(sizes: Sequence[Size], dims: Sequence[Dim] | None) -> list[int] | None:
    """A computed target as ONNX would store it: 0 for a dimension that stays at its place; None where it cannot."""
    found: list[int] = []
    for i, size in enumerate(sizes):
        stays = dims is not None and i < len(dims) and size == dims[i]
        if not isinstance(size, int) and not stays:
            return None
        found.append(size if isinstance(size, int) else 0)
    return found or None
