"""One finding about a model's weights: what, where, why it matters, what to do; and how sure it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from layoutx.frozen import frozen

WRONG, SUSPECT, NOTE = "wrong", "suspect", "note"
LEVELS = (WRONG, SUSPECT, NOTE)


@frozen
class Finding:
    """One finding.

    Attributes:
        rule: which rule found it ("dead units"), the same word for all layers.
        level: "wrong" (no model should hold this), "suspect" (most often a fault), "note" (worth to know).
        layer: its name; "" for a tensor that no layer owns.
        what, where, why, do: as errors say it; `where` names axes and tensors.
        count: how many units, rows or numbers it is about; units: which, as text, the first ones.
    """

    rule: str
    level: str
    layer: str
    what: str
    where: str
    why: str
    do: str
    count: int = 1
    units: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)
