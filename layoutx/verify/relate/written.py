"""Places back to text: what a tensor holds, written in the layout language, from where its atoms were found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.lang.show import show_dims
from layoutx.lang.sizes import extent
from layoutx.lang.tree import Axis, Dim, Option, Product, Sum, Unit
from layoutx.verify.relate.found import Found

SHUFFLED = "shuffled_"
_COPY = re.compile(r"#\d+")


@frozen
class Leaf:
    """One axis (or one digit of it) of a piece: its length and its step."""

    name: str
    size: int
    stride: int
    reversed: bool = False


@frozen
class Piece:
    """One atom in a tensor: role and labels still to be told, its lowest position, its leaves of length > 1."""

    role: str
    labels: Mapping[str, str]
    low: int
    leaves: tuple[Leaf, ...]
    negated: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(leaf.size for leaf in self.leaves)


@frozen
class Written:
    """A layout found.

    Attributes:
        text: the layout; dims: its dims without the head, products not closed.
        head: the role and labels that all of it has, "" where parts name them.
        sizes: axis (or digit of an axis) -> length.
        reshaped: the dims do not fall on the borders of the stored dimensions.
    """

    text: str
    dims: tuple[Dim, ...]
    head: str
    sizes: Mapping[str, int]
    reshaped: bool = False


def piece_of(found: Found, names: Mapping[str, str] = NOTHING) -> Piece:
    """A found atom as a piece; an axis of several digits has a leaf for each: `input1 input2`.

    `names`: axes that are written under another name.
    """
    leaves: list[Leaf] = []
    low = found.offset
    for axis in found.numbers.axes:
        written_as = names.get(axis, axis)
        if axis in found.orders:
            order = sorted(found.orders[axis])
            low += order[0]
            leaves.append(Leaf(f"{SHUFFLED}{written_as}", len(order), order[1] - order[0]))
            continue
        runs = found.runs[axis]
        for at, run in enumerate(runs):
            low += min(0, run.stride * (run.size - 1))
            name = f"{written_as}{at + 1}" if len(runs) > 1 else written_as
            leaves.append(Leaf(name, run.size, abs(run.stride), run.stride < 0))
    own = found.numbers
    return Piece(own.role, dict(own.labels), low, tuple(leaf for leaf in leaves if leaf.size > 1), found.negated)


def written(pieces: Sequence[Piece], shape: Sequence[int], silent: Sequence[str] = ()) -> Written | None:
    """The layout of a tensor that is covered by pieces; None where no layout says where they lie.

    Args:
        silent: enumerated axes that have one label on both sides: not worth a word.
    """
    pieces = [replace(p, labels={k: v for k, v in p.labels.items() if k not in silent}) for p in pieces]
    pieces = _numbered(pieces)
    fixed = {k: v for k, v in pieces[0].labels.items() if all(p.labels.get(k) == v for p in pieces)}
    role = pieces[0].role if len({p.role for p in pieces}) == 1 else ""
    negated = all(p.negated for p in pieces)
    own = [
        replace(p, role="" if role else p.role, negated=p.negated and not negated,
                labels={k: v for k, v in p.labels.items() if k not in fixed})
        for p in pieces
    ]  # fmt: skip
    dims = _nested(own, prod(shape))
    if dims is None:
        return None
    sizes = {leaf.name: leaf.size for p in pieces for leaf in p.leaves}
    closed = _closed(dims, shape, sizes)
    head = ".".join((role, *fixed.values())) if role else ""
    shown = show_dims(closed if closed is not None else (Product(dims),))
    sign = "-" if negated else ""
    text = f"{sign}{head}: {shown}".strip() if head else shown
    return Written(_COPY.sub("", text), dims, head, sizes, closed is None)


def _numbered(pieces: Sequence[Piece]) -> list[Piece]:
    """Copies of an atom told apart, in the order in which they lie."""
    found: list[Piece] = []
    counts: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
    for piece in sorted(pieces, key=lambda p: p.low):
        atom = piece.role, tuple(piece.labels.items())
        counts[atom] = counts.get(atom, 0) + 1
        found.append(replace(piece, role=f"{piece.role}#{counts[atom]}") if counts[atom] > 1 else piece)
    return found


def _nested(pieces: Sequence[Piece], span: int) -> tuple[Dim, ...] | None:
    """The dims of pieces that fill a span of memory together, outermost first."""
    if sum(p.size for p in pieces) != span:
        return None
    outer = max(pieces[0].leaves, key=lambda leaf: leaf.stride, default=None)
    if outer is not None and outer.stride * outer.size == span and all(outer in p.leaves for p in pieces):
        rest = _nested([_without(p, outer) for p in pieces], outer.stride)
        if rest is not None:
            return (Axis(outer.name, outer.reversed), *rest)
    if len(pieces) == 1:
        return () if not pieces[0].leaves else None
    keys = dict.fromkeys(["", *(axis for p in pieces for axis in p.labels)])
    for key in keys:
        found = _summed(pieces, key)
        if found is not None:
            return found
    return None


def _without(piece: Piece, leaf: Leaf) -> Piece:
    return replace(piece, leaves=tuple(x for x in piece.leaves if x != leaf))


def _summed(pieces: Sequence[Piece], key: str) -> tuple[Dim, ...] | None:
    """The pieces laid end to end by the labels of an axis (or by role, for ""); None where they do not lie so."""
    groups: dict[str, list[Piece]] = {}
    for piece in pieces:
        label = piece.labels.get(key) if key else piece.role
        if not label:
            return None
        groups.setdefault(label, []).append(piece)
    if len(groups) < 2:
        return None
    options, at = [], 0
    for label, own in sorted(groups.items(), key=lambda item: min(p.low for p in item[1])):
        span = sum(p.size for p in own)
        if min(p.low for p in own) != at:
            return None
        negated = all(p.negated for p in own)
        inner = _nested([_inside(p, key, at, negated) for p in own], span)
        if inner is None:
            return None
        options.append(Option(label, inner, negated))
        at += span
    axis = key or None
    if len({o.dims for o in options}) == 1:
        return (Sum(axis, tuple(replace(o, dims=()) for o in options)), *options[0].dims)
    return (Sum(axis, tuple(options)),)


def _inside(piece: Piece, key: str, at: int, negated: bool) -> Piece:
    labels = {k: v for k, v in piece.labels.items() if k != key}
    role = piece.role if key else ""
    return replace(piece, role=role, labels=labels, low=piece.low - at, negated=piece.negated and not negated)


def _closed(dims: Sequence[Dim], shape: Sequence[int], sizes: Mapping[str, int]) -> tuple[Dim, ...] | None:
    """Dims put into the stored dimensions; None where one goes over a border."""
    found: list[Dim] = []
    rest = list(dims)
    for size in shape:
        own: list[Dim] = []
        have = 1
        while have < size and rest:
            own.append(rest.pop(0))
            have *= extent(own[-1], sizes)
        if have != size:
            return None
        found.append(Unit() if not own else own[0] if len(own) == 1 else Product(tuple(own)))
    return tuple(found) if not rest else None
