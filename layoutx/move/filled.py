"""One piece of an output tensor, made in a buffer: by the plain executor's own steps, cut down to the piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock, local

import numpy as np

from layoutx.files.dtypes import Array, DType, bits
from layoutx.files.hashes import Leaves
from layoutx.files.store import Tensor
from layoutx.move.cast import Lost, cast, is_floating
from layoutx.move.moves import Move
from layoutx.move.pieces import Cut, clipped, cut_of
from layoutx.plan.run import Result, run, sums_of, write
from layoutx.plan.steps import Add, Copy
from layoutx.plan.views import view

SMALL = 1 << 16  # bytes: below it NumPy's own way is as fast as any


@dataclass
class Seen:
    """What was observed while the pieces of one tensor were made.

    Attributes:
        errors: of each piece whose sums were rounded, the largest rounding error.
        losses: of each piece that was converted to another dtype, what that lost.
        leaves: the digests of its bytes, in the order of the file, until all have come; hash: what they give then.
        sources: source tensor that was read first for this one -> the digests of its bytes.
    """

    errors: list[float] = field(default_factory=list)
    losses: list[Lost] = field(default_factory=list)
    leaves: Leaves = field(default_factory=lambda: Leaves(0))
    hash: str = ""
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def rounded(self) -> float | None:
        """The largest rounding error of the tensor's sums; None where none was rounded."""
        return max(self.errors, default=None)

    @property
    def lost(self) -> Lost | None:
        """What the conversion of the tensor lost; None where there was none."""
        return sum(self.losses[1:], self.losses[0]) if self.losses else None


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
    """Flat source arrays: views of maps as they are; what has to be read is kept until the last piece took it."""

    def __init__(self, moves: Iterable[tuple[Move, int]] = ()) -> None:
        """Moves with the number of their pieces."""
        self._flat: dict[int, Array] = {}
        self._left: Counter[int] = Counter()
        for move, many in moves:
            for tensor in move.sources.values():
                self._left[id(tensor)] += many
        self._lock = Lock()

    def flat(self, move: Move) -> dict[str, Array]:
        """Source name -> flat array, of all that a move reads."""
        return {name: self.one(tensor) for name, tensor in move.sources.items()}

    def done(self, move: Move) -> None:
        """One piece of a move was made."""
        self.let_go(move.sources.values())

    def more(self, tensor: Tensor, many: int) -> None:
        """A tensor is read so often besides."""
        self._left[id(tensor)] += many

    def let_go(self, tensors: Iterable[Tensor]) -> None:
        """Each of these tensors was used once."""
        with self._lock:
            for tensor in tensors:
                self._left[id(tensor)] -= 1
                if self._left[id(tensor)] <= 0:
                    self._flat.pop(id(tensor), None)

    def one(self, tensor: Tensor) -> Array:
        """The flat array of one source tensor."""
        found = self._flat.get(id(tensor))
        if found is None:
            if tensor.mapped:
                found = self._flat[id(tensor)] = tensor.read().reshape(-1)
            else:
                with self._lock:
                    found = self._flat.get(id(tensor))
                    if found is None:
                        found = self._flat[id(tensor)] = tensor.read().reshape(-1)
        return found


def cut_for(move: Move) -> Cut:
    """The pieces of a move; one that needs its whole plan has a single one."""
    if move.whole is not None:
        return Cut(1, 1, move.size, 1)
    return cut_of(move.shape, max(move.dtype.itemsize, move.working.itemsize), move.steps)


def plain_run(move: Move) -> bool:
    """Whether the bytes of the only source are the tensor's own, in their order."""
    if len(move.steps) != 1 or move.dtype != move.working or move.whole is not None:
        return False
    (step,) = move.steps
    if not isinstance(step, Copy) or step.negate or step.target_offset or step.source_offset:
        return False
    source = move.sources[step.source]
    whole = all(loop.size == 1 or (loop.target, loop.source) == (1, 1) for loop in step.loops)
    return whole and len([x for x in step.loops if x.size != 1]) <= 1 and source.dtype == move.dtype == source.dtype


def whole_small(move: Move, flat: Mapping[str, Array]) -> bytes | None:
    """The bytes of a small tensor that one copy fills in the order of its loops: the usual transposed matrix."""
    if len(move.steps) != 1 or move.dtype != move.working or move.whole is not None or move.nbytes > SMALL:
        return None
    (step,) = move.steps
    if not isinstance(step, Copy) or step.negate or step.target_offset:
        return None
    source, inner = flat[step.source], 1
    for loop in reversed(step.loops):
        if loop.target != inner:
            return None
        inner *= loop.size
    if inner != move.size or source.dtype != move.dtype:
        return None
    return view(source, step.source_offset, [(x.size, x.source) for x in step.loops]).tobytes()


def filled(move: Move, cut: Cut, number: int, flat: Mapping[str, Array], seen: Seen) -> Array:
    """The bytes of one piece, flat uint8, its runs end to end; valid until this thread makes the next one.

    Raises:
        ConversionError: sums that overflow.
    """
    begin, end = cut.at(number)
    if plain_run(move) and cut.outer == 1:
        source = next(iter(flat.values()))
        return bits(source[begin * cut.inner : end * cut.inner])
    if cut.many == 1 and (small := whole_small(move, flat)) is not None:
        return np.frombuffer(small, np.uint8)
    size = cut.outer * (end - begin) * cut.inner
    if move.whole is not None:
        result = run(move.whole, {name: flat[name].reshape(move.sources[name].shape) for name in move.sources})
        array = result.tensors[move.slot].reshape(-1)
    else:
        array = room("made", move.working, size)
        result = Result({})
        steps = [part for step in move.steps for part in clipped(step, cut, number)]
        adds = [step for step in steps if isinstance(step, Add)]
        sums = sums_of(adds, flat, {move.slot: move.working}, move.form) if adds else {}
        write(array, steps, flat, sums, result)
    if move.slot in result.rounded:
        seen.errors.append(result.rounded[move.slot])
    if move.dtype != move.working:
        narrow = room("cast", move.dtype, size)
        if is_floating(move.working) and is_floating(move.dtype):
            seen.losses.append(cast(array, narrow))
        else:  # a template's integers, complex numbers
            np.copyto(narrow, array, casting="unsafe")
        array = narrow
    return bits(array)
