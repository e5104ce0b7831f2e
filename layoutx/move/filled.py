"""One piece of an output tensor, made in a buffer: by the plain executor's own steps, cut down to the piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from threading import Lock, local

import numpy as np

from layoutx.files.blob import flat_of, forget
from layoutx.files.dtypes import Array, DType, bits
from layoutx.files.hashes import LOCK, Leaves
from layoutx.files.store import Tensor
from layoutx.move.cast import Lost, cast, is_floating
from layoutx.move.moves import Move, Recipe
from layoutx.move.pieces import Cut, clipped
from layoutx.plan.run import Result, run, sums_of, write
from layoutx.plan.steps import Add, Copy

LARGE = 1 << 20  # bytes of a mapped tensor, from which on its pages are given back when it was used


@dataclass(slots=True)
class Seen:
    """What was observed while the pieces of one tensor were made.

    Attributes:
        hash: of what it holds, once all of its bytes have come.
        rounded: the largest rounding error of its sums; None where none was rounded.
        lost: what its conversion to another dtype lost; None where there was none.
        sources: the source tensors that were read first for this one, with their hashes.
        leaves: the digests of what has come so far, where it is made in pieces.
    """

    hash: str = ""
    rounded: float | None = None
    lost: Lost | None = None
    sources: tuple[tuple[str, str], ...] = ()
    leaves: Leaves | None = None

    def more(self, rounded: float | None, lost: Lost | None) -> None:
        """Of one piece more; pieces come from several threads."""
        with LOCK:
            if rounded is not None:
                self.rounded = rounded if self.rounded is None else max(self.rounded, rounded)
            if lost is not None:
                self.lost = lost if self.lost is None else self.lost + lost


class _Rooms(local):
    """The buffers of one thread, kept between pieces: fresh memory costs more than a copy into it."""

    def __init__(self) -> None:
        self._kept: dict[str, Array] = {}

    def of(self, name: str, dtype: DType, size: int) -> Array:
        """A flat array of undefined numbers, valid until the next one of this name is asked for."""
        nbytes = size * dtype.itemsize
        kept = self._kept.get(name)
        if kept is None or len(kept) < nbytes:
            kept = self._kept[name] = np.empty(nbytes, np.uint8)
        return kept[:nbytes].view(dtype)


room = _Rooms().of


class Sources:
    """Flat source arrays: views of maps as they are; what has to be read is kept until the last piece took it.

    Then the pages of a large map are given back too.
    """

    def __init__(self, moves: Iterable[tuple[Move, int]] = ()) -> None:
        """Moves with the number of their pieces."""
        self._flat: dict[int, Array] = {}
        self._left: Counter[int] = Counter()
        self._lock = Lock()
        for move, many in moves:
            for tensor in move.tensors:
                self.more(tensor, many)

    def flat(self, move: Move) -> dict[str, Array]:
        """Source name -> flat array, of all that a move reads."""
        return dict(zip(move.recipe.reads, map(self.one, move.tensors), strict=True))

    def more(self, tensor: Tensor, many: int) -> None:
        """A tensor is read so often besides."""
        if _counts(tensor):
            self._left[id(tensor)] += many

    def let_go(self, tensors: Iterable[Tensor]) -> None:
        """Each of these tensors was used once."""
        for tensor in tensors:
            if id(tensor) not in self._left:  # those that `_counts` left out
                continue
            with self._lock:
                self._left[id(tensor)] -= 1
                last = self._left[id(tensor)] <= 0
                if last:
                    self._flat.pop(id(tensor), None)
            if last and tensor.mapped:
                forget(tensor)

    def one(self, tensor: Tensor) -> Array:
        """The flat array of one source tensor."""
        if tensor.mapped:
            return flat_of(tensor)
        with self._lock:
            found = self._flat.get(id(tensor))
            if found is None:
                found = self._flat[id(tensor)] = flat_of(tensor)
        return found


def _counts(tensor: Tensor) -> bool:
    """Whether it matters when a tensor was used for the last time."""
    return not tensor.mapped or tensor.nbytes >= LARGE


def plain_run(recipe: Recipe) -> bool:
    """Whether the bytes of the only source are the tensor's own, in their order."""
    if len(recipe.steps) != 1 or recipe.dtype != recipe.working or recipe.whole is not None:
        return False
    (step,) = recipe.steps
    if not isinstance(step, Copy) or step.negate or step.target_offset or step.source_offset:
        return False
    whole = all(loop.size == 1 or (loop.target, loop.source) == (1, 1) for loop in step.loops)
    return whole and len([x for x in step.loops if x.size != 1]) <= 1 and recipe.reads[step.source] == recipe.dtype


def filled(move: Move, cut: Cut, number: int, flat: Mapping[str, Array], seen: Seen) -> Array:
    """The bytes of one piece, flat uint8, its runs end to end; valid until this thread makes the next one.

    Raises:
        ConversionError: sums that overflow.
    """
    begin, end = cut.at(number)
    if cut.outer == 1 and plain_run(move.recipe):
        source = next(iter(flat.values()))
        return bits(source[begin * cut.inner : end * cut.inner])
    size = cut.outer * (end - begin) * cut.inner
    if move.whole is not None:
        result = run(move.whole, {name: flat[name].reshape(tensor.shape) for name, tensor in move.sources.items()})
        array = result.tensors[move.slot].reshape(-1)
    else:
        array = room("made", move.working, size)
        result = Result({})
        steps = [part for step in move.steps for part in clipped(step, cut, number)]
        adds = [step for step in steps if isinstance(step, Add)]
        sums = sums_of(adds, flat, {move.slot: move.working}, move.recipe.form) if adds else {}
        write(array, steps, flat, sums, result)
    lost = None
    if move.dtype != move.working:
        narrow = room("cast", move.dtype, size)
        if is_floating(move.working) and is_floating(move.dtype):
            lost = cast(array, narrow)
        else:  # a template's integers, complex numbers
            np.copyto(narrow, array, casting="unsafe")
        array = narrow
    if lost is not None or move.slot in result.rounded:
        seen.more(result.rounded.get(move.slot), lost)
    return bits(array)
