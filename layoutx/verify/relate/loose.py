"""Tensors without a layer, or with the numbers of another one: related tensor against tensor, by values alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.relate.change import UNCHANGED, changes, roundings
from layoutx.verify.relate.found import Found, differing
from layoutx.verify.relate.lookup import keys_of, occurrences
from layoutx.verify.relate.near import nearness
from layoutx.verify.relate.numbers import Numbers
from layoutx.verify.relate.search import search
from layoutx.verify.relate.steps import Run
from layoutx.verify.relate.telling import changed
from layoutx.verify.relate.written import piece_of, written

SAMPLE = 64
MOST_FOUND = 0.9
LEAST = 3
LARGEST = 1 << 20


@frozen
class LooseRelation:
    """A tensor of the second file made from one of the first.

    Attributes:
        name, source: the two tensors' names.
        holds: the layout found, the source's dimensions called d0, d1, ...; "" where no layout says it.
        words: what is different; () where it is an exact copy.
        wrong: how many numbers differ all the same.
        pair: layer and tensor that it was read as, where a layer does read it.
    """

    name: str
    source: str
    holds: str
    words: tuple[str, ...] = ()
    wrong: int = 0
    pair: str = ""

    @property
    def fine(self) -> bool:
        """Whether it is an exact copy under the same name."""
        return self.name == self.source and not self.words and not self.wrong and not self.pair

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def loose(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[LooseRelation]:
    """For tensors of the second file, the tensor of the first that holds the same numbers.

    Args:
        ours: all tensors of the first file; theirs: those of the second that nothing else explains.

    Returns:
        One for each tensor that has an origin; those of which nothing is known are left out.
    """
    found = []
    for name, tensor in theirs.items():
        stored, namesake = tensor.read(), ours.get(name)
        own = namesake.read() if namesake is not None and namesake.shape == tensor.shape else None
        if own is not None and own.dtype == stored.dtype and own.tobytes() == stored.tobytes():
            found.append(LooseRelation(name, name, ""))
            continue
        floats = tensor.size >= LEAST and tensor.dtype.kind in "fV"
        origin = next(_origins(stored, [t for t in ours.values() if t.size == tensor.size]), None) if floats else None
        resized = next(_resized(name, stored, ours.values()), None) if floats and origin is None else None
        if origin is not None:
            found.append(_related(name, stored, *origin))
        elif resized is not None:
            found.append(resized)
        elif own is not None:
            found.append(_namesake(name, own, stored))
    return found


def _namesake(name: str, own: Array, stored: Array) -> LooseRelation:
    """A tensor beside the one of the same name: what was done to the numbers, or how near they are."""
    change = next(changes(own, stored), None) if own.size <= LARGEST else None
    if change is not None:
        return LooseRelation(name, name, "", (f"its numbers: {change.text}",))
    words = nearness(own.reshape(-1), stored.reshape(-1)).words
    return LooseRelation(name, name, "", words, int((own != stored).sum()))


def _origins(stored: Array, candidates: Sequence[Tensor]) -> Iterator[tuple[Tensor, Array]]:
    """Tensors in which nearly all of a few numbers occur, as they are or rounded."""
    flat = np.ascontiguousarray(stored).reshape(-1)
    keys = keys_of(flat[:: max(1, flat.size // SAMPLE)])
    for tensor in candidates if len(keys) >= LEAST else ():
        array = tensor.read()
        for change in (UNCHANGED, *roundings(array.dtype, flat)):
            which, _ = occurrences(keys, np.ascontiguousarray(change(array, flat.dtype)).reshape(-1))
            if len(np.unique(which)) >= MOST_FOUND * len(keys):
                yield tensor, array
                break


def _resized(name: str, stored: Array, candidates: Iterable[Tensor]) -> Iterator[LooseRelation]:
    """Tensors of which this one holds a part, or that are a part of this one: rows for padding, rows cut off."""
    for tensor in candidates:
        axes = [i for i in range(stored.ndim) if tensor.shape[i : i + 1] != stored.shape[i : i + 1]]
        if len(tensor.shape) != stored.ndim or stored.ndim < 2 or len(axes) != 1:
            continue
        axis, origin = axes[0], tensor.read()
        longer = stored.shape[axis] > origin.shape[axis]
        small, big = (origin, stored) if longer else (stored, origin)
        flat = np.ascontiguousarray(big).reshape(-1)
        places = search([Numbers("", (), tuple(f"d{i}" for i in range(small.ndim)), small)], flat)
        strides = [int(np.prod(big.shape[i + 1 :])) for i in range(big.ndim)]
        wanted = {f"d{i}": (Run(n, strides[i]),) if n > 1 else () for i, n in enumerate(small.shape)}
        if places and not places[0].wrong and places[0].runs == wanted:
            first = places[0].offset // strides[axis] if strides[axis] else 0
            span = f"{first} to {first + small.shape[axis] - 1}"
            more = f"{big.shape[axis] - small.shape[axis]:,}"
            words = (
                f"they stand at {span} of its d{axis}; {more} more are not the source's"
                if longer
                else (f"only {span} of its d{axis}; {more} are left out")
            )
            yield LooseRelation(name, tensor.name, "", (words,))


def _related(name: str, stored: Array, origin: Tensor, array: Array) -> LooseRelation:
    axes = tuple(f"d{i}" for i in range(array.ndim))
    numbers = Numbers(origin.name, (), axes, array)
    flat = np.ascontiguousarray(stored).reshape(-1)
    for change in (UNCHANGED, *roundings(array.dtype, flat)):
        places = search([numbers], flat, change)
        if places:
            return _told(name, stored, places[0])
    return LooseRelation(name, origin.name, "", ("the same numbers, in an order that no layout says",))


def _told(name: str, stored: Array, place: Found) -> LooseRelation:
    text = written([piece_of(place)], stored.shape)
    words = changed([place])
    dims = " ".join(place.numbers.axes)
    if text is not None and text.text.partition(": ")[2] != dims:
        words.insert(0, f"its dimensions lie as {text.text.partition(': ')[2]}")
    if place.wrong:
        words.append(differing(place.wrong, stored.size, place.residual))
    return LooseRelation(name, place.numbers.role, text.text if text else "", tuple(words), place.wrong)
