"""A job into one file: its tensors laid out, made piece by piece in place, checked, and the file put in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from layoutx.files.atomic import replacing
from layoutx.files.blob import writing
from layoutx.files.hashes import XXH3
from layoutx.files.laid.entry import Entry
from layoutx.files.laid.lay import lay
from layoutx.files.open import open_store
from layoutx.files.save import check_kept
from layoutx.files.store import Store
from layoutx.frozen import frozen
from layoutx.job.moves import Moves
from layoutx.job.observed import Told
from layoutx.move.again import check_again
from layoutx.move.filled import Seen
from layoutx.move.moves import Move
from layoutx.move.place import Place, place_of
from layoutx.move.pool import carry_out, placed

DURABLE = 64 << 20  # bytes: up to here a file is synced before the rename; `cp` syncs none, and 2 GB take a second


@frozen
class Output:
    """One file to be made.

    Attributes:
        final: its place. template: a Keras file of the same structure.
        metadata: what the file says about itself, once it is known what was seen; it may refuse what was seen.
        room: the most bytes that it may need as JSON.
        again: the file is read again and compared, and its sources are hashed. kind: of the hashes.
    """

    final: Path
    template: Store | None
    metadata: Callable[[Mapping[str, Told], Sequence[tuple[Move, Told]]], Mapping[str, str]]
    room: int
    again: bool = True
    jobs: int = 1
    kind: str = XXH3


def entries_of(moves: Sequence[Move]) -> tuple[Entry, ...]:
    """What the output holds."""
    return tuple(Entry(move.name, move.dtype, move.shape) for move in moves)


def stream(moves: Moves, output: Output) -> dict[str, Told]:
    """Make the file; on any failure an old one stays as it was, and nothing of the new one is left.

    Raises:
        LayoutxError: sources that cannot be read, sums that overflow, what `metadata` refuses, a file that cannot
            be written or does not give back what was put in.
    """
    final, entries = output.final, entries_of(moves.tensors)
    size = sum(entry.nbytes for entry in entries)
    with replacing(final, durable=size <= DURABLE) as temporary:
        with writing(final):
            laid = lay(temporary, final, entries, output.room, output.template)
            places = placed(moves.tensors, output.jobs, laid.path, laid.offsets)
            others = [place_of(move, output.jobs) for move in moves.again]
            kind = output.kind
            seen = carry_out([*places, *others], output.jobs, kind, output.again)
            told = {place.move.name: told_of(place, one) for place, one in zip(places, seen, strict=False)}
            again = [(p.move, told_of(p, one)) for p, one in zip(others, seen[len(places) :], strict=True)]
            metadata = output.metadata({move.name: told[move.name] for move in moves.tensors}, again)
            laid.finish(metadata, output.jobs)
        if output.again:
            check_again(places, seen[: len(places)], output.jobs, final, output.kind)
            del laid, places, others, seen, again  # a second list of all tensors comes now
            check_structure(temporary, entries, metadata, final)
    return told


def told_of(place: Place, seen: Seen) -> Told:
    """What was seen, without what made it."""
    if seen.leaves is not None and place.only is not None:
        return Told("", seen.rounded, seen.lost, seen.sources, bytes(seen.leaves.digests))
    return Told(seen.hash, seen.rounded, seen.lost, seen.sources)


def check_structure(written: Path, entries: Sequence[Entry], metadata: Mapping[str, str], final: Path) -> None:
    """Open a written file as any reader would: its names, dtypes, shapes and metadata are those that were wanted.

    Raises:
        VerificationError: all that differs.
    """
    store = open_store(written)
    wanted = {entry.name: entry for entry in entries}

    def difference(name: str) -> str:
        want, got = wanted.get(name), store.tensors.get(name)
        if want is None or got is None:
            return "nobody asked for it" if want is None else "the file does not hold it"
        if (want.dtype, want.shape) != (got.dtype, got.shape):
            return f"{want.dtype} of shape {want.shape} became {got.dtype} of shape {got.shape}"
        return ""

    check_kept(store, wanted, difference, metadata, final)
