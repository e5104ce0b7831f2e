"""What one stored tensor is to the source: the layout its writer used, and what was done to the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.verify.relate.found import Found

SAME = "same"  # as the registry says, bit for bit
ROUNDED = "rounded"  # as the registry says, in a narrower type
SPLIT = "split"  # another split of a sum, which is all that the layer computes with
LAYOUT = "layout"  # the same numbers, in another layout
VALUES = "values"  # numbers that were changed: shifted, scaled, folded
ELSEWHERE = "elsewhere"  # the numbers of another layer's tensor
CLOSE = "close"  # nearly the same numbers
INITIAL = "initial"  # one number everywhere: never written
OTHER = "other"  # other numbers
FINE = (SAME, ROUNDED, SPLIT)
EXPLAINED = (*FINE, LAYOUT, VALUES, ELSEWHERE)


@frozen
class TensorRelation:
    """How one tensor of the target is made from the source.

    Attributes:
        name: the tensor in its form.
        status: one of the words above.
        holds: the layout that it really has, in the layout language; "" where none was found.
        reads: the layout that its form reads.
        words: what is different, one short sentence each; none for `same`.
        residual: largest difference between what is stored and what the relation makes; 0.0 is bit for bit.
        wrong: how many numbers the relation does not make.
        rivals: how many other relations explain the numbers as well: equal numbers hide their places.
        labels: enumerated axis -> the order of its labels as they lie.
        sizes: axis of `holds` -> length.
        found: the pieces, where each atom of the source lies.
    """

    name: str
    status: str
    holds: str = ""
    reads: str = ""
    words: tuple[str, ...] = ()
    residual: float = 0.0
    wrong: int = 0
    rivals: int = 0
    labels: Mapping[str, tuple[str, ...]] = NOTHING
    sizes: Mapping[str, int] = NOTHING
    found: tuple[Found, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether the relation makes every stored number, bit for bit."""
        return self.status in EXPLAINED and not self.wrong and self.residual == 0.0

    @property
    def fine(self) -> bool:
        """Whether the layer that reads it by its form computes with the source's numbers."""
        return self.status in FINE

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        residual = self.residual if isfinite(self.residual) else None  # JSON has no NaN
        return {
            "tensor": self.name, "status": self.status, "holds": self.holds, "reads": self.reads,
            "words": list(self.words), "residual": residual, "exact": self.exact, "wrong": self.wrong,
            "rivals": self.rivals, "labels": {axis: list(order) for axis, order in self.labels.items()},
            "sizes": dict(self.sizes),
        }  # fmt: skip
