"""The order of an axis as the wiring of both models shows it, element for element, whatever their frameworks' habit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import permutations
from math import prod

import numpy as np

from layoutx.errors import ConversionError
from layoutx.frozen import frozen
from layoutx.model.axes import identifier
from layoutx.model.keyed import Keyed
from layoutx.model.record import LayerRecord, Piece, Refinement

Leaf = tuple[str, int]  # the name of an axis, and its length
Run = tuple[Leaf, ...]  # axes multiplied, the outermost first; several runs lie end to end
LAID_OTHERWISE = "axis could not be followed: its map is flattened in another order"
_LABEL = re.compile(r"^\s*\w+\s*:")


@frozen
class Seen:
    """What a model's wiring shows of the axes of one layer's weights."""

    pieces: Mapping[str, Sequence[Piece]]
    refine: Mapping[str, Refinement]
    note: str


def seen_of(keyed: Keyed, path: str) -> Seen | None:
    """What the program, the graph or the config of a keyed model shows of one module; None where nothing does."""
    found = keyed.axes().get(path) if keyed.axes is not None else keyed.modules.get(path)
    return Seen(found.pieces, found.refine, found.note) if found is not None else None


def composite(record: LayerRecord) -> bool:
    """Whether some axis is a product of axes, which could be multiplied in another order."""
    return any(map(several, record.pieces.values()))


def several(every: Sequence[Piece]) -> bool:
    """Whether some run of an axis is a product of axes."""
    return any(len(_long(piece)) > 1 for piece in every)


def turned_in(pieces: Mapping[str, Sequence[Piece]]) -> set[str]:
    """The axes in which some axes stand in another order than they were made in."""
    return {axis for axis, every in pieces.items() if any(piece.turned for piece in every)}


@frozen
class Order:
    """What the wiring of both models shows of one axis.

    Attributes:
        refine: it in both models' own orders, where it lies otherwise than its dims say.
        sure: each of its parts is known by a name or a length of its own.
    """

    refine: Refinement | None = None
    sure: bool = False


def order_of(record: LayerRecord, axis: str, seen: Seen, texts: tuple[str, str]) -> Order:
    """The order of an axis in both models, as far as their pieces can be compared.

    Args:
        texts: its dims in the record's own order, and in the order that is supposed of the other model; "" and "" where
            both are supposed to have one order.

    Raises:
        ConversionError: it lies in another order there, and axes of one length leave open in which.
    """
    here, there = (_runs(every.get(axis, ())) for every in (record.pieces, seen.pieces))
    if here is None or there is None or [_length(run) for run in here] != [_length(run) for run in there]:
        return Order()
    supposed = _order(*_named(record, axis, texts)) if texts[0] else np.arange(sum(map(_length, here)))
    kept = _parted(here, supposed)
    if kept is None:
        return Order()
    # of a map that a convolution reads or makes the names are those of its own axes
    known = axis in seen.refine or f"{axis} {LAID_OTHERWISE}" in seen.note
    told = [_matched(a, b, known) for a, b in zip(here, there, strict=True)]
    laid = [run or _alike(*runs) for run, *runs in zip(told, here, there, kept, strict=True)]
    parts = zip(told, here, record.pieces[axis], seen.pieces[axis], strict=True)
    if None in laid or (
        not known and any(t is None and len(own) > 1 and (a.turned or b.turned) for t, own, a, b in parts)
    ):
        raise _untold(record, axis, here, there)
    found = [run for run in laid if run is not None]
    return Order(None if found == kept else _refinement(record, axis, here, found), None not in told)


def _alike(here: Run, there: Run, kept: Run) -> Run | None:
    """The axes of one run where only their lengths in order can be compared; None where these contradict it.

    A live model may have been run on a map of other sides than the real one: letters in one order are no contradiction.
    """
    sizes = [[n for _, n in run] for run in (here, there, kept)]
    if Counter(sizes[0]) != Counter(sizes[1]) or sizes[2] == sizes[1] or _letters(kept) == _letters(there):
        return kept
    return here if sizes[0] == sizes[1] else None


def _letters(run: Run) -> list[str]:
    return [name.partition("_")[0] for name, _ in run]


def _long(piece: Piece) -> list[tuple[str, int | None]]:
    return [(name, n) for name, n in piece.axes if n != 1]


def _runs(pieces: Sequence[Piece]) -> list[Run] | None:
    """The axes of each piece that are longer than one, each under a name of its own; None where one has no length."""
    runs, names = list[Run](), set[str]()
    for piece in pieces:
        run: list[Leaf] = []
        for letter, n in _long(piece):
            if n is None:
                return None
            base = name = identifier(letter)
            while name in names:
                name = f"{base}_{len(names)}"
            names.add(name)
            run.append((name, n))
        runs.append(tuple(run))
    return runs or None


def _length(run: Run) -> int:
    return prod(n for _, n in run)


def _matched(here: Run, there: Run, known: bool) -> Run | None:
    """The axes of `here` in the order of `there`: by the letters of a map, or by lengths; None where neither tells."""
    if Counter(n for _, n in here) != Counter(n for _, n in there):
        return None
    by_letter, by_size = dict(zip(_letters(here), here, strict=True)), {n: (name, n) for name, n in here}
    if known and sorted(_letters(here)) == sorted(_letters(there)) and len(by_letter) == len(here):
        found = tuple(by_letter[letter] for letter in _letters(there))
        if [n for _, n in found] == [n for _, n in there]:
            return found
    return tuple(by_size[n] for _, n in there) if len(by_size) == len(here) else None


def _order(here: Sequence[Run], there: Sequence[Run]) -> np.ndarray:
    """Which element of an axis laid as `here` stands at each place of one laid as `there`."""
    found, start = [], 0
    for a, b in zip(here, there, strict=True):
        at = {name: i for i, (name, _) in enumerate(a)}
        whole = np.arange(start, start + _length(a)).reshape([n for _, n in a])
        found.append(whole.transpose([at[name] for name, _ in b]).ravel())
        start += _length(a)
    return np.concatenate(found)


def _named(record: LayerRecord, axis: str, texts: tuple[str, str]) -> list[list[Run]]:
    """The runs that the dims of an axis say, `(h w c)` and `input{conv: (h w c) | fc: n}`."""
    sizes = record.refine[axis].sizes
    every = []
    for text in texts:
        inner = text.partition("{")[2].rpartition("}")[0] if "{" in text else text
        words = [_LABEL.sub("", part) if "{" in text else part for part in inner.split("|")]
        every.append([tuple((name, sizes[name]) for name in re.findall(r"\w+", part)) for part in words])
    return every


def _parted(here: Sequence[Run], order: np.ndarray) -> list[Run] | None:
    """The axes of each run in the order in which its elements stand; None where they are no product of them."""
    found, start = list[Run](), 0
    for run in here:
        own = order[start : start + _length(run)] - start
        start += _length(run)
        one = next((p for p in permutations(run) if np.array_equal(_order([run], [p]), own)), None)
        if one is None:
            return None
        found.append(one)
    return found


def _text(axis: str, runs: Sequence[Run], labels: Sequence[str]) -> str:
    every = [" ".join(name for name, _ in run) for run in runs]
    every = [f"({text})" if " " in text else text for text in every]
    if len(runs) == 1:
        return every[0]
    return f"{axis}{{{' | '.join(f'{label}: {text}' for label, text in zip(labels, every, strict=True))}}}"


def _refinement(record: LayerRecord, axis: str, here: Sequence[Run], there: Sequence[Run]) -> Refinement:
    """Both orders over the same axes; `own` is that of the record, which stands under `last`."""
    sizes = {name: n for run in here for name, n in run}
    labels: list[str] = []
    for piece in record.pieces[axis]:
        base = label = identifier(piece.origins[0] if piece.origins else "part")
        while label in labels or label in sizes or label == axis:
            label = f"{base}_{len(labels) + 1}"
            base = f"{base}_"
        labels.append(label)
    old = record.refine.get(axis)
    why = old.why if old is not None else ", ".join(dict.fromkeys(o for p in record.pieces[axis] for o in p.origins))
    return Refinement(_text(axis, here, labels), _text(axis, there, labels), sizes, why, "last")


def _untold(record: LayerRecord, axis: str, here: Sequence[Run], there: Sequence[Run]) -> ConversionError:
    spelt = [" and ".join(" x ".join(f"{name}={n}" for name, n in run) for run in runs) for runs in (here, there)]
    return ConversionError(
        f"the order of the {axis} axis is not known",
        why=f"it is {spelt[0]} here and {spelt[1]} in the other model, and axes of one length could be each other",
        do=f"say that the order stays as it is: --keep-order {record.name}",
    )
