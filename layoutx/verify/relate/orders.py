"""Where equal numbers hide their places: every order of a layout's dims and labels, compared number by number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, islice, permutations, product
from math import prod

import numpy as np

from layoutx.frozen import frozen
from layoutx.lang.tree import Axis, Dim, Option, Product, Sum
from layoutx.plan.plan import Array
from layoutx.verify.relate.written import Leaf, Piece

MOST = 40_000
SAMPLE = 600
MOST_FITS = 64


@frozen
class Order:
    """One arrangement of a tensor's leaves.

    Attributes:
        leaves: outermost first, with the order of their labels and their direction.
        like: correlation with what is stored, on a sample; exact: all numbers are equal.
    """

    leaves: tuple[Dim, ...]
    like: float = 0.0
    exact: bool = False

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """Enumerated axis -> its labels as they lie."""
        return {leaf.axis or "": tuple(o.label for o in leaf.options) for leaf in self.leaves if isinstance(leaf, Sum)}


def leaves_of(dims: Sequence[Dim], sizes: Mapping[str, int]) -> tuple[Dim, ...] | None:
    """A layout's dims longer than one, without products; None where blocks of unequal kinds lie end to end."""
    found: list[Dim] = []
    for dim in dims:
        if isinstance(dim, Product):
            inner = leaves_of(dim.dims, sizes)
            if inner is None:
                return None
            found += inner
        elif isinstance(dim, Sum):
            blocks = {leaves_of(o.dims, sizes) for o in dim.options}
            block = next(iter(blocks))
            if len(blocks) > 1 or block is None or any(o.negated for o in dim.options):
                return None
            found += [Sum(dim.axis, tuple(Option(o.label) for o in dim.options)), *block]
        elif _size(dim, sizes) > 1:
            found.append(dim)
    return tuple(found)


def orders(dims: Sequence[Dim], sizes: Mapping[str, int], expected: Array, stored: Array) -> list[Order]:
    """The arrangements under which the expected numbers are those stored; else the one that is most alike.

    Args:
        dims: the layout by which `expected` is stored.
        expected, stored: the two tensors, flat.

    Returns:
        All exact ones, the nearest to the layout first; where there is none, the one of the largest correlation.
    """
    own = leaves_of(dims, sizes)
    if own is None or not stored.size:
        return []
    shape = tuple(_size(leaf, sizes) for leaf in own)
    if prod(shape) != expected.size or expected.size != stored.size:
        return []
    at = np.unique(np.linspace(0, stored.size - 1, min(SAMPLE, stored.size)).astype(np.int64))
    there = stored[at].astype(np.float64)
    best: Order | None = None
    fits: list[Order] = []
    for leaves in islice(_arranged(own), MOST):
        here = expected[_origin(own, leaves, shape, sizes, at)]
        if np.array_equal(here, stored[at]):
            if _whole(own, leaves, shape, sizes, expected, stored):
                fits.append(Order(leaves, 1.0, True))
                if len(fits) == MOST_FITS:
                    break
        elif not fits:
            like = _alike(here.astype(np.float64), there)
            best = Order(leaves, like) if best is None or like > best.like + 1e-9 else best
    return fits or ([best] if best is not None else [])


def pieces_of(order: Order, sizes: Mapping[str, int], role: str) -> list[Piece]:
    """The arrangement as pieces of a tensor: one for each choice of labels."""
    steps, span = [], 1
    for leaf in reversed(order.leaves):
        steps.append(span)
        span *= _size(leaf, sizes)
    steps.reverse()
    axes = [
        Leaf(leaf.name, sizes[leaf.name], step, leaf.reversed)
        for leaf, step in zip(order.leaves, steps, strict=True)
        if isinstance(leaf, Axis)
    ]
    sums = [(leaf, step) for leaf, step in zip(order.leaves, steps, strict=True) if isinstance(leaf, Sum)]
    found = []
    for choice in product(*(range(len(leaf.options)) for leaf, _ in sums)):
        named = {leaf.axis or "": leaf.options[i].label for (leaf, _), i in zip(sums, choice, strict=True)}
        low = sum(i * step for (_, step), i in zip(sums, choice, strict=True))
        found.append(Piece(named.pop("", role), named, low, tuple(axes)))
    return found


def _size(leaf: Dim, sizes: Mapping[str, int]) -> int:
    return len(leaf.options) if isinstance(leaf, Sum) else sizes[leaf.name] if isinstance(leaf, Axis) else 1


def _arranged(own: Sequence[Dim]) -> Iterator[tuple[Dim, ...]]:
    """Every order, the nearest first: labels, then dims, then with axes back to front."""
    labels = [_relabelled(leaf) if isinstance(leaf, Sum) else [leaf] for leaf in own]
    axes = [leaf.name for leaf in own if isinstance(leaf, Axis)]
    for count in range(len(axes) + 1):
        for turned in combinations(axes, count):
            for order in permutations(range(len(own))):
                for chosen in product(*labels):
                    yield tuple(_turned(chosen[i], turned) for i in order)


def _relabelled(leaf: Sum) -> list[Sum]:
    options: list[tuple[Option, ...]] = list(islice(permutations(leaf.options), 720))
    return [Sum(leaf.axis, own) for own in options]


def _turned(leaf: Dim, turned: Sequence[str]) -> Dim:
    return Axis(leaf.name, not leaf.reversed) if isinstance(leaf, Axis) and leaf.name in turned else leaf


def _origin(
    own: Sequence[Dim], leaves: Sequence[Dim], shape: Sequence[int], sizes: Mapping[str, int], at: Array
) -> Array:
    """Where, in the expected tensor, the numbers at these positions of an arrangement come from."""
    index = np.unravel_index(at, [_size(leaf, sizes) for leaf in leaves]) if leaves else ()
    found = [np.zeros_like(at)] * len(own)
    for leaf, here in zip(leaves, index, strict=True):
        for place, known in enumerate(own):
            if isinstance(known, Axis) and isinstance(leaf, Axis) and known.name == leaf.name:
                found[place] = shape[place] - 1 - here if known.reversed != leaf.reversed else here
            elif isinstance(known, Sum) and isinstance(leaf, Sum) and known.axis == leaf.axis:
                names = [o.label for o in known.options]
                found[place] = np.array([names.index(o.label) for o in leaf.options])[here]
    return np.ravel_multi_index(tuple(found), tuple(shape)) if own else at


def _whole(
    own: Sequence[Dim],
    leaves: Sequence[Dim],
    shape: Sequence[int],
    sizes: Mapping[str, int],
    expected: Array,
    stored: Array,
    step: int = 1 << 20,
) -> bool:
    return all(
        np.array_equal(expected[_origin(own, leaves, shape, sizes, at)], stored[at], equal_nan=True)
        for start in range(0, stored.size, step)
        for at in [np.arange(start, min(start + step, stored.size))]
    )


def _alike(here: Array, there: Array) -> float:
    """Correlation; 0 where one of them is constant."""
    here, there = here - here.mean(), there - there.mean()
    scale = float(np.sqrt((here @ here) * (there @ there)))
    return float(here @ there) / scale if scale > 0 and np.isfinite(scale) else 0.0
