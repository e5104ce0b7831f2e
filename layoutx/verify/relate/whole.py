"""Two weight files as a whole: the relation of every layer, of tensors without a layer, and what is in one only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.verify.relate.loose import LooseRelation
from layoutx.verify.relate.relation import EXPLAINED, TensorRelation


@frozen
class LayerRelation:
    """One pair of layers.

    Attributes:
        name, place: the layer's name in the first model and in the second.
        source, target: its forms, "keras.LSTM" and "torch.LSTM".
        reason: how the two were paired.
        tensors: one relation for each stored tensor of the second.
        names: form tensor name -> the name in the second file.
        summary: what holds for the layer as a whole ("written as if the gate order were i c f o").
        right: form tensor name -> what the right conversion would have done, where something else was done.
        problem: why layoutx itself would not convert this layer; "" where it would.
    """

    name: str
    place: str
    source: str
    target: str
    reason: str
    tensors: tuple[TensorRelation, ...]
    names: Mapping[str, str] = NOTHING
    summary: tuple[str, ...] = ()
    right: Mapping[str, str] = NOTHING
    problem: str = ""

    @property
    def fine(self) -> bool:
        """Whether every tensor is as its form reads it."""
        return all(tensor.fine for tensor in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "layer": self.name, "place": self.place, "source": self.source, "target": self.target,
            "reason": self.reason, "fine": self.fine, "summary": list(self.summary), "problem": self.problem,
            "tensors": [
                {**t.to_dict(), "name": self.names.get(t.name, t.name), "right": self.right.get(t.name, "")}
                for t in self.tensors
            ],
        }  # fmt: skip


def spelled(path: str) -> str:
    """A layer's path as both frameworks would write it."""
    return path.replace("/", ".").lower()


@frozen
class Whole:
    """Two files.

    Attributes:
        source, target: their names.
        layers: in the source's order.
        loose: tensors of the second that no layer explains, related by their values alone.
        lost: source layer -> why it has no counterpart; open: source layer -> what it could be.
        extra: tensors of the second of which nothing is known -> why.
        leftover: tensors of either that are no weights -> what they are.
        seconds: how long it took.
    """

    source: str
    target: str
    layers: tuple[LayerRelation, ...]
    loose: tuple[LooseRelation, ...] = ()
    lost: Mapping[str, str] = NOTHING
    open: Mapping[str, tuple[str, ...]] = NOTHING
    extra: Mapping[str, str] = NOTHING
    leftover: Mapping[str, str] = NOTHING
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every tensor is explained, exactly as the registry says, and stands where its name says."""
        return all(layer.fine for layer in self.layers) and not self._rest and not self.crossed

    @property
    def crossed(self) -> tuple[tuple[str, ...], ...]:
        """Layers whose numbers stand in each other's place, as far as names tell: both files have all of these names.

        Each holds the numbers of the one before it, the first those of the last.
        """
        places = {spelled(layer.name): spelled(layer.place) for layer in self.layers}
        if len(places) < len(self.layers) or len(set(places.values())) < len(self.layers):
            return ()
        found, seen = [], set[str]()
        for layer in self.layers:
            round_: list[str] = []
            name: str | None = spelled(layer.name)
            while name is not None and name not in seen:
                seen.add(name)
                round_.append(name)
                name = places.get(name)
            if len(round_) > 1 and name == round_[0]:
                found.append(tuple(round_))
        return tuple(found)

    @property
    def _rest(self) -> bool:
        return bool(self.lost or self.open or self.extra) or not all(one.fine for one in self.loose)

    @property
    def explained(self) -> bool:
        """Whether a relation was found for every tensor, right or wrong."""
        tensors = [tensor for layer in self.layers for tensor in layer.tensors]
        return all(t.status in EXPLAINED for t in tensors) and not (self.extra or self.open)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "source": self.source, "target": self.target, "ok": self.ok, "explained": self.explained,
            "layers": [layer.to_dict() for layer in self.layers],
            "loose": [one.to_dict() for one in self.loose],
            "lost": dict(self.lost), "open": {name: list(own) for name, own in self.open.items()},
            "crossed": [list(names) for names in self.crossed],
            "extra": dict(self.extra), "leftover": dict(self.leftover), "seconds": self.seconds,
        }  # fmt: skip
