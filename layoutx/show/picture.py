"""Where numbers live, as rectangles: each stored tensor a plane of rows and columns, each atom a block of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import log, prod

import numpy as np

from layoutx.frozen import frozen
from layoutx.lang.tree import Sum, walk
from layoutx.plan.naming import dim_names
from layoutx.plan.plan import Plan
from layoutx.spec.bound import Atom, BoundForm, BoundTensor, Place, atom_text

_NAMED = re.compile(r"(?:source|target)\['(\w+)'\]")
Runs = tuple[tuple[int, int], ...]


@frozen
class Spot:
    """A part of a stored tensor: the offset of its first number, and (length, step) of its axes, in elements.

    `part`: the atom whose numbers these are, `w_input.forward.f`; the target's block of it is shown as well.
    """

    tensor: str
    offset: int
    steps: tuple[tuple[int, int], ...]
    part: str = ""


@frozen
class Block:
    """One atom in the plane of its tensor.

    Attributes:
        part: `w_input.f`. role: `w_input`. label: as this framework spells it (`c` for Keras, `g` for torch).
        rows, columns: runs (first, one past the last) of the plane; several where the atom is spread in stripes.
        negated: stored with the sign changed.
    """

    part: str
    role: str
    label: str
    rows: Runs
    columns: Runs
    negated: bool = False
    state: bool = False


@frozen
class Drawing:
    """One stored tensor: its outer dimensions are the rows of a plane, its inner ones the columns, as in memory.

    Attributes:
        axes: names of the stored dimensions, outermost first; the first `split` of them are the rows.
    """

    tensor: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    split: int
    blocks: tuple[Block, ...]
    spot: tuple[Runs, Runs] | None = None

    @property
    def rows(self) -> int:
        """Rows of the plane; 1 for a vector."""
        return prod(self.shape[: self.split])

    @property
    def columns(self) -> int:
        """Columns of the plane."""
        return prod(self.shape[self.split :])


@frozen
class Link:
    """A block's way from one side to the other; `turned` where an axis is stored in the other direction there."""

    source: tuple[str, str]
    target: tuple[str, str]
    turned: bool = False


@frozen
class Picture:
    """A layer as one framework stores it, and as another does.

    Attributes:
        source, target: forms ("keras.LSTM"); target "" where there is one side only.
        code: lines of NumPy that do it, target tensor by tensor.
        part: the atom that the picture points at; "" where it shows the layer as a whole.
    """

    source: str
    here: tuple[Drawing, ...]
    target: str = ""
    there: tuple[Drawing, ...] = ()
    links: tuple[Link, ...] = ()
    code: tuple[str, ...] = ()
    part: str = ""


def picture(source: BoundForm, plan: Plan | None = None, spot: Spot | None = None) -> Picture:
    """A bound form beside the target of a plan from it.

    Args:
        source: the layer. plan: how its numbers go to another form; without it the layer stands alone.
        spot: a part of one source tensor to point at.
    """
    here = tuple(drawing(source, t, spot if spot and spot.tensor == t.name else None) for t in source.tensors)
    part = spot.part if spot else ""
    if plan is None:
        return Picture(source.form.name, here, part=part)
    goal = plan.target
    there = tuple(drawing(goal, t) for t in goal.tensors)
    links = tuple(_links(source, goal))
    return Picture(source.form.name, here, goal.form.name, there, links, tuple(_lines(plan)), part)


def drawing(bound: BoundForm, tensor: BoundTensor, spot: Spot | None = None) -> Drawing:
    """One tensor's plane. The plane is cut where it is nearest to a square: that is where people draw it."""
    names = dim_names(bound, tensor)
    if tensor.cut is not None:
        return Drawing(tensor.name, tuple(names), tensor.shape, len(names) - 1, ())
    split = split_of(tensor.shape)
    columns = prod(tensor.shape[split:])
    spelled = dict(_spelled(tensor))
    blocks = []
    for atom, place in bound.places.items():
        if place.tensor != tensor.name:
            continue
        steps = [(bound.sizes[axis], step) for axis, step in place.block.strides.items()]
        rows, cols = runs(place.block.offset, steps, columns)
        role, labels = atom
        shown = [spelled.get(label, label) for axis, label in labels if (axis, label) in _inside(tensor)]
        state = bound.kind.roles[role].state
        blocks.append(Block(atom_text(atom), role, " ".join(shown), rows, cols, place.block.negated, state))
    where = runs(spot.offset, spot.steps, columns) if spot else None
    return Drawing(tensor.name, tuple(names), tensor.shape, split, tuple(blocks), where)


def runs(offset: int, steps: Sequence[tuple[int, int]], columns: int) -> tuple[Runs, Runs]:
    """The runs of rows and of columns in which a block lies; every axis moves along one of the two."""
    if columns == 0:
        return (), ()
    row, column = divmod(offset, columns)
    down = [(size, step // columns) for size, step in steps if abs(step) >= columns and size > 1]
    along = [(size, step) for size, step in steps if abs(step) < columns and size > 1]
    return _intervals(row, down), _intervals(column, along)


def _intervals(start: int, steps: Sequence[tuple[int, int]]) -> Runs:
    found = np.array([start])
    for size, step in steps:
        found = np.add.outer(found, np.arange(size) * step).reshape(-1)
    found.sort()  # np.unique would import numpy.ma, which takes longer than all of this
    edges = np.flatnonzero(np.diff(found) != 1) + 1
    return tuple((int(run[0]), int(run[-1]) + 1) for run in np.split(found, edges) if len(run))


def split_of(shape: Sequence[int]) -> int:
    """How many dimensions are rows: where the plane is nearest to a square; 0 for a vector."""
    if len(shape) < 2:
        return 0

    def skew(at: int) -> float:
        return abs(log(max(prod(shape[:at]), 1) / max(prod(shape[at:]), 1)))

    return min(range(1, len(shape)), key=skew)


def _spelled(tensor: BoundTensor) -> Iterator[tuple[str, str]]:
    """Label -> as the spec wrote it for this framework."""
    for node in walk(tensor.layout.dims):
        if isinstance(node, Sum):
            for option in node.options:
                text = tensor.layout.text[slice(*option.span)]
                yield option.label, text if text.isidentifier() else option.label


def _inside(tensor: BoundTensor) -> set[tuple[str, str]]:
    """(axis, label) of the sums that lie in the tensor itself; a label that the tensor's name says is not drawn."""
    sums = [node for node in walk(tensor.layout.dims) if isinstance(node, Sum) and node.axis and len(node.options) > 1]
    return {(str(node.axis), option.label) for node in sums for option in node.options}


def _links(source: BoundForm, target: BoundForm) -> Iterator[Link]:
    for atom, place in source.places.items():
        goal = target.places.get(atom)
        if goal is not None:
            yield Link((place.tensor, atom_text(atom)), (goal.tensor, atom_text(atom)), _turned(atom, place, goal))


def _turned(atom: Atom, here: Place, there: Place) -> bool:
    steps, other = here.block.strides, there.block.strides
    return any(steps[axis] * other[axis] < 0 for axis in steps if axis in other)


def _lines(plan: Plan) -> Iterator[str]:
    """The lines of NumPy that fill the target, without the frame of the function."""
    body = [line.strip() for line in plan.code().splitlines() if line.startswith("    ")]
    names = [tensor.name for tensor in (*plan.source.tensors, *plan.target.tensors)]
    for line in body:
        if line.startswith(('"""', "return ")) or line == "target = {}":
            continue
        yield _NAMED.sub(r"\1", line) if all(name.isidentifier() for name in names) else line
