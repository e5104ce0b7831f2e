"""What an HDF5 file holds, as data: its groups, datasets and links by path, whoever of the two readers listed them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from math import prod
from typing import Any

from layoutx.errors import FileError
from layoutx.files.blob import Blob
from layoutx.files.dtypes import DType
from layoutx.files.notes import KEY, from_text
from layoutx.frozen import frozen

Notes = dict[str, Any]  # attribute -> a text, a list of texts, or a whole number


@frozen
class Stored:
    """A dataset, as the file describes it.

    Attributes:
        dtype: of its bytes; None for what are no numbers. said: the same in HDF5's words.
        plain: whether NumPy lays the type out as the file does.
        shape: None for an empty dataspace.
        offset, size: of its bytes in the blob, where they lie in one piece.
        chunks: shape of its pieces, where it has such.
        own: whether the file holds its numbers itself.
        label: the name of a dtype that HDF5 has no word for.
    """

    dtype: DType | None
    said: str
    plain: bool
    shape: tuple[int, ...] | None
    offset: int | None
    size: int
    chunks: tuple[int, ...] | None
    own: bool
    label: str

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers; 0 for what has none."""
        return 0 if self.shape is None or self.dtype is None else prod(self.shape) * self.dtype.itemsize

    @property
    def lies(self) -> bool:
        """Whether its bytes lie in one piece as NumPy has them; a coded or shorter one is not what it seems."""
        return self.offset is not None and self.plain and 0 < self.nbytes == self.size


@frozen
class Listing:
    """What an HDF5 file holds, by path ("" is the root), in natural order, children after parents.

    Attributes:
        links: paths of soft and external links; again: second names of objects -> their first.
    """

    blob: Blob
    groups: dict[str, Notes] = field(default_factory=dict)
    datasets: dict[str, Stored] = field(default_factory=dict)
    links: dict[str, None] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)

    def at(self, path: str) -> str:
        """The first name of the object at a path, reached without any soft or external link.

        Raises:
            FileError: there is no such object, or a link stands in the way.
        """
        here = ""
        for part in (part for part in path.split("/") if part):
            above, here = here, f"{here}/{part}" if here else part
            if here in self.links:
                raise self.link(here)
            here = self.again.get(here, here)
            if here not in self.groups and here not in self.datasets:
                raise FileError(
                    f"{self.blob.path.name} has no '{path}'",
                    where=f"{self.blob.path}, group /{above}",
                    why="the file names it and does not hold it",
                )
        return here

    def group(self, path: str) -> Notes:
        """The attributes of a group.

        Raises:
            FileError: as `at`, or it is not a group.
        """
        if (found := self.groups.get(self.at(path))) is None:
            raise FileError(f"{self.blob.path.name}: '{path}' is not a group", where=str(self.blob.path))
        return found

    def link(self, path: str) -> FileError:
        """The complaint about a link."""
        return FileError(
            f"{self.blob.path.name} holds a link",
            where=f"{self.blob.path}, /{path}",
            why="a link may lead out of the file, and weights files have none",
            do="save the weights again without links",
        )

    def below(self, path: str = "") -> Iterator[tuple[str, Stored]]:
        """The datasets below a group, with their paths.

        Raises:
            FileError: something below it is a soft or external link.
        """
        start = f"{path}/" if path else ""
        if link := next((link for link in self.links if link.startswith(start)), ""):
            raise self.link(link)
        for found, one in self.datasets.items():
            if found.startswith(start):
                yield found, one

    def notes(self) -> dict[str, str]:
        """The metadata that layoutx left in the root attribute `layoutx`."""
        return from_text(text(self.groups[""], KEY))


def text(notes: Notes, name: str) -> str:
    """An attribute that is one text; "" where there is none."""
    found = notes.get(name)
    return found if isinstance(found, str) else ""


def names(notes: Notes, name: str) -> list[str] | None:
    """An attribute that is a list of names; None where there is none."""
    found = notes.get(name)
    return found if isinstance(found, list) else None if found is None else []
