"""An output tensor cut into pieces of bounded size, and a plan's steps cut down to one of them.

A tensor is looked at as (outer, middle, inner): a piece takes a range of the middle axis and all of the two others,
so that it is `outer` contiguous runs in the file. With outer = 1 that is a slab of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import prod

from layoutx.frozen import frozen
from layoutx.plan.steps import Add, Copy, Fill, Loop, Step, Term

PIECE = 8 << 20  # bytes: so few pieces that threads seldom wait for the interpreter
ROOM = 3 * PIECE  # bytes that the pieces of all threads may take together
LEAST = 1 << 20  # bytes of a piece, however many threads there are
SPAN = 256  # bytes of the source that lie together: a piece that takes less of each cache line reads them in vain
RUN = 64 << 10  # bytes written in one call
RUNS = 64

Flat = tuple[int, int, tuple[int, ...]]  # length, step in the target, steps in the sources


@frozen
class Cut:
    """How a tensor is cut: ranges of `step` along the middle of (outer, middle, inner) elements."""

    outer: int
    middle: int
    inner: int
    step: int

    @property
    def many(self) -> int:
        """Number of pieces; an empty tensor has none."""
        return -(-self.middle // self.step) if self.outer and self.middle and self.inner else 0

    def at(self, number: int) -> tuple[int, int]:
        """The range of the middle axis that a piece takes."""
        return number * self.step, min((number + 1) * self.step, self.middle)

    def runs(self, number: int) -> Iterator[tuple[int, int]]:
        """(first element in the tensor, number of elements) of each contiguous run of a piece, in order."""
        begin, end = self.at(number)
        for outer in range(self.outer):
            yield (outer * self.middle + begin) * self.inner, (end - begin) * self.inner


def cut_of(shape: Sequence[int], itemsize: int, steps: Iterable[Step], piece: int = PIECE) -> Cut:
    """The cut of a tensor: by rows, unless the source's numbers for a row lie scattered and those of another axis not.

    Args:
        shape: of the tensor; itemsize: the larger one of what is made and what is written.
        piece: the most bytes of a piece.
    """
    total = prod(shape)
    if total * itemsize <= piece or not shape:
        return Cut(1, 1, total, 1)
    most = piece // itemsize
    copies = [step for step in steps if isinstance(step, (Copy, Add))]
    best, widest = None, 0
    for axis in range(len(shape)):
        outer, middle, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
        length = most // (outer * inner) if outer * inner else 0
        if length == 0 or middle == 1:
            continue
        cut = Cut(outer, middle, inner, min(length, middle))
        if outer > 1 and (outer > RUNS or cut.step * inner * itemsize < RUN):
            continue
        span = min((_span(step, cut) for step in copies), default=total) * itemsize
        if span >= SPAN:
            return cut
        if span > widest:
            best, widest = cut, span
    return best or Cut(1, total, 1, most)


def _span(step: Step, cut: Cut) -> int:
    """How many elements of the source of a step lie together in a piece."""
    found = _split(_flat(step), cut)
    if found is None:
        return 1
    loops = [
        (min(size, cut.step // (t // cut.inner) or 1) if cut.inner <= t < cut.inner * cut.middle else size, s)
        for size, t, s in found[0]
    ]
    least = cut.inner * cut.middle
    for source in range(len(loops[0][1]) if loops else 0):
        together = 1
        for stride, size in sorted((abs(s[source]), size) for size, s in loops if size > 1):
            if stride > together:
                break
            together += stride * (size - 1)
        least = min(least, together)
    return least


def clipped(step: Step, cut: Cut, number: int) -> list[Step]:
    """A step cut down to one piece; target offsets and strides are those of the piece alone, laid compactly."""
    begin, end = cut.at(number)
    if cut.outer == 1 and (begin, end) == (0, cut.middle):
        return [step]
    flat = _flat(step)
    split = _split(flat, cut)
    if split is None:
        return _by_runs(step, flat, cut, begin, end)
    loops, at = split
    base, rows, columns = at
    span = cut.inner * cut.middle
    outer = [loop for loop in loops if loop[1] >= span]
    middle = [(n, t // cut.inner, s) for n, t, s in loops if cut.inner <= t < span]
    inner = [loop for loop in loops if loop[1] < cut.inner]
    compact = (end - begin) * cut.inner
    found = []
    for place, kept, offsets in _within(middle, rows, flat[2], begin, end):
        target = base * compact + (place - begin) * cut.inner + columns
        moved = [(n, t // span * compact, s) for n, t, s in outer] + [(n, t * cut.inner, s) for n, t, s in kept]
        found.append(_step(step, target, offsets, [*moved, *inner]))
    return found


def _by_runs(step: Step, flat: tuple[list[Flat], int, tuple[int, ...]], cut: Cut, begin: int, end: int) -> list[Step]:
    """The general way: each run of the piece as a range of flat memory."""
    loops, offset, sources = flat
    found = []
    length = (end - begin) * cut.inner
    for outer in range(cut.outer):
        first = (outer * cut.middle + begin) * cut.inner
        for place, kept, offsets in _within(loops, offset, sources, first, first + length):
            found.append(_step(step, outer * length + place - first, offsets, kept))
    return found


def _within(
    loops: Sequence[Flat], offset: int, sources: tuple[int, ...], begin: int, end: int
) -> Iterator[tuple[int, list[Flat], tuple[int, ...]]]:
    """The parts of a loop nest whose target lies in [begin, end): offset, loops and source offsets of each."""
    reach = offset + sum((n - 1) * t for n, t, _ in loops)
    if offset >= end or reach < begin:
        return
    if offset >= begin and reach < end:
        yield offset, list(loops), sources
        return
    (size, step, strides), rest = loops[0], loops[1:]
    length = reach - (size - 1) * step - offset  # of what one turn of the outermost loop takes, less one
    first = max(0, -((offset - begin) // step))  # the first turn that begins inside
    last = min(size, (end - 1 - length - offset) // step + 1)  # behind the last one that ends inside
    if first < last:
        for turn in range(max(0, -((offset + length - begin) // step)), first):
            yield from _within(rest, offset + turn * step, _moved(sources, strides, turn), begin, end)
        yield offset + first * step, [(last - first, step, strides), *rest], _moved(sources, strides, first)
        turns = range(last, min(size, (end - 1 - offset) // step + 1))
    else:
        turns = range(max(0, -((offset + length - begin) // step)), min(size, (end - 1 - offset) // step + 1))
    for turn in turns:
        yield from _within(rest, offset + turn * step, _moved(sources, strides, turn), begin, end)


def _moved(sources: tuple[int, ...], strides: tuple[int, ...], turns: int) -> tuple[int, ...]:
    return tuple(at + turns * by for at, by in zip(sources, strides, strict=True))


def _flat(step: Step) -> tuple[list[Flat], int, tuple[int, ...]]:
    """A step's loops with positive target strides, the largest first, its target offset and its source offsets."""
    loops: list[Flat]
    target: int
    sources: tuple[int, ...]
    match step:
        case Copy():
            loops = [(x.size, x.target, (x.source,)) for x in step.loops]
            target, sources = step.target_offset, (step.source_offset,)
        case Fill():
            loops = [(x.size, x.target, ()) for x in step.loops]
            target, sources = step.target_offset, ()
        case Add():
            loops = [(x.size, x.target, tuple(t.strides[at] for t in step.terms)) for at, x in enumerate(step.loops)]
            target, sources = step.target_offset, tuple(term.offset for term in step.terms)
        case _:
            raise TypeError(step)
    found: list[Flat] = []
    for size, by, strides in loops:
        if by < 0:
            target += (size - 1) * by
            sources = _moved(sources, strides, size - 1)
            by, strides = -by, tuple(-s for s in strides)
        if size != 1:
            found.append((size, by, strides))
    return sorted(found, key=lambda loop: -loop[1]), target, sources


