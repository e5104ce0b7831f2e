"""What each stored dimension counts: inputs, units, rows to look up; told by the axes of the layer's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from math import prod

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.lang.parse import parse_dims
from layoutx.lang.sizes import extent
from layoutx.lang.tree import Axis, Dim, Option, Product, Sum, Unit, walk
from layoutx.model.record import Piece
from layoutx.plan.naming import dim_names
from layoutx.spec.bound import BoundForm, BoundTensor
from layoutx.verify.data import data_order

INPUT, UNIT, BOTH, PAST, LOOKUP, OTHER = "input", "unit", "both", "past", "lookup", ""


@frozen
class Dimension:
    """One stored dimension.

    Attributes:
        name: `input`, `gate×hidden`, `kh`; size: its length.
        side: INPUT (what goes in), UNIT (what comes out), BOTH (a channel that goes through), PAST (what came out one
            step before), LOOKUP (rows chosen by a whole number), OTHER.
    """

    name: str
    size: int
    side: str = OTHER
    dim: Dim = field(default_factory=Unit, repr=False, compare=False)
    sizes: Mapping[str, int] = field(default=NOTHING, repr=False, compare=False)

    def place(self, index: int) -> tuple[tuple[str, str], ...]:
        """An index as (axis, where on it) pairs: (("gate", "f"), ("hidden", "5")); of a plain axis just the index."""
        found = _place(self.dim, index, self.sizes)
        return found or ((self.name, str(index)),)


def dimensions(
    bound: BoundForm,
    tensor: BoundTensor,
    refine: Mapping[str, str] = NOTHING,
    pieces: Mapping[str, tuple[Piece, ...]] = NOTHING,
) -> tuple[Dimension, ...]:
    """The stored dimensions of one tensor, outermost first.

    Args:
        refine: axis -> its dims in the stored order, `{"input": "(h w c)"}`.
        pieces: axis -> what it is made of, where no order of two differs and nothing is refined.
    """
    parents = {
        leaf.name: axis
        for axis, text in refine.items()
        for leaf in walk(parse_dims(text))
        if isinstance(leaf, Axis) and leaf.name != axis
    }
    ins, outs = _ends(bound)
    found = []
    for name, size, dim in zip(dim_names(bound, tensor), tensor.shape, tensor.layout.dims, strict=True):
        own = [n for n in walk((dim,)) if isinstance(n, Axis) and bound.sizes.get(n.name) != 1]
        parts = {parents.get(n.name, n.name) for n in own}
        summed = {n.axis for n in walk((dim,)) if isinstance(n, Sum) and n.axis in ins | outs}
        side = _side(parts | {str(s) for s in summed}, bound, ins, outs)
        made = _made(pieces.get(dim.name, ()), size) if isinstance(dim, Axis) and not dim.reversed else None
        found.append(Dimension(name, size, side, *(made or (dim, bound.sizes))))
    return tuple(found)


def _made(pieces: Sequence[Piece], size: int) -> tuple[Dim, Mapping[str, int]] | None:
    """The axes that an input is made of as dims and their sizes; None where they say nothing more than an index."""
    known = [p for p in pieces if p.size is not None]
    if len(known) != len(pieces) or sum(p.size or 0 for p in known) != size:
        return None
    if not known or (len(known) == 1 and len([n for _, n in known[0].axes if n != 1]) < 2):
        return None
    sizes: dict[str, int] = {}
    options = []
    for piece in known:
        dims = []
        for letter, n in piece.axes:
            name = letter
            while sizes.get(name, n) != n:
                name += "'"
            sizes[name] = n or 1
            dims.append(Axis(name))
        options.append(Option(piece.origins[0] if piece.origins else "", tuple(dims)))
    if len(options) == 1:
        return Product(options[0].dims), sizes
    assert size == sum(prod(sizes[a.name] for a in o.dims if isinstance(a, Axis)) for o in options)
    return Sum("from", tuple(options)), sizes


def plain_dimensions(shape: Sequence[int]) -> tuple[Dimension, ...]:
    """The dimensions of a tensor of which nothing is known."""
    return tuple(Dimension(f"axis {i}", size) for i, size in enumerate(shape))


def _ends(bound: BoundForm) -> tuple[set[str], set[str]]:
    """Axes of what goes into a layer, and of what comes out."""
    data = {name: {n.name for n in walk(dims) if isinstance(n, Axis)} for name, dims in data_order(bound).items()}
    outs = data.pop("y", set())
    states = {"h", "c"}
    ins = {name for entry, names in data.items() if entry not in states for name in names}
    twins = {a for pair in bound.kind.same.items() for a in pair if set(pair) & outs}
    return ins, outs | twins


def _side(parts: set[str], bound: BoundForm, ins: set[str], outs: set[str]) -> str:
    past = set(bound.kind.same)
    if parts & (outs - ins - past):
        return UNIT
    if parts & past:
        return PAST
    if parts & (ins - outs):
        return INPUT
    if parts & ins & outs:
        return BOTH
    looked_up = parts and not any(name in bound.sizes for name in ins) and parts.isdisjoint(outs)
    return LOOKUP if looked_up and outs else OTHER


def _place(dim: Dim, index: int, sizes: Mapping[str, int]) -> tuple[tuple[str, str], ...]:
    match dim:
        case Axis(name, back):
            return ((name, str(extent(dim, sizes) - 1 - index if back else index)),)
        case Product(dims):
            return _row_major(dims, index, sizes)
        case Sum(axis, options):
            for option in options:
                span = extent(Product(option.dims), sizes) if option.dims else 1
                if index < span:
                    inner = _row_major(option.dims, index, sizes)
                    if len(inner) == 1 and option.dims:  # a piece of one axis: `aux 1`, and not `input aux, aux_n 1`
                        return ((option.label, inner[0][1]),)
                    inner = tuple((name.removeprefix(f"{option.label}_"), at) for name, at in inner)
                    return ((axis or "part", option.label), *inner)
                index -= span
    return ()


def _row_major(dims: Sequence[Dim], index: int, sizes: Mapping[str, int]) -> tuple[tuple[str, str], ...]:
    found: tuple[tuple[str, str], ...] = ()
    for dim in reversed(dims):
        size = extent(dim, sizes)
        found = (*(_place(dim, index % size, sizes) if size > 1 else ()), *found)
        index //= size
    return found
