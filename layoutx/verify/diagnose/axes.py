"""Axes out of place: each tensor read as if its memory had been written under another layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from math import prod

import numpy as np

from layoutx.frozen import frozen
from layoutx.lang.show import show_dims
from layoutx.lang.sizes import extent
from layoutx.lang.tree import Axis, Dim, Product, Sum
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm, BoundTensor
from layoutx.verify.diagnose.fixes import numbers, ported, rewritten
from layoutx.verify.diagnose.numbers import is_float, with_stored
from layoutx.verify.diagnose.suspect import Edit, Suspect

FEW = 5  # axes of a tensor up to which all orders are tried: 120
PARTS = "part"  # roles laid end to end, as an axis
HEADS = frozenset({"kv", "rep", "head", "value", PARTS})


@frozen
class Leaf:
    """One axis of a tensor's memory; `dim`: the stored dimension that it belongs to."""

    name: str
    text: str
    size: int
    dim: int


@frozen
class Order:
    """Another order of a tensor's leaves, outermost first; `again`: this order was made once too often."""

    tensor: BoundTensor
    leaves: tuple[Leaf, ...]
    order: tuple[int, ...]
    again: bool = False

    def read(self, array: Array) -> Array:
        """The stored array as it would be, had its memory been written in the form's own order."""
        sizes = [leaf.size for leaf in self.leaves]
        if self.again:
            return np.ascontiguousarray(array.reshape(sizes).transpose(self.order)).reshape(array.shape)
        found = array.reshape([sizes[i] for i in self.order]).transpose(np.argsort(self.order))
        return np.ascontiguousarray(found).reshape(array.shape)

    @property
    def steps(self) -> str:
        """The same in NumPy words."""
        sizes = [leaf.size for leaf in self.leaves]
        shape = sizes if self.again else [sizes[i] for i in self.order]
        axes = self.order if self.again else [int(i) for i in np.argsort(self.order)]
        stored = tuple(self.tensor.shape)
        apart = "" if tuple(shape) == stored else f".reshape({numbers(shape)})"
        whole = "" if tuple(shape[axis] for axis in axes) == stored else f".reshape({numbers(stored)})"
        return f"{apart}.transpose({numbers(axes)}){whole}"

    @property
    def text(self) -> str:
        """The order as a layout's dims."""
        return " ".join(self.leaves[i].text for i in self.order)


def leaves_of(bound: BoundForm, tensor: BoundTensor) -> tuple[Leaf, ...]:
    """The axes that a tensor's memory runs through, outermost first; those of length one left out."""
    found = []
    for at, dim in enumerate(tensor.layout.dims):
        for leaf in _flat(dim):
            size = extent(leaf, bound.sizes)
            if size > 1:
                found.append(Leaf(_name(leaf), show_dims((leaf,)), size, at))
    return tuple(found)


def _flat(dim: Dim) -> Iterator[Dim]:
    if isinstance(dim, Product):
        for inner in dim.dims:
            yield from _flat(inner)
    else:
        yield dim


def _name(dim: Dim) -> str:
    if isinstance(dim, Axis):
        return dim.name
    return (dim.axis or PARTS) if isinstance(dim, Sum) else ""


def orders(suspect: Suspect) -> Iterator[Edit]:
    """Every tensor's memory in every other order of its axes (F1, F2, F12, F15, F16, F17, F23, F24, F25)."""
    for tensor in suspect.target.tensors:
        leaves = leaves_of(suspect.target, tensor)
        if is_float(suspect, tensor.name) and len(leaves) > 1:
            for order in _orders(len(leaves)):
                yield _edit(suspect, [Order(tensor, leaves, order)])
            for order in _within(leaves):
                yield _edit(suspect, [Order(tensor, leaves, order, again=True)])


def together(suspect: Suspect) -> Iterator[Edit]:
    """The same mistake in all tensors at once: every matrix transposed, heads or gates laid out alike everywhere."""
    own = [
        (tensor, leaves)
        for tensor in suspect.target.tensors
        if is_float(suspect, tensor.name) and (leaves := leaves_of(suspect.target, tensor))
    ]
    turned = [Order(t, found, order) for t, found in own if (order := _transposed(found))]
    if len(turned) > 1:
        yield _edit(suspect, turned)
    products = dict.fromkeys(p for _, found in own for p in _products(found))
    for names in products:
        for order in permutations(range(len(names))):
            if order != tuple(range(len(names))):
                wanted = [found for t, leaves in own if (found := _placed(t, leaves, names, order))]
                if len(wanted) > 1:
                    yield _edit(suspect, wanted)


