"""Where the pieces of one tensor go: the file, the first byte in it, and which of them are made here."""

from __future__ import annotations

from pathlib import Path

from layoutx.frozen import frozen
from layoutx.move.moves import Move
from layoutx.move.pieces import Cut

Unit = list[tuple[int, int]]  # places and the numbers of their pieces


@frozen
class Place:
    """A move and where its bytes go: the file, and the first byte in it; no file for what is only compared.

    `only` are the numbers of the pieces that are made here, where others make the rest.
    """

    move: Move
    cut: Cut
    path: Path | None
    offset: int
    only: range | None = None

    @property
    def pieces(self) -> range:
        """The numbers of the pieces that are made."""
        return range(self.cut.many) if self.only is None else self.only

    @property
    def span(self) -> tuple[int, int]:
        """The bytes of the tensor that are made: first, and behind the last."""
        if self.only is None:
            return 0, self.move.recipe.nbytes
        width = self.cut.inner * self.move.dtype.itemsize
        return self.cut.at(self.only.start)[0] * width, self.cut.at(self.only.stop - 1)[1] * width

    @property
    def ends(self) -> tuple[int, int]:
        """Where the bytes that are made lie in the file: the first, and behind the last."""
        begin, end = self.span
        return self.offset + begin, self.offset + end


def place_of(move: Move, jobs: int, path: Path | None = None, offset: int = 0) -> Place:
    """The place of a whole tensor, in pieces for so many threads."""
    return Place(move, move.recipe.cut_for(jobs), path, offset)
