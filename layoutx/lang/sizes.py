"""Axis sizes, solved from shapes, configs and given sizes: every stored dimension is an equation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from layoutx.errors import SizeError, raise_all
from layoutx.frozen import frozen
from layoutx.lang.show import show_dim, show_dims
from layoutx.lang.tree import Axis, Dim, Product, Spread, Sum, Unit, walk


@frozen
class Equation:
    """`dim` has `size` elements; `where` says who claims it ("kernel (7, 20) dimension 1", "units=20")."""

    dim: Dim
    size: int
    where: str


class _Linear(NamedTuple):
    """factor * unknown + constant; unknown "" for a plain number. Thousands are made for a model, as tuples soonest."""

    factor: int
    unknown: str
    constant: int


def extent(dim: Dim, sizes: Mapping[str, int]) -> int:
    """Number of elements of one dimension, all axis sizes known.

    Raises:
        SizeError: an axis has no size.
    """
    value = _evaluate(dim, sizes)
    if value is None or value.unknown:
        missing = [n.name for n in walk((dim,)) if isinstance(n, Axis) and n.name not in sizes]
        raise SizeError(f"nothing determines the size of {', '.join(dict.fromkeys(missing))}", where=show_dim(dim))
    return value.constant


def solve(equations: Sequence[Equation], given: Mapping[str, int] | None = None) -> dict[str, int]:
    """Sizes of all axes that the equations determine, starting from the given ones.

    Raises:
        SizeError: a contradiction, with both claims; several are shown together.
    """
    sizes = dict(given or {})
    source = dict.fromkeys(sizes, "given")
    waiting = list(equations)
    progress = True
    while progress and waiting:
        progress, remaining = False, []
        for equation in waiting:
            value = _evaluate(equation.dim, sizes)
            if value is None:
                remaining.append(equation)
            elif value.unknown:
                solved = _divide(value, equation)
                if solved is None:
                    remaining.append(equation)
                    continue
                sizes[value.unknown] = solved
                source[value.unknown] = equation.where
                progress = True
        waiting = remaining
    raise_all(list(_contradictions(equations, sizes, source)), "sizes that contradict each other")
    return sizes


def _divide(value: _Linear, equation: Equation) -> int | None:
    """The unknown of a linear equation; None where it has no whole solution."""
    rest = equation.size - value.constant
    if value.factor == 0 or rest < 0 or rest % value.factor:
        return None
    return rest // value.factor


def _contradictions(
    equations: Iterable[Equation], sizes: Mapping[str, int], source: Mapping[str, str]
) -> Iterable[SizeError]:
    for equation in equations:
        value = _evaluate(equation.dim, sizes)
        if value is None:
            continue
        if value.unknown:
            text = f"{value.factor} × {value.unknown}" + (f" + {value.constant}" if value.constant else "")
            yield SizeError(f"{text} cannot be {equation.size}", where=f"{equation.where}: {show_dim(equation.dim)}")
        elif value.constant != equation.size:
            names = dict.fromkeys(n.name for n in walk((equation.dim,)) if isinstance(n, Axis))
            known = ", ".join(f"{n}={sizes[n]} ({source.get(n, 'given')})" for n in names if n in sizes)
            yield SizeError(
                f"{show_dim(equation.dim)} is {value.constant}, not {equation.size}",
                where=equation.where,
                why=f"with {known}" if known else "",
            )


def _evaluate(dim: Dim, sizes: Mapping[str, int]) -> _Linear | None:
    """A dimension's extent as a number or a linear form in one unknown axis; None where two are unknown."""
    if isinstance(dim, Axis):  # nearly all are
        size = sizes.get(dim.name)
        return _Linear(1, dim.name, 0) if size is None else _Linear(0, "", size)
    match dim:
        case Unit():
            return _Linear(0, "", 1)
        case Product(dims):
            return _product(dims, sizes)
        case Sum(_, options):
            total: _Linear | None = _Linear(0, "", 0)
            for option in options:
                total = _add(total, _product(option.dims, sizes))
            return total
        case Spread():
            raise SizeError("the spatial axes `...` are not expanded yet", where=show_dims((dim,)))


def _product(dims: Sequence[Dim], sizes: Mapping[str, int]) -> _Linear | None:
    total = _Linear(0, "", 1)
    for dim in dims:
        value = _evaluate(dim, sizes)
        if value is None or (value.unknown and total.unknown):
            return None
        if value.unknown:
            total = _Linear(value.factor * total.constant, value.unknown, value.constant * total.constant)
        else:
            total = _Linear(total.factor * value.constant, total.unknown, total.constant * value.constant)
    return total


def _add(left: _Linear | None, right: _Linear | None) -> _Linear | None:
    if left is None or right is None or (left.unknown and right.unknown and left.unknown != right.unknown):
        return None
    return _Linear(left.factor + right.factor, left.unknown or right.unknown, left.constant + right.constant)
