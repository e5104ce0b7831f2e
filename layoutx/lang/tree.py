"""What a layout text is made of: frozen nodes, each with the span of text that it came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from layoutx.frozen import frozen

NOWHERE = (0, 0)


def _span() -> tuple[int, int]:
    return field(default=NOWHERE, compare=False, repr=False)


@frozen
class Axis:
    """An integer axis; `reversed` where it is stored back to front."""

    name: str
    reversed: bool = False
    span: tuple[int, int] = _span()


@frozen
class Unit:
    """A dimension of length one; `spread`: one such dimension for each spatial axis."""

    spread: bool = False
    span: tuple[int, int] = _span()


@frozen
class Spread:
    """`...`: the spatial axes, each a dimension; `reversed` where all are stored back to front."""

    reversed: bool = False
    span: tuple[int, int] = _span()


@frozen
class Product:
    """Dims multiplied into one dimension, row-major: the last is fastest."""

    dims: tuple[Dim, ...]
    span: tuple[int, int] = _span()


@frozen
class Option:
    """One option of a sum: a label (or a role, where the sum has no axis) and the dims of its block.

    `negated`: the values of this option are stored with the sign changed.
    """

    label: str
    dims: tuple[Dim, ...] = ()
    negated: bool = False
    span: tuple[int, int] = _span()


@frozen
class Sum:
    """Options laid end to end. `axis` names what they enumerate; None: they are roles.

    `gate[i f]` is the sum over `gate` with empty blocks; `input{a: h w | b: n}` has blocks of
    different sizes; `{w_q | w_k}` lays whole roles end to end.
    """

    axis: str | None
    options: tuple[Option, ...]
    span: tuple[int, int] = _span()


Dim = Axis | Unit | Spread | Product | Sum


@frozen
class Head:
    """Which role a layout stores, of which labels only, and whether its values are negated."""

    role: str
    labels: tuple[str, ...] = ()
    negated: bool = False
    span: tuple[int, int] = _span()


@frozen
class Layout:
    """A whole layout: its head (None where parts name the roles) and the stored dimensions, outermost first."""

    head: Head | None
    dims: tuple[Dim, ...]
    text: str = field(default="", compare=False, repr=False)


def walk(dims: tuple[Dim, ...]) -> Iterator[Dim]:
    """Every node below `dims`, parents first, in text order."""
    for dim in dims:
        yield dim
        if isinstance(dim, Product):
            yield from walk(dim.dims)
        elif isinstance(dim, Sum):
            for option in dim.options:
                yield from walk(option.dims)


def roles_of(layout: Layout) -> tuple[str, ...]:
    """The roles that a layout stores, in order of first appearance."""
    if layout.head is not None:
        return (layout.head.role,)
    sums = (node for node in walk(layout.dims) if isinstance(node, Sum) and node.axis is None)
    return tuple(dict.fromkeys(option.label for node in sums for option in node.options))