def _orders(many: int) -> Iterator[tuple[int, ...]]:
    """Orders of so many axes other than the first; beyond a few axes only exchanges, shifts and the reverse."""
    straight = tuple(range(many))
    if many <= FEW:
        yield from (order for order in permutations(straight) if order != straight)
        return
    found = [straight[::-1], *(straight[i:] + straight[:i] for i in range(1, many))]
    for i, j in combinations(straight, 2):
        swapped = list(straight)
        swapped[i], swapped[j] = j, i
        found.append(tuple(swapped))
    yield from dict.fromkeys(found)


def _within(leaves: Sequence[Leaf]) -> Iterator[tuple[int, ...]]:
    """Orders that move axes within one stored dimension only, where the sizes differ (else `_orders` has them)."""
    for dim in dict.fromkeys(leaf.dim for leaf in leaves):
        own = [i for i, leaf in enumerate(leaves) if leaf.dim == dim]
        if 1 < len(own) <= FEW and len({leaves[i].size for i in own}) > 1:
            for moved in permutations(own):
                if list(moved) != own:
                    yield (*range(own[0]), *moved, *range(own[-1] + 1, len(leaves)))


def _transposed(leaves: Sequence[Leaf]) -> tuple[int, ...]:
    """The order with the stored dimensions back to front, each whole; () where there is one only."""
    dims = list(dict.fromkeys(leaf.dim for leaf in leaves))
    if len(dims) < 2:
        return ()
    return tuple(i for dim in reversed(dims) for i, leaf in enumerate(leaves) if leaf.dim == dim)


def _products(leaves: Sequence[Leaf]) -> Iterator[tuple[str, ...]]:
    """Runs of two or three axes that share a stored dimension, roles laid end to end left out."""
    for length in (2, 3):
        for at in range(len(leaves) - length + 1):
            run = leaves[at : at + length]
            if len({leaf.dim for leaf in run}) == 1:
                yield tuple(leaf.name for leaf in run)


def _placed(tensor: BoundTensor, leaves: tuple[Leaf, ...], names: Sequence[str], order: Sequence[int]) -> Order | None:
    """An order of neighbours of these names in one tensor; None where it has them not side by side."""
    own = [leaf.name for leaf in leaves]
    for at in range(len(own) - len(names) + 1):
        if own[at : at + len(names)] == list(names) and len({leaf.dim for leaf in leaves[at : at + len(names)]}) == 1:
            moved = (*range(at), *(at + i for i in order), *range(at + len(names), len(own)))
            return Order(tensor, leaves, moved)
    return None


def _edit(suspect: Suspect, found: Sequence[Order]) -> Edit:
    first = found[0]
    mode, why = _named(suspect, first)
    family = f"axes of {first.tensor.name}" if len(found) == 1 else "axes of all tensors"
    many = "" if len(found) == 1 else f" (and {', '.join(o.tensor.name for o in found[1:])} alike)"
    reads = show_dims(first.tensor.layout.dims)
    lies = f"was put in the order {first.text} once too often" if first.again else f"lies as {first.text}"
    what = f"{first.tensor.name}{many} {lies}; {suspect.target.form.name} reads {reads}{why}"

    def apply(s: Suspect) -> Suspect:
        return with_stored(s, {order.tensor.name: order.read(s.stored[order.tensor.name]) for order in found})

    code = "\n".join(rewritten(suspect, order.tensor.name, order.steps) for order in found)
    option = ported(suspect)
    if mode == "F1":
        option += "   (without --keep-order: layoutx turns the rows itself)"
    short, rare = f"{first.tensor.name} read from {first.text}", _rare(suspect, first)
    return Edit(mode, family, what, apply, option, code, short, rare=rare)


def _rare(suspect: Suspect, found: Order) -> bool:
    """Whether an order is neither an exchange of two axes, nor whole dimensions turned, nor the source's own order."""
    moved = _moved(found)
    if len(moved) <= 3 or found.order in (_transposed(found.leaves), tuple(reversed(range(len(found.leaves))))):
        return False
    return found.text.split(" ") not in [_plain(suspect.source, tensor) for tensor in suspect.source.tensors]