def _split(flat: tuple[list[Flat], int, tuple[int, ...]], cut: Cut) -> tuple[list[Flat], tuple[int, int, int]] | None:
    """Loops that do not cross the borders of (outer, middle, inner), and the offset on each; None where one does."""
    loops, offset, _ = flat
    span = cut.inner * cut.middle
    for border in (span, cut.inner):
        parted: list[Flat] = []
        for size, by, strides in loops:
            if by < border < by * size:
                length, rest = divmod(border, by)
                if rest or size % length:
                    return None
                parted.append((size // length, border, tuple(s * length for s in strides)))
                parted.append((length, by, strides))
            else:
                parted.append((size, by, strides))
        loops = sorted(parted, key=lambda loop: -loop[1])
    base, rest = divmod(offset, span)
    rows, columns = divmod(rest, cut.inner)
    inner = columns + sum((n - 1) * t for n, t, _ in loops if t < cut.inner)
    middle = [(n, t) for n, t, _ in loops if cut.inner <= t < span]
    if inner >= cut.inner or any(t % cut.inner for _, t in middle) or any(t % span for _, t, _ in loops if t >= span):
        return None
    if rows + sum((n - 1) * (t // cut.inner) for n, t in middle) >= cut.middle:
        return None
    return loops, (base, rows, columns)


def _step(step: Step, target: int, sources: tuple[int, ...], loops: Sequence[Flat]) -> Step:
    """The same step over other loops."""
    match step:
        case Copy():
            own = tuple(Loop("", n, t, s[0]) for n, t, s in loops)
            return replace(step, target_offset=target, source_offset=sources[0], loops=own)
        case Fill():
            return replace(step, target_offset=target, loops=tuple(Loop("", n, t) for n, t, _ in loops))
        case Add():
            terms = tuple(
                Term(term.source, sources[at], tuple(s[at] for _, _, s in loops), term.negate, term.value)
                for at, term in enumerate(step.terms)
            )
            return replace(step, target_offset=target, loops=tuple(Loop("", n, t) for n, t, _ in loops), terms=terms)
        case _:
            raise TypeError(step)
