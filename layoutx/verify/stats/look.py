"""One layer under the names of its mathematics, as the rules look at it: roles, axes, and which of them are units."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from layoutx.frozen import frozen
from layoutx.lang.tree import Axis, Spread, Sum
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.spec.expand import axis_names
from layoutx.spec.schema import Role
from layoutx.verify.data import data_order
from layoutx.verify.roles import roles


@frozen
class Look:
    """One layer.

    Attributes:
        values: role -> array, axes in the kind's order; absent ones hold what absence means.
        axes: role -> the names of these axes. stored: the roles that the file has.
    """

    name: str
    bound: BoundForm
    values: Mapping[str, Array]
    axes: Mapping[str, tuple[str, ...]]
    stored: frozenset[str]

    @property
    def activation(self) -> str:
        """The layer's own activation; "" where its file does not tell one."""
        return str(self.bound.settings.get("activation") or "")

    def element(self, role: str, index: tuple[int, ...]) -> str:
        """`kernel at input 3, output 5`; enumerated axes by their labels."""
        pairs = zip(self.axes[role], index, strict=True)
        return f"{role} at {', '.join(self.place(axis, at) for axis, at in pairs)}" if index else role

    def place(self, axis: str, at: int) -> str:
        """`output 5`, `gate f`."""
        labels = self.bound.labels.get(axis, ())
        return f"{axis} {labels[at]}" if at < len(labels) else f"{axis} {at}"


@frozen
class Matrix:
    """A role as matrices from what comes in to what goes out.

    Attributes:
        array: (apart, out, in): `apart` are axes whose blocks do not mix (the groups of a convolution, two directions).
        apart, out, into: the names and lengths of the axes that each of the three is made of.
    """

    role: str
    array: Array
    apart: tuple[tuple[str, int], ...]
    out: tuple[tuple[str, int], ...]
    into: tuple[tuple[str, int], ...]


def look(name: str, bound: BoundForm, arrays: Mapping[str, Array], last: Mapping[str, str]) -> Look:
    """One layer, its numbers read.

    Raises:
        LayoutxError: arrays that do not fit the form.
    """
    values = roles(bound, arrays, last)
    axes = {role: _axes(bound, bound.kind.roles[role], value) for role, value in values.items()}
    return Look(name, bound, values, axes, frozenset(role for role, _ in bound.places))


def _axes(bound: BoundForm, role: Role, value: Array) -> tuple[str, ...]:
    """One name a dimension of a role's array; `...` is spelled out."""
    names: list[str] = []
    rank = value.ndim - sum(not isinstance(dim, Spread) for dim in role.axes)
    for dim in role.axes:
        match dim:
            case Axis(axis, _):
                names.append(axis)
            case Sum():
                names.append(dim.axis or "part")
            case _:
                names += bound.kind.spread.get(rank, tuple(f"s{i}" for i in range(rank)))
    return tuple(names)


def matrices(look: Look) -> list[Matrix]:
    """The roles that map inputs to outputs; those of which nobody can tell which axes are which are left out."""
    return [found for role in look.values if role in look.stored and (found := matrix(look, role))]


def matrix(look: Look, role: str) -> Matrix | None:
    """A role as a matrix: its outputs are the axes of its bias, else those that the layer's output has.

    A bias belongs to a kernel by its name: bias to kernel and weight, b_x to w_x.
    """
    axes = look.axes[role]
    outputs = _outputs(look, role)
    data = data_order(look.bound)
    here, there = axis_names(data.get("x", ())), axis_names(data.get("y", ()))
    apart = [a for a in axes if a in here & there or (a in look.bound.labels and a in there)]
    out = [a for a in axes if a in outputs and a not in apart]
    into = [a for a in axes if a not in out and a not in apart]
    if not out or not into:
        return None
    order = [axes.index(a) for a in (*apart, *out, *into)]
    turned = look.values[role].transpose(order)
    groups = [tuple((a, look.values[role].shape[axes.index(a)]) for a in own) for own in (apart, out, into)]
    array = turned.reshape([prod(size for _, size in own) for own in groups])
    return Matrix(role, array, *groups)


def bias_of(look: Look, role: str) -> str:
    """The role that is added where this one multiplies; "" for none."""
    own = f"b{role[1:]}" if role == "w" or role.startswith("w_") else "bias"
    known = look.bound.kind.roles.get(own)
    return own if known is not None and known.absent == "zeros" and own in look.values else ""


def _outputs(look: Look, role: str) -> set[str]:
    bias = bias_of(look, role)
    if bias and set(look.axes[bias]) <= set(look.axes[role]):
        return set(look.axes[bias])
    known = look.bound.kind.roles[role]
    if known.state or known.absent or len(look.axes[role]) < 2:
        return set()
    return set(look.axes[role]) & axis_names(data_order(look.bound).get("y", ()))


def index_in(groups: tuple[tuple[str, int], ...], at: int) -> tuple[tuple[str, int], ...]:
    """Where a number of a flattened axis lies: axis and index of each."""
    found = np.unravel_index(at, [size for _, size in groups]) if groups else ()
    return tuple((axis, int(i)) for (axis, _), i in zip(groups, found, strict=True))


def spell(look: Look, groups: tuple[tuple[str, int], ...], at: int) -> str:
    """`gate f, hidden 3` for a number of a flattened axis."""
    return ", ".join(look.place(axis, i) for axis, i in index_in(groups, at))


def floats(array: Array) -> np.ndarray[Any, np.dtype[Any]]:
    """An array that can be computed with: small floats widened, wide ones as they are."""
    return array if array.dtype in (np.dtype(np.float32), np.dtype(np.float64)) else array.astype(np.float32)
