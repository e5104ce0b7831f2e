"""One giant tensor made by several workers: each fills a range of its pieces in one file that is laid out already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from layoutx.files.blob import origin, writing
from layoutx.files.hashes import together
from layoutx.files.laid.lay import lay
from layoutx.files.remote import url_of
from layoutx.frozen import frozen
from layoutx.job.observed import Told
from layoutx.job.shards import Part, room_of
from layoutx.job.stream import check_structure, entries_of, told_of
from layoutx.move.again import check_again
from layoutx.move.moves import Move
from layoutx.move.pieces import PIECE, Cut
from layoutx.move.place import Place
from layoutx.move.pool import carry_out


@frozen
class Slab:
    """A range of the pieces of a part's only tensor.

    Attributes:
        offset: where the tensor begins in the part's temporary file. pieces: their numbers.
    """

    part: Part
    offset: int
    pieces: range


def can_split(part: Part, most: int) -> bool:
    """Whether a part is one tensor of more than `most` bytes that all workers can write: not on a remote store."""
    if len(part.moves) != 1 or part.moves[0].nbytes <= most or url_of(part.path) is not None:
        return False
    (move,) = part.moves
    files = (origin(tensor) for tensor in move.tensors)
    far = any(path is not None and url_of(path) is not None for path in files)
    return not far and _cut(move).many > 1  # each worker would fetch the whole source


def slabs(part: Part, most: int) -> list[Slab]:
    """Lay a part's file out, and deal its pieces out in runs of about `most` bytes.

    Raises:
        FileError: the disk has no room.
    """
    (move,) = part.moves
    laid = lay(_temporary(part), part.path, entries_of(part.moves), room_of(part))
    many = _cut(move).many
    count = min(many, -(-move.nbytes // most))
    borders = [many * k // count for k in range(count + 1)]
    return [Slab(part, laid.offsets[move.name], range(*ends)) for ends in pairwise(borders)]


def make_slab(slab: Slab) -> dict[str, Told]:
    """Fill a range of pieces; done twice it gives the same bytes.

    Raises:
        LayoutxError: as `layoutx.job.stream.stream`.
    """
    part = slab.part
    (move,) = part.moves
    place = Place(move, _cut(move), _temporary(part), slab.offset, slab.pieces)
    with writing(part.path):
        seen = carry_out([place], part.jobs, part.kind, part.again)
    if part.again:
        check_again([place], seen, part.jobs, part.path, part.kind)
    return {move.name: told_of(place, seen[0])}


def finish(part: Part, told: Sequence[dict[str, Told]]) -> dict[str, Told]:
    """Make the file whole when all its pieces are there: the same file as of one worker.

    Args:
        told: of each slab, in their order.

    Raises:
        LayoutxError: the file does not give back what was put in.
    """
    (move,) = part.moves
    entries, temporary = entries_of(part.moves), _temporary(part)
    laid = lay(temporary, part.path, entries, room_of(part))  # what it holds stays
    laid.finish(part.metadata, part.jobs)
    if part.again:
        check_structure(temporary, entries, part.metadata, part.path)
    os.replace(temporary, part.path)
    return {move.name: _together(move, [one[move.name] for one in told], part.kind)}


def _cut(move: Move) -> Cut:
    """The pieces of a tensor that several workers make: ranges of the file that end where leaves of the hash end."""
    if move.whole is not None:
        return move.recipe.cut
    return Cut(1, move.size, 1, PIECE // max(move.dtype.itemsize, move.working.itemsize))


def _together(move: Move, told: Sequence[Told], kind: str) -> Told:
    rounded = [one.rounded for one in told if one.rounded is not None]
    lost = [one.lost for one in told if one.lost is not None]
    own = together(move.dtype, move.shape, b"".join(one.leaves for one in told), kind)
    return Told(own, max(rounded, default=None), sum(lost[1:], lost[0]) if lost else None, told[0].sources)


def _temporary(part: Part) -> Path:
    return part.path.with_name(f".{part.path.name}.split")
