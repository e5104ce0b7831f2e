"""What is gathered while a Keras model is walked once: axes, what reads them, what cannot be followed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from layoutx.frozen import frozen
from layoutx.model.axes import Axis, Dim, State, Use, expand
from layoutx.model.pieces import pieces
from layoutx.model.readers import Readers
from layoutx.model.record import LayerRecord, Piece


@frozen
class Value:
    """One tensor on its way: what it is made of, and the record that made it."""

    state: State
    maker: str = ""


@dataclass(slots=True)
class Flow:
    """What is gathered while walking the model once.

    `where`: the file, for errors.
    `normed`: what the walk tells of a batch normalization's data, as keys of its config.
    `joined`: the axes of a map's channels and of some of its positions -> the layer that made them one dimension.
    `tied`: axes of which a sum adds the elements one by one; `crossed`: axes of a Reshape that cuts across older ones.
    `veiled`: what a layer of which nothing is known makes of vectors.
    `dealt`: channels that are dealt out to positions; `taken`: axis -> how many layers read it and hand on others.
    """

    records: dict[str, LayerRecord]
    channels_first: bool
    where: str = ""
    uses: dict[str, dict[str, list[Use]]] = field(default_factory=dict)
    seen: dict[str, dict[str, list[Dim]]] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    inputs: dict[str, list[str]] = field(default_factory=dict)
    splits: dict[int, tuple[Dim, Dim]] = field(default_factory=dict)
    parents: dict[int, Axis] = field(default_factory=dict)
    normed: dict[str, dict[str, int]] = field(default_factory=dict)
    made: dict[int, tuple[Piece, ...]] = field(default_factory=dict)
    readers: Readers = field(default_factory=Readers)
    joined: dict[frozenset[int], str] = field(default_factory=dict)
    dealt: set[int] = field(default_factory=set)
    taken: Counter[int] = field(default_factory=Counter)
    tied: list[set[Axis]] = field(default_factory=list)
    crossed: dict[int, str] = field(default_factory=dict)
    veiled: dict[int, str] = field(default_factory=dict)
    count: int = 0

    def axis(self, letter: str, origin: str, size: int | None) -> Axis:
        """A leaf axis that no other layer has."""
        self.count += 1
        return Axis(self.count, letter, origin, size)

    def tie(self, axes: set[Axis]) -> None:
        """Remembers that these axes are added up element by element, and whatever they were added to before."""
        others = [own for own in self.tied if not own & axes]
        joined = axes.union(*(own for own in self.tied if own & axes))
        self.tied = [*others, joined] if len(joined) > 1 else self.tied

    def use(self, record: str, axis: str, last: Sequence[Dim], first: Sequence[Dim], total: int | None) -> None:
        """Remembers what one axis of one record is made of."""
        self.uses.setdefault(record, {}).setdefault(axis, []).append(Use(tuple(last), tuple(first), total))

    def see(self, record: str, axis: str, dim: Dim) -> None:
        """Remembers what an axis is made of that no framework orders otherwise: the channels of a convolution."""
        self.seen.setdefault(record, {}).setdefault(axis, []).append(dim)

    def note(self, record: str, text: str) -> None:
        """Remembers a note, once."""
        notes = self.notes.setdefault(record, [])
        if text not in notes:
            notes.append(text)

    def pieces(self, dims: Sequence[Dim], total: int | None) -> tuple[Piece, ...]:
        """What an axis is made of, laid end to end; of one that is whole and known, the same for all who read it."""
        alone = dims[0][0] if len(dims) == 1 and len(dims[0]) == 1 else None
        if not isinstance(alone, Axis) or alone.size is None or alone.id in self.splits:
            return pieces(dims, total, lambda dim: expand(dim, self.splits, 0))
        made = self.made.get(alone.id)
        if made is None:
            made = self.made[alone.id] = (Piece(((alone.letter, alone.size),), (alone.origin,)),)
        return made
