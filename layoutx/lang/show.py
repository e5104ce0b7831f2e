"""Tree to canonical text: `parse(show(t)) == t`."""

from __future__ import annotations

from layoutx.lang.tree import Axis, Dim, Layout, Option, Product, Spread, Sum, Unit


def show(layout: Layout) -> str:
    """The canonical text of a layout.

    >>> from layoutx.lang.parse import parse
    >>> show(parse("w_input :input ( gate[i f]hidden)"))
    'w_input: input (gate[i f] hidden)'
    """
    dims = show_dims(layout.dims)
    if layout.head is None:
        return dims
    head = ".".join((layout.head.role, *layout.head.labels))
    return f"{'-' if layout.head.negated else ''}{head}:{' ' if dims else ''}{dims}"


def show_dims(dims: tuple[Dim, ...]) -> str:
    """The canonical text of dims."""
    return " ".join(show_dim(dim) for dim in dims)


def show_dim(dim: Dim) -> str:
    """The canonical text of one dimension."""
    match dim:
        case Axis(name, back):
            return f"-{name}" if back else name
        case Unit(spread):
            return "1..." if spread else "1"
        case Spread(back):
            return "-..." if back else "..."
        case Product(dims):
            return f"({show_dims(dims)})"
        case Sum():
            return _show_sum(dim)


def _show_sum(node: Sum) -> str:
    if node.axis is not None and not any(option.dims for option in node.options):
        return f"{node.axis}[{' '.join(_label(option) for option in node.options)}]"
    colon = ":" if node.axis is not None else ""
    parts = (f"{_label(o)}: {show_dims(o.dims)}" if o.dims else f"{_label(o)}{colon}" for o in node.options)
    return f"{node.axis or ''}{{{' | '.join(parts)}}}"


def _label(option: Option) -> str:
    return f"-{option.label}" if option.negated else option.label
