"""One layer of a model that may be several of the other's: a matrix as large as these together, and how to say it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from layoutx.errors import MatchError
from layoutx.model.keyed import Keyed
from layoutx.model.said import PARTS
from layoutx.model.storing import Layer


def several_in_one(layers: Sequence[Layer], unused: Sequence[str], keyed: Keyed) -> list[MatchError]:
    """The first matrix without a layer that is as large as some layers without a place together, and how to say it.

    Args:
        layers: those without a place. unused: names of tensors that no layer has.
    """
    for name in unused:
        shape = keyed.tensors[name].shape
        for rows, width in (shape, shape[::-1]) if len(shape) == 2 else ():
            found = _together(layers, rows, width)
            if found:
                return [
                    MatchError(
                        f"{name} {shape} has no layer either",
                        why=f"it is as large as {', '.join(found)} together: it may be several layers in one",
                        do="if so, say how many rows each has, in the order in which they lie: "
                        f"--set '{name.rpartition('.')[0]}.{PARTS}=NAME ROWS, NAME ROWS'",
                    )
                ]
    return []


def one_in_several(layers: Sequence[Layer], unused: Sequence[str], keyed: Keyed) -> list[MatchError]:
    """The first Dense of Keras without a place that is as large as some matrices without a layer, and how to say it.

    Args:
        layers: those without a place. unused: names of tensors that no layer has.
    """
    spare = [name for name in unused if len(keyed.tensors[name].shape) == 2]
    for layer in (one for one in layers if one.record.form == "keras.Dense"):
        width, units = layer.record.tensors["kernel"].shape
        sizes = [keyed.tensors[name].size // width for name in spare]
        wide = [width in keyed.tensors[name].shape for name in spare]
        for start in range(len(spare)):
            for end in range(start + 2, len(spare) + 1):
                if all(wide[start:end]) and sum(sizes[start:end]) == units:
                    named = [name.rpartition(".")[0].rpartition(".")[2] for name in spare[start:end]]
                    each = ", ".join(f"{name} {size}" for name, size in zip(named, sizes[start:end], strict=True))
                    return [
                        MatchError(
                            f"{layer.record.name} {width, units} may be several layers in one",
                            why=f"it is as large as {', '.join(spare[start:end])} together, which have no layer either",
                            do="if so, say how many units each has, in the order in which they lie: "
                            f"--set '{layer.record.name}.{PARTS}={each}' ('*/qkv.{PARTS}=...' for several)",
                        )
                    ]
    return []


def _together(layers: Sequence[Layer], rows: int, width: int) -> list[str]:
    """Names of layers one after the other, of so many inputs, that have so many outputs together."""
    sizes = []
    for layer in layers:
        matrices = [tensor.shape for tensor in layer.bound.tensors if len(tensor.shape) == 2]
        if len(matrices) == 1 and width in matrices[0]:
            sizes.append((layer.record.name, prod(matrices[0]) // width))
    for start in range(len(sizes)):
        for end in range(start + 2, len(sizes) + 1):
            if sum(size for _, size in sizes[start:end]) == rows:
                return [name for name, _ in sizes[start:end]]
    return []
