"""Source tensors, each hashed just before it is moved first: what was read for that is then still near."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from layoutx.files.dtypes import bits
from layoutx.files.hashes import SPAN, Leaves, leaves_of, together
from layoutx.files.store import Tensor
from layoutx.move.filled import Seen, Sources
from layoutx.move.place import Place, Unit


class Looks:
    """The hashes of all that places read."""

    def __init__(self, places: Sequence[Place], sources: Sources, kind: str) -> None:
        """`places`: what the tensors are read for; of a tensor that several processes make, the first one looks."""
        self._places, self._sources, self._kind = places, sources, kind
        self._own: list[tuple[int, Tensor, Leaves | None]] = []  # leaves of those that are looked at in several spans
        self._hashes: dict[int, str] = {}
        self._first: dict[int, list[int]] = {}  # place -> what is looked at before it
        met: set[int] = set()
        for at, place in enumerate(places):
            if place.only is not None and place.only.start:
                continue
            for tensor in place.move.tensors:
                if id(tensor) not in met and not tensor.derived:
                    met.add(id(tensor))
                    self._first.setdefault(at, []).append(len(self._own))
                    many = _spans(tensor.nbytes)
                    self._own.append((at, tensor, Leaves(tensor.nbytes, kind) if many > 1 else None))
                    sources.more(tensor, many)

    def before(self, queue: Iterator[Unit]) -> Iterator[Unit]:
        """A queue with the looks at each source before the first unit that reads it."""
        for unit in queue:
            small: Unit = []
            for number in [n for at, _ in unit for n in self._first.pop(at, ())]:
                _, tensor, leaves = self._own[number]
                if leaves is not None:
                    yield from ([(-1 - number, span)] for span in range(_spans(tensor.nbytes)))
                elif tensor.nbytes:
                    small.append((-1 - number, 0))
            if small:
                yield small
            yield unit

    def look(self, unit: Unit) -> int:
        """Hash spans of source tensors."""
        for number, span in unit:
            _, tensor, leaves = self._own[-1 - number]
            data = bits(self._sources.one(tensor))
            if leaves is None:
                found = leaves_of(data, self._kind)
                self._hashes[number] = together(tensor.dtype, tensor.shape, found, self._kind)
            elif leaves.feed(span * SPAN, data[span * SPAN : (span + 1) * SPAN]):
                self._hashes[number] = together(tensor.dtype, tensor.shape, leaves.taken(), self._kind)
            self._sources.let_go([tensor])
        return 0

    def tell(self, seen: Sequence[Seen]) -> None:
        """Tell each hash where its tensor was read first."""
        for number, (at, tensor, _) in enumerate(self._own):
            found = self._hashes.get(-1 - number) or together(tensor.dtype, tensor.shape, b"", self._kind)
            seen[at].sources += ((tensor.name, found),)


def _spans(nbytes: int) -> int:
    return -(-nbytes // SPAN)
