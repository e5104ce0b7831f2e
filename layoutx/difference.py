"""What `diff` found: for each tensor how far it moved, which rows and units did not, and why that may be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.frozen import frozen
from layoutx.verify.change import TensorChange
from layoutx.verify.still import SAME
from layoutx.words import near


@frozen
class LayerDifference:
    """One layer.

    Attributes:
        name, place: as the first and the second model call it. forms: of the two sides.
        tensors: those that both have, in the first one's order.
        note: why nothing of it moved; "" where something did. notes: tensor -> what can be said of it.
    """

    name: str
    place: str
    forms: tuple[str, str]
    tensors: tuple[TensorChange, ...]
    note: str = ""
    notes: Mapping[str, tuple[str, ...]] = NOTHING

    def __getitem__(self, tensor: str) -> TensorChange:
        for found in self.tensors:
            if tensor in (found.name, found.key):
                return found
        known = ", ".join(t.name for t in self.tensors)
        raise UsageError(f"{self.name} has no tensor {tensor!r}", why=f"compared were {known}")

    @property
    def moved(self) -> bool:
        """Whether any number of it differs."""
        return any(t.changed for t in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        own = [{**t.to_dict(), "notes": list(self.notes.get(t.name, ()))} for t in self.tensors]
        return {
            "layer": self.name, "place": self.place, "forms": list(self.forms), "note": self.note, "tensors": own,
        }  # fmt: skip


@frozen
class Difference:
    """Two models; `found["dense_1"]["kernel"]` is one tensor, `print(found)` a table.

    Attributes:
        before, after: what they are called. frameworks: theirs.
        layers: in the order of the first model.
        only_before, only_after: tensor of one side only -> what is known of it.
        unpaired: layer that could not be compared -> why. skipped: layer -> why it was left out.
        leftover: tensors of either that are no weights -> what they are.
    """

    before: str
    after: str
    frameworks: tuple[str, str]
    layers: tuple[LayerDifference, ...]
    only_before: Mapping[str, str] = NOTHING
    only_after: Mapping[str, str] = NOTHING
    unpaired: Mapping[str, str] = NOTHING
    skipped: Mapping[str, str] = NOTHING
    leftover: Mapping[str, str] = NOTHING
    seconds: float = 0.0

    def __getitem__(self, name: str) -> LayerDifference:
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = [layer.name for layer in self.layers]
        raise UsageError(f"no layer is called {name!r}", why=near(name, known, "compared were"))

    def __iter__(self) -> Iterator[LayerDifference]:
        return iter(self.layers)

    @property
    def tensors(self) -> tuple[TensorChange, ...]:
        """All tensors that were compared."""
        return tuple(t for layer in self.layers for t in layer.tensors)

    @property
    def same(self) -> bool:
        """Whether both hold the same numbers, and the same tensors."""
        rest = self.only_before or self.only_after or self.unpaired
        return not rest and not any(t.changed for t in self.tensors)

    @property
    def paired(self) -> bool:
        """Whether every layer that may have a counterpart was compared."""
        return not self.unpaired

    @property
    def note(self) -> str:
        """What is to be said of the model as a whole."""
        return SAME if self.tensors and not any(t.changed for t in self.tensors) else ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "before": self.before, "after": self.after, "frameworks": list(self.frameworks), "same": self.same,
            "note": self.note, "layers": [layer.to_dict() for layer in self.layers],
            "only_before": dict(self.only_before), "only_after": dict(self.only_after),
            "unpaired": dict(self.unpaired), "skipped": dict(self.skipped), "leftover": dict(self.leftover),
            "seconds": self.seconds,
        }  # fmt: skip

    def text(self, width: int = 99, color: bool = False) -> str:
        """As a terminal shows it."""
        from layoutx.show.diff_text import diff_text

        return diff_text(self, width, color)

    def __str__(self) -> str:
        return self.text()
