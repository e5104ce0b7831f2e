"""A layout as written to a layout of one layer: aliases, missing labels, `...` and refined axes resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from layoutx.errors import BindError
from layoutx.lang.show import show_dim
from layoutx.lang.tree import Axis, Dim, Product, Spread, Sum, Unit, walk

Refined = Mapping[str, tuple[Dim, ...]]


def count_spread(dims: Sequence[Dim], rank: int) -> int | None:
    """How many axes `...` stands for in a tensor of `rank` dimensions; None where the dims have no `...`."""
    spreads = [d for d in dims if isinstance(d, Spread) or (isinstance(d, Unit) and d.spread)]
    if not spreads:
        return None
    return (rank - (len(dims) - len(spreads))) // len(spreads)


def expand(
    dims: Sequence[Dim],
    spatial: Sequence[str],
    labels: Mapping[str, Sequence[str]],
    aliases: Mapping[str, str],
    refined: Refined,
) -> tuple[Dim, ...]:
    """Dims with nothing left open.

    Args:
        spatial: the names that `...` stands for here.
        labels: enumerated axis -> the labels this form has; others are dropped from sums over that axis.
        aliases: a form's own spelling of a label -> the kind's.
        refined: axis -> the dims that it is made of.

    Raises:
        BindError: a label that the kind does not have.
    """
    found: list[Dim] = []
    for dim in dims:
        match dim:
            case Spread(back):
                found += [Axis(name, back, dim.span) for name in spatial]
            case Unit(True):
                found += [Unit(False, dim.span) for _ in spatial]
            case Axis(name, back) if name in refined:
                if back:
                    raise BindError(
                        f"the axis {name} is stored back to front and cannot be refined", where=show_dim(dim)
                    )
                found += refined[name]
            case Product(inner):
                found.append(Product(expand(inner, spatial, labels, aliases, refined), dim.span))
            case Sum():
                found.append(_expand_sum(dim, spatial, labels, aliases, refined))
            case _:
                found.append(dim)
    return tuple(found)


def _expand_sum(
    node: Sum,
    spatial: Sequence[str],
    labels: Mapping[str, Sequence[str]],
    aliases: Mapping[str, str],
    refined: Refined,
) -> Sum:
    options = []
    for option in node.options:
        label = option.label if node.axis is None else aliases.get(option.label, option.label)
        if node.axis is not None and node.axis in labels and label not in labels[node.axis]:
            continue
        dims = expand(option.dims, spatial, labels, aliases, refined)
        options.append(replace(option, label=label, dims=dims))
    return Sum(node.axis, tuple(options), node.span)


def leaves(dims: Sequence[Dim]) -> list[tuple[dict[str, str], tuple[str, ...]]]:
    """The combinations of labels that dims enumerate, each with its integer axes."""
    found: list[tuple[dict[str, str], tuple[str, ...]]] = [({}, ())]
    for dim in dims:
        match dim:
            case Axis(name):
                options: list[tuple[dict[str, str], tuple[str, ...]]] = [({}, (name,))]
            case Product(inner):
                options = leaves(inner)
            case Sum(axis, choices):
                options = [
                    ({**({axis: o.label} if axis else {}), **inner_labels}, axes)
                    for o in choices
                    for inner_labels, axes in leaves(o.dims)
                ]
            case _:
                options = [({}, ())]
        found = [({**a, **b}, (*x, *y)) for a, x in found for b, y in options]
    return found


def axis_names(dims: Sequence[Dim]) -> set[str]:
    """All integer axes named in dims."""
    return {node.name for node in walk(tuple(dims)) if isinstance(node, Axis)}