def _plain(bound: BoundForm, tensor: BoundTensor) -> list[str]:
    return " ".join(leaf.text for leaf in leaves_of(bound, tensor)).split(" ")


def _named(suspect: Suspect, found: Order) -> tuple[str, str]:
    """The failure mode that an order of axes is, and its name."""
    moved = _moved(found)
    names = {leaf.name for leaf in moved}
    kind = suspect.target.kind.name
    spatial = {name for axes in suspect.target.kind.spread.values() for name in axes}
    dims = {leaf.dim for leaf in moved}
    refined = names - own_axes(suspect)
    if names == refined and len(dims) == 1:
        return "F1", ": the rows of a flattened map are in the other order"
    if names <= {"half", "pair"}:
        return "F24", ": the two halves of each rotated pair lie side by side, or apart"
    if "attention" in kind and len(dims) == 1 and names & HEADS:
        return "F23", ": heads and projections interleave in another way"
    if names <= spatial:
        return "F17", ": height and width are exchanged"
    if kind == "conv_transpose" and names <= {"in", "out", "group"}:
        return "F16", ": input and output channels of a transposed convolution are exchanged"
    if len(dims) == 1 and names & {"group", "mult", "channel"}:
        return "F15", ": groups and channels (or depth multipliers) interleave in another way"
    if (
        "gate" in suspect.target.labels
        and found.order == (0, 2, 1)
        and found.leaves[0].name == "gate"
        and not _square(found)
    ):
        return "F22", ": each gate's block holds the bytes of its transpose, as cuDNN packs them"
    if kind == "prelu":
        return "F31", ": the slopes stand in another order of axes"
    if _square(found):
        return "F2", ": it is square, and transposed"
    return "F12", ": its bytes are those of another order of axes under this shape"


def own_axes(suspect: Suspect) -> set[str]:
    """Names of the kind's own axes, roles and labels' axes."""
    kind = suspect.target.kind
    own = {name for axes in kind.spread.values() for name in axes} | {*kind.labels, *kind.same, PARTS}
    return own | {dim.name for role in kind.roles.values() for dim in role.axes if isinstance(dim, Axis)}


def _moved(found: Order) -> tuple[Leaf, ...]:
    """The leaves that no longer stand where they were."""
    return tuple(found.leaves[i] for at, i in enumerate(found.order) if at != i)


def _square(found: Order) -> bool:
    """Whether axes, or whole dimensions, of the same length changed places: the shape does not show it."""
    sizes = [leaf.size for leaf in found.leaves]
    if [sizes[i] for i in found.order] == sizes:
        return True
    dims = [found.leaves[i].dim for i in found.order]
    runs = [dim for at, dim in enumerate(dims) if at == 0 or dims[at - 1] != dim]
    shape = {dim: prod(leaf.size for leaf in found.leaves if leaf.dim == dim) for dim in runs}
    return len(set(runs)) == len(runs) and [shape[dim] for dim in runs] == [shape[dim] for dim in sorted(runs)]


def rows(suspect: Suspect) -> Iterator[Edit]:
    """A flattened map behind `input` that nobody knows of: its rows as two axes in the other order (F1)."""
    for tensor in suspect.target.tensors:
        leaves = leaves_of(suspect.target, tensor)
        at = next((i for i, leaf in enumerate(leaves) if leaf.name == "input"), None)
        if at is None or not is_float(suspect, tensor.name):
            continue
        for outer in range(2, leaves[at].size):
            if leaves[at].size % outer == 0:
                yield _edit(suspect, [_split(tensor, leaves, at, outer)])


def _split(tensor: BoundTensor, leaves: tuple[Leaf, ...], at: int, outer: int) -> Order:
    whole = leaves[at]
    parts = tuple(
        Leaf(f"part{i}", f"{whole.name}/{n}", n, whole.dim) for i, n in enumerate((outer, whole.size // outer))
    )
    opened = (*leaves[:at], *parts, *leaves[at + 1 :])
    order = (*range(at), at + 1, at, *range(at + 2, len(opened)))
    return Order(tensor, opened, order)
