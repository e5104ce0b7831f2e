"""What the dimensions of a tensor are made of, in Keras' order and in that of a channels-first framework."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from layoutx.frozen import frozen
from layoutx.model.record import Refinement


@frozen
class Axis:
    """One leaf axis: made by the layer `origin`, of `size` elements (None: unknown).

    `heir`: the number of the axis whose place it took (a pooling's positions); 0 where it took none.
    """

    id: int
    letter: str
    origin: str
    size: int | None
    heir: int = field(default=0, compare=False)

    @property
    def age(self) -> int:
        """A number that is smaller the earlier an axis stood where this one stands."""
        return self.heir or self.id


@frozen
class Cat:
    """Pieces laid end to end by a Concatenate: label, dimension in Keras' order, in channels-first order."""

    id: int
    parts: tuple[tuple[str, Dim, Dim], ...]


UNSIZED = "Flatten of a map of unknown size: give --input-shape"
Item = Axis | Cat
Dim = tuple[Item, ...]
Shape = tuple[int | None, ...] | None  # sizes, None where one is open; None where not even their number is known
Splits = Mapping[int, tuple[Dim, Dim]]


@frozen
class State:
    """One tensor without its batch axis.

    `last` are the dimensions as Keras has them, `first` as a channels-first framework has them, over
    the same axes. `spatial`: it is a map (or sequence) of a convolutional layer. `blocked` names the
    layer through which nothing can be followed (the dims then mean nothing); `doubt` says what a user
    of the axes must be told; `lead`: the layer because of which only the last axis is known. `vector`: the
    size of the flattened map that entered the blocking layer, which may have passed it on. `shape`: its lengths as the
    config says them, where the axes are not known.
    """

    last: tuple[Dim, ...] = ()
    first: tuple[Dim, ...] = ()
    spatial: bool = False
    blocked: str = ""
    doubt: str = ""
    lead: str = ""
    vector: int | None = None
    shape: tuple[int | None, ...] | None = field(default=None, compare=False)


@dataclass(slots=True)
class Use:
    """One axis of one record: the dimensions that make it up, both ways, and its size in the weights."""

    last: tuple[Dim, ...]
    first: tuple[Dim, ...]
    total: int | None


@dataclass(slots=True)
class Naming:
    """Axis names already given in one refinement."""

    names: dict[int, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def heir_of(axis: Axis, dim: Dim) -> Axis:
    """An axis in the place of another one."""
    return replace(axis, heir=dim[0].age) if len(dim) == 1 and isinstance(dim[0], Axis) else axis


def size_of(dim: Dim) -> int | None:
    """Number of elements, None where an axis has no known size."""
    total = 1
    for item in dim:
        size = item.size if isinstance(item, Axis) else _cat_size(item)
        if size is None:
            return None
        total *= size
    return total


def _cat_size(cat: Cat) -> int | None:
    sizes = [size_of(last) for _, last, _ in cat.parts]
    return None if None in sizes else sum(s for s in sizes if s is not None)


def axes_in(dim: Dim) -> Iterator[Axis]:
    """Every leaf axis, in order."""
    for item in dim:
        if isinstance(item, Axis):
            yield item
        else:
            for _, last, _ in item.parts:
                yield from axes_in(last)


def expand(dim: Dim, splits: Splits, side: int) -> Dim:
    """The dimension with every axis that a Reshape took apart replaced by its parts; side 0 is last, 1 first."""
    out: list[Item] = []
    for item in dim:
        if isinstance(item, Cat):
            parts = ((label, expand(a, splits, 0), expand(b, splits, 1)) for label, a, b in item.parts)
            out.append(Cat(item.id, tuple(parts)))
        elif item.id in splits:
            out.extend(expand(splits[item.id][side], splits, side))
        else:
            out.append(item)
    return tuple(out)


def same_order(last: Dim, first: Dim) -> bool:
    """Whether both spell the same order of elements; axes of length one do not count."""
    a, b = ([x for x in dim if isinstance(x, Cat) or x.size != 1] for dim in (last, first))
    return [x.id for x in a] == [x.id for x in b] and all(
        same_order(p, q) for x in a if isinstance(x, Cat) for _, p, q in x.parts
    )


def refinement(axis: str, use: Use, splits: Splits) -> Refinement | str | None:
    """The refinement of one axis; None where both orders agree; a reason where it cannot be told."""
    if use.last == use.first and all(isinstance(x, Axis) and x.id not in splits for dim in use.last for x in dim):
        return None
    last = tuple(plain(expand(d, splits, 0)) for d in use.last)
    first = tuple(plain(expand(d, splits, 1)) for d in use.first)
    if len(last) == len(first) and all(same_order(a, b) for a, b in zip(last, first, strict=True)):
        return None
    if len(last) == 1 and len(first) == 1:
        last, first = _merge_unknown(last[0], first[0])
    sizes = _solve(last, use.total)
    if isinstance(sizes, str):
        return sizes
    if any(isinstance(x, Cat) for d in last for x in d) and any(len(d) > 1 for d in last):
        return "a concatenation lies inside a product of axes"
    naming = _names([a for d in last for a in axes_in(d)], sizes)
    texts = (" ".join(_text(d, axis, naming, side) for d in dims) for side, dims in enumerate((last, first)))
    last_text, first_text = texts
    return Refinement(last_text, first_text, naming.sizes, _why(last))


def plain(dim: Dim) -> Dim:
    """Concatenations within concatenations flattened; one whose pieces all keep their order becomes a plain axis."""
    out: list[Item] = []
    for item in dim:
        if isinstance(item, Axis):
            out.append(item)
            continue
        parts: list[tuple[str, Dim, Dim]] = []
        for label, a, b in item.parts:
            inner = plain(a)
            if len(inner) == 1 and isinstance(inner[0], Cat):
                parts.extend(inner[0].parts)
            else:
                parts.append((label, inner, plain(b)))
        if all(same_order(a, b) for _, a, b in parts):
            origin = next((x for _, a, _ in parts for x in axes_in(a)), None)
            letter, maker = (origin.letter, origin.origin) if origin else ("n", "concatenate")
            out.append(Axis(item.id, letter, maker, _cat_size(Cat(item.id, tuple(parts)))))
        else:
            out.append(Cat(item.id, tuple(parts)))
    return tuple(out)


def _merge_unknown(last: Dim, first: Dim) -> tuple[tuple[Dim], tuple[Dim]]:
    """Joins neighbours of unknown size that stand together in both orders: only their product matters."""
    out: list[Item] = list(last)
    other: list[Item] = list(first)
    if len(out) == 1 and isinstance(out[0], Cat):
        parts = []
        for label, a, b in out[0].parts:
            (a2,), (b2,) = _merge_unknown(a, b)
            parts.append((label, a2, b2))
        cat = Cat(out[0].id, tuple(parts))
        return ((cat,),), ((cat,),)
    i = 0
    while i + 1 < len(out):
        left, right = out[i], out[i + 1]
        at = other.index(left)
        beside = at + 1 < len(other) and other[at + 1] == right
        if beside and isinstance(left, Axis) and isinstance(right, Axis) and None in (left.size, right.size):
            joined = Axis(left.id, left.letter + right.letter, left.origin, None)
            out[i : i + 2] = [joined]
            other[at : at + 2] = [joined]
        else:
            i += 1
    return (tuple(out),), (tuple(other),)


def _solve(dims: tuple[Dim, ...], total: int | None) -> dict[int, int] | str:
    """Sizes by axis id: at most one is unknown, and the weights' size decides it."""
    sizes = {a.id: a.size for d in dims for a in axes_in(d)}
    unknown = [i for i, s in sizes.items() if s is None]
    if len(unknown) > 1 or (unknown and total is None):
        return UNSIZED
    if unknown:
        one = _total(dims, {**sizes, unknown[0]: 1})
        step = _total(dims, {**sizes, unknown[0]: 2}) - one
        count, rest = divmod((total or 0) - (one - step), step)
        if rest or count < 1:
            return f"{total} rows of the weights do not fit the map in front of them"
        sizes[unknown[0]] = count
    known = {i: s for i, s in sizes.items() if s is not None}
    if total is not None and _total(dims, known) != total:
        return f"the config gives {_total(dims, known)} inputs but the weights have {total}"
    return known


def _total(dims: tuple[Dim, ...], sizes: Mapping[int, int | None]) -> int:
    def one(dim: Dim) -> int:
        return prod((sizes[x.id] or 0) if isinstance(x, Axis) else sum(one(a) for _, a, _ in x.parts) for x in dim)

    return prod(one(d) for d in dims)


def identifier(text: str) -> str:
    """A valid name of an axis or label made from a layer's name."""
    name = re.sub(r"\W+", "_", text.rsplit("/", 1)[-1].lower(), flags=re.ASCII).strip("_") or "x"
    return name if name[0].isalpha() else f"x{name}"


def _names(axes: list[Axis], sizes: Mapping[int, int]) -> Naming:
    naming = Naming()
    letters = [a.letter for a in axes]
    for axis in axes:
        name = axis.letter if letters.count(axis.letter) == 1 else f"{identifier(axis.origin)}_{axis.letter}"
        base, n = name, 2
        while name in naming.sizes:
            name, n = f"{base}_{n}", n + 1
        naming.names[axis.id] = name
        naming.sizes[name] = sizes[axis.id]
    return naming


def _text(dim: Dim, axis: str, naming: Naming, side: int) -> str:
    if len(dim) == 1 and isinstance(dim[0], Cat):
        parts = []
        for (_, *sides), name in zip(dim[0].parts, _labels(dim[0], naming, axis), strict=True):
            parts.append(f"{name}: {_text(sides[side], axis, naming, side)}")
        return f"{axis}{{{' | '.join(parts)}}}"
    words = [naming.names[x.id] for x in dim]
    return words[0] if len(words) == 1 else f"({' '.join(words)})"


def _labels(cat: Cat, naming: Naming, axis: str) -> list[str]:
    labels: list[str] = []
    for label, _, _ in cat.parts:
        name, n = label, 2
        while name in labels or name in naming.sizes or name == axis:
            name, n = f"{label}_{n}", n + 1
        labels.append(name)
    return labels


def _why(dims: tuple[Dim, ...]) -> str:
    if len(dims) > 1:
        return f"map of {next(axes_in(dims[0])).origin}"
    if len(dims[0]) == 1 and isinstance(dims[0][0], Cat):
        return f"concatenate({', '.join(_why((a,)) for _, a, _ in dims[0][0].parts)})"
    origins = list(dict.fromkeys(a.origin for a in axes_in(dims[0])))
    return f"flatten({', '.join(origins)})" if len(dims[0]) > 1 else ", ".join(origins)
