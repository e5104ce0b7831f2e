"""A layer's formula as a loop, with this layer's sizes and the indices of the arrays as they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from layoutx.lang.tree import Axis, Dim, Product, Spread, Unit, walk
from layoutx.spec.bound import BoundForm, BoundTensor
from layoutx.verify.data import data_order
from layoutx.verify.forward.conv import _conv_pads, _crops, _given, _steps

PLACES: Mapping[int, tuple[str, ...]] = {1: ("t",), 2: ("h", "w"), 3: ("d", "h", "w")}
CONVS = ("conv", "conv_transpose", "separable_conv")


def loop(bound: BoundForm, space: Sequence[int] = ()) -> str:
    """`y[b, t, o] = bias[o] + sum over k<3, i<7 of x[b, t*2 + k - 1, i] * kernel[k, i, o]`; "" for other kinds.

    Args:
        space: lengths of the input's spatial axes, which "same" needs to say how far it pads.
    """
    kind = bound.kind.name
    if kind == "dense" and len(bound.tensor(_of(bound, "kernel")).shape) == 2:
        names = {"input": "i", "output": "o"}
        total = _rows(bound)
        return f"y[.., o] = {_bias(bound, names)}sum over i<{total} of x[.., i] * {_indexed(bound, 'kernel', names)}"
    if kind == "embedding":
        return f"y[.., d] = {_indexed(bound, 'table', {'vocab': 'x[..]', 'dim': 'd'})}"
    if kind in ("conv", "conv_transpose"):
        return _conv(bound, space)
    return ""


def _conv(bound: BoundForm, space: Sequence[int]) -> str:
    sizes, rank = bound.sizes, _rank(bound)
    positions, places = bound.kind.spread[rank], PLACES[rank]
    out, inner, groups = sizes.get("out", 1), sizes.get("in", 1), sizes.get("group", 1)
    names = dict(zip(positions, positions, strict=True))
    names |= {
        "in": "i" if inner > 1 else "0",
        "out": "o" if groups == 1 else f"o % {out}",
        "group": f"o // {out}" if out != 1 else "o",
    }
    sums = [f"{name}<{sizes[name]}" for name in positions] + ([f"i<{inner}"] if inner > 1 else [])
    channel = "i" if inner > 1 else "0"
    if groups > 1:
        first = f"({names['group']})*{inner}" if inner > 1 else names["group"]
        channel = f"{first} + i" if inner > 1 else first
    where = [_place(bound, at, places, positions, space) for at in range(rank)]
    x = _data(bound, "x", where, channel)
    kernel = _indexed(bound, "kernel", names)
    return f"y[{_data(bound, 'y', places, 'o')}] = {_bias(bound, names)}sum over {', '.join(sums)} of x[{x}] * {kernel}"


def _place(bound: BoundForm, at: int, places: Sequence[str], positions: Sequence[str], space: Sequence[int]) -> str:
    """`h*2 + kh*1 - 1`: which position of x a window's position meets."""
    rank, p, k = len(positions), places[at], positions[at]
    size = [bound.sizes[name] for name in positions]
    kind = bound.kind.name
    strides, dilation = _steps(kind, bound.settings, rank)
    reach = [(n - 1) * d + 1 for n, d in zip(size, dilation, strict=True)]
    moved = f"{k}*{dilation[at]}" if dilation[at] > 1 else k
    moved = "" if size[at] == 1 else moved
    if kind == "conv_transpose":
        front = _crops(bound.settings, space, reach, strides)[at][0] if space else None
        text = p + (f" + {front}" if front else " + crop" if front is None else "") + (f" - {moved}" if moved else "")
        return f"({text}) / {strides[at]}" if strides[at] > 1 else text
    padding = _given(bound.settings, "padding", 0)
    known = bool(space) or padding != "same"
    lo = _conv_pads(padding, space or (1,) * rank, reach, strides)[at][0] if known else None
    text = f"{p}*{strides[at]}" if strides[at] > 1 else p
    text += f" + {moved}" if moved else ""
    return text + (f" - {lo}" if lo else " - pad" if lo is None else "")


def _data(bound: BoundForm, name: str, where: Sequence[str], channel: str) -> str:
    """Indices of the data in the framework's own order."""
    words: list[str] = []
    for dim in data_order(bound)[name]:
        if isinstance(dim, Spread):
            words += where
        else:
            words.append("b" if isinstance(dim, Axis) and dim.name == "batch" else channel)
    return ", ".join(words)


def _bias(bound: BoundForm, names: Mapping[str, str]) -> str:
    return f"{_indexed(bound, 'bias', names)} + " if _of(bound, "bias") else ""


def _of(bound: BoundForm, role: str) -> str:
    """The tensor that holds a role; "" where none does."""
    return next((place.tensor for (name, _), place in bound.places.items() if name == role), "")


def _rows(bound: BoundForm) -> int:
    """The length of a dense layer's input, whatever axes it is made of."""
    tensor = bound.tensor(_of(bound, "kernel"))
    return prod(tensor.shape) // bound.sizes["output"] if "output" in bound.sizes else 0


def _indexed(bound: BoundForm, role: str, names: Mapping[str, str]) -> str:
    """`kernel[kh, kw, i, o]`, with the dimensions as stored: `2 - kh` where an axis is stored back to front."""
    tensor = bound.tensor(_of(bound, role))
    return f"{tensor.name}[{', '.join(_index(bound, dim, names) for dim in tensor.layout.dims)}]"


def _index(bound: BoundForm, dim: Dim, names: Mapping[str, str]) -> str:
    match dim:
        case Unit():
            return "0"
        case Axis(name, back):
            text = names.get(name, "i")
            return f"{bound.sizes[name] - 1} - {text}" if back else text
        case Product(dims):
            own = [d for d in dims if not (isinstance(d, Axis) and bound.sizes.get(d.name) == 1)]
            own = own or list(dims[-1:])
            if [d.name for d in own if isinstance(d, Axis)] == ["group", "out"]:
                return "o"
            text = _index(bound, own[0], names)
            for inner in own[1:]:
                size = bound.sizes.get(inner.name, 1) if isinstance(inner, Axis) else 1
                text = f"({text})*{size} + {_index(bound, inner, names)}"
            return text if len(own) == 1 or bound.kind.name != "dense" else "i"
        case _:
            return "i"


def _rank(bound: BoundForm) -> int:
    return next(r for r, names in sorted(bound.kind.spread.items(), reverse=True) if set(names) <= set(bound.sizes))


def turned(tensor: BoundTensor) -> list[str]:
    """The axes of a tensor that are stored back to front."""
    return [node.name for node in walk(tensor.layout.dims) if isinstance(node, Axis) and node.reversed]


def units(tensor: BoundTensor) -> list[int]:
    """The dimensions that are there only for their length of one."""
    return [at for at, dim in enumerate(tensor.layout.dims) if isinstance(dim, Unit)]


def space_of(bound: BoundForm, data: Mapping[str, Any]) -> tuple[int, ...]:
    """Lengths of the spatial axes of x in canonical order."""
    return tuple(data["x"].shape[1:-1]) if bound.kind.name in CONVS and "x" in data else ()
