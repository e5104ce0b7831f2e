"""A stored tensor's dimensions by name, as people read them: axes of length one inside a product are not named."""

from __future__ import annotations

from collections.abc import Mapping

from layoutx.lang.show import show_dim
from layoutx.lang.tree import Axis, Dim, Product, Sum
from layoutx.spec.bound import BoundForm, BoundTensor


def dim_name(dim: Dim) -> str:
    """The name of a stored dimension for people: `gate×hidden`."""
    match dim:
        case Axis(name, back):
            return f"{name} reversed" if back else name
        case Product(dims):
            return "×".join(dim_name(d) for d in dims) or "1"
        case Sum(None, options):
            return "+".join(option.label for option in options)
        case Sum(axis, _):
            return str(axis)
        case _:
            return show_dim(dim)


def dim_names(bound: BoundForm, tensor: BoundTensor) -> list[str]:
    """`["kh", "kw", "in", "out"]`, outermost first."""
    return [dim_name(_short(dim, bound.sizes)) for dim in tensor.layout.dims]


def with_sizes(bound: BoundForm, tensor: BoundTensor) -> str:
    """`kernel (kh 3, kw 3, in 1, out 12)`."""
    named = zip(dim_names(bound, tensor), tensor.shape, strict=True)
    return f"{tensor.name} ({', '.join(f'{name} {size}' for name, size in named)})"


def _short(dim: Dim, sizes: Mapping[str, int]) -> Dim:
    if not isinstance(dim, Product):
        return dim
    kept = tuple(d for d in dim.dims if not (isinstance(d, Axis) and sizes.get(d.name) == 1))
    return Product(kept or dim.dims[-1:])
