"""A second, stupid interpreter of layouts: it peels a flat index with div and mod, and knows no strides.

It shares the parser with the engine and nothing else. An address is (role, {(axis, label)}, {(axis, index)});
axes of length one say nothing and are left out of it, so that a pinned axis and a stored one agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from layoutx.lang.parse import parse
from layoutx.lang.tree import Axis, Dim, Product, Sum, Unit

Address = tuple[str, frozenset[tuple[str, str]], frozenset[tuple[str, int]]]


@dataclass(frozen=True)
class Stored:
    """One stored tensor as its form describes it, with all that its text leaves open.

    Attributes:
        text: the layout text, with `...` and refined axes still in it.
        labels: what the tensor's name, its head or the form fixes, axis -> label.
        names: role -> {axis as written: the role's axis}, where a form writes an axis under another name.
    """

    name: str
    text: str
    labels: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class World:
    """Sizes, what `...` stands for, what axes are made of, which labels there are, other spellings of labels."""

    sizes: Mapping[str, int]
    spatial: Sequence[str] = ()
    refine: Mapping[str, str] = field(default_factory=dict)
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)


def plain(text: str, world: World) -> str:
    """The text with `...` and refined axes written out: a substitution of words, as a person would do it."""
    head, colon, dims = text.partition(":") if re.match(r"-?[\w.]+:", text) else ("", "", text)
    dims = re.sub(r"\b1\.\.\.", " ".join("1" for _ in world.spatial), dims)
    dims = dims.replace("-...", " ".join(f"-{axis}" for axis in world.spatial)).replace("...", " ".join(world.spatial))
    for axis, made_of in world.refine.items():
        dims = re.sub(rf"\b{axis}\b(?![\[{{:])", made_of, dims)
    return head + colon + dims


def addresses(tensor: Stored, world: World) -> tuple[tuple[int, ...], list[tuple[Address, bool]]]:
    """The stored shape, and the address of each element in C order with whether its sign is changed."""
    layout = parse(plain(tensor.text, world))
    shape = tuple(length(dim, world) for dim in layout.dims)
    found = []
    for flat in range(prod(shape)):
        role, labels, axes = layout.head.role if layout.head else "", dict(tensor.labels), {}
        negated = bool(layout.head and layout.head.negated)
        for what, name, at in peel(layout.dims, flat, world):
            if what == "role":
                role = name
            elif what == "sign":
                negated = not negated
            elif what == "label":
                labels[name] = world.aliases.get(str(at), str(at))
            else:
                axes[name] = int(at)
        renamed = tensor.names.get(role, {})
        indices = {(renamed.get(axis, axis), at) for axis, at in axes.items() if world.sizes[axis] != 1}
        found.append(((role, frozenset(labels.items()), frozenset(indices)), negated))
    return shape, found


def length(dim: Dim, world: World) -> int:
    """How many positions a dimension has."""
    if isinstance(dim, Axis):
        return world.sizes[dim.name]
    if isinstance(dim, Product):
        return prod(length(d, world) for d in dim.dims)
    if isinstance(dim, Sum):
        return sum(prod(length(d, world) for d in option.dims) for option in options(dim, world))
    return 1


def options(node: Sum, world: World) -> list:
    """The options of a sum that exist in this form."""
    known = world.only.get(node.axis or "")
    return [o for o in node.options if known is None or world.aliases.get(o.label, o.label) in known]


def peel(dims: Sequence[Dim], flat: int, world: World) -> Iterator[tuple[str, str, object]]:
    """What one flat index means in dims nested outermost first: the last dimension is the fastest."""
    for dim in reversed(dims):
        size = length(dim, world)
        at, flat = flat % size, flat // size
        if isinstance(dim, Axis):
            yield "axis", dim.name, size - 1 - at if dim.reversed else at
        elif isinstance(dim, Product):
            yield from peel(dim.dims, at, world)
        elif isinstance(dim, Sum):
            for option in options(dim, world):
                block = prod(length(d, world) for d in option.dims)
                if at < block:
                    if option.negated:
                        yield "sign", "", ""
                    yield ("role", option.label, "") if dim.axis is None else ("label", dim.axis, option.label)
                    yield from peel(option.dims, at, world)
                    break
                at -= block
        else:
            assert isinstance(dim, Unit), dim


def write(tensor: Stored, world: World, values: Mapping[Address, float]) -> np.ndarray:
    """The stored array of a tensor whose every address has a value."""
    shape, found = addresses(tensor, world)
    return np.array([-values[a] if negated else values[a] for a, negated in found], np.float64).reshape(shape)


def read(tensor: Stored, world: World, array: np.ndarray) -> dict[Address, float]:
    """Address -> value of a stored array, whose shape must be the layout's."""
    shape, found = addresses(tensor, world)
    assert array.shape == shape, (tensor, array.shape, shape)
    flat = array.reshape(-1)
    return {a: -flat[i] if negated else flat[i] for i, (a, negated) in enumerate(found)}
