"""Who reads what a layer gives, just as it comes: whether one layer follows another with nothing between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

ELSE = ""  # a reader that is no layer with weights of its own: an operation, the model's output


@dataclass(slots=True)
class Readers:
    """Gathered while a model is walked once.

    Attributes:
        read: layer -> who reads its output untouched.
        taken: reader -> the layers whose output it is given untouched; ELSE for anything else.
    """

    read: dict[str, set[str]] = field(default_factory=dict)
    taken: dict[str, set[str]] = field(default_factory=dict)

    def note(self, reader: str, makers: Iterable[str]) -> None:
        """Remembers that a layer, or ELSE, is given these values.

        Args:
            makers: for each value the layer whose untouched output it is, or ELSE. What a layer makes of its own
                values is no reading.
        """
        for maker in makers:
            if maker != reader or reader == ELSE:
                self.taken.setdefault(reader, set()).add(maker)
                self.read.setdefault(maker, set()).add(reader)

    def given(self, reader: str, makers: Sequence[str], untouched: bool) -> str:
        """As `note`, of an operation; returns who made what comes out of it: the reader, or who had made it before.

        Args:
            untouched: the operation hands on what it is given.
        """
        if untouched and len(makers) == 1 and makers[0] != reader:
            return makers[0]
        self.note(reader, makers)
        return reader

    def alone(self, reader: str) -> str:
        """The layer whose output this one reads, no other value, and nobody else reads it; "" where there is none."""
        taken = self.taken.get(reader, set())
        maker = next(iter(taken)) if len(taken) == 1 else ELSE
        return maker if self.read.get(maker) == {reader} else ELSE
