"""A layer laid out for hands: its numbers by role, and the name that each has where it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.verify.data import canonical_data, data_order
from layoutx.verify.hand.steps import Term
from layoutx.verify.reference import MERGES, canonically, forward_roles, natively
from layoutx.verify.roles import as_float, roles

LOOSE = {"dense": 2, "embedding": 1, "layer_norm": 2, "rms_norm": 2}  # axes of x; of more, positions are samples
SPATIAL = ("conv", "conv_transpose", "separable_conv")  # the same where a layer is repeated over a time axis
RECURRENT = ("simple_rnn", "lstm", "gru")


@frozen
class Hand:
    """A layer, its input, and one element of its output.

    Attributes:
        values: role -> array in canonical order, float64. ids: role -> for each number which stored element it is.
        data: `x` (or query, key, value) in canonical order. where: the same -> index in the array that was given.
        given: the arrays' own shapes. at: the output element, in canonical order.
        found: what the layer computes, in canonical order, without its activation.
    """

    bound: BoundForm
    values: Mapping[str, Array]
    ids: Mapping[str, Array]
    data: Mapping[str, Array]
    where: Mapping[str, Array]
    given: Mapping[str, tuple[int, ...]]
    at: tuple[int, ...]
    found: Mapping[str, Array]
    value: float

    def weight(self, role: str, *at: int) -> tuple[str, float]:
        """One number of a role and where it is stored: ("kernel[3, 5]", 0.25)."""
        value = float(self.values[role][at])
        found = int(self.ids[role][at]) if role in self.ids else 0
        return (self._stored(abs(found)) if found else f"{role} (absent)"), value

    def input(self, name: str, *at: int) -> tuple[str, float]:
        """One number of the input and its index in the array that was given."""
        shape = self.given[name]
        spot = np.unravel_index(int(self.where[name][at]), shape)
        return f"{name}[{', '.join(map(str, spot))}]", float(self.data[name][at])

    def term(self, name: str, x_at: Sequence[int], role: str, w_at: Sequence[int]) -> Term:
        """The product of an input and a weight."""
        return Term(*self.input(name, *x_at), *self.weight(role, *w_at))

    def biases(self, names: Sequence[str], *at: int) -> list[tuple[str, float]]:
        """The stored ones of some biases."""
        found = [self.weight(name, *at) for name in names if name in self.values and name in self.ids]
        return [(name, value) for name, value in found if not name.endswith("(absent)")]

    def _stored(self, found: int) -> str:
        rest = found - 1
        for tensor in self.bound.tensors:
            size = prod(tensor.shape)
            if rest < size:
                spot = np.unravel_index(rest, tensor.shape)
                return f"{tensor.name}[{', '.join(map(str, spot))}]" if spot else tensor.name
            rest -= size
        raise AssertionError("an element of no tensor")


def hand(
    bound: BoundForm, tensors: Mapping[str, Array], x: Mapping[str, Array], element: Sequence[int],
    own: Mapping[str, str] = NOTHING,
) -> Hand:  # fmt: skip
    """Everything about one output element.

    Args:
        tensors: form tensor name -> stored array.
        x: inputs in the framework's own order.
        element: index of the output in the framework's own order.
        own: refined axis -> its dims as stored.

    Raises:
        UsageError: an element that there is not; directions that are merged.
    """
    if str(bound.settings.get("merge_mode")) in MERGES:
        raise UsageError(f"{bound.form.name} merges its two directions: no output element is one of them")
    arrays = {name: np.asarray(array) for name, array in x.items()}
    flat = {name: _loose(bound, name, a) for name, a in arrays.items()}
    data = canonically(bound, as_float(flat, "float64"))
    spots = {name: np.arange(a.size).reshape(a.shape) for name, a in flat.items()}
    values = as_float(roles(bound, tensors, own), "float64")
    settings = {**bound.settings, "activation": None}
    found = forward_roles(bound, values, data, settings, bound.facts)
    whole = forward_roles(bound, values, data, bound.settings, bound.facts)["y"]
    at = _element(bound, element, found["y"], arrays)
    given = {name: a.shape for name, a in arrays.items()}
    ids = _ids(bound, own)
    return Hand(bound, values, ids, data, canonically(bound, spots), given, at, found, float(whole[at]))


def _axes(bound: BoundForm, ndim: int) -> int:
    """How many axes of x are one batch of samples; 0 where x must have exactly those that the spec says."""
    kind = bound.kind.name
    if kind in SPATIAL:
        return 2 + max((n for n, names in bound.kind.spread.items() if set(names) <= set(bound.sizes)), default=ndim)
    normed = bound.settings.get("axis")
    last = normed is None or all(axis in (-1, ndim - 1) for axis in np.atleast_1d(normed))
    return LOOSE.get(kind, 0) if last else 0


def _loose(bound: BoundForm, name: str, array: Array) -> Array:
    own = _axes(bound, array.ndim)
    return array.reshape(-1, *array.shape[array.ndim - own + 1 :]) if name == "x" and 0 < own < array.ndim else array


def _ids(bound: BoundForm, own: Mapping[str, str]) -> dict[str, Array]:
    """Role -> 1 + the position of each number in the tensors laid end to end; 0 where nothing is stored."""
    start, arrays = 1, dict[str, Array]()
    for tensor in bound.tensors:
        size = prod(tensor.shape)
        arrays[tensor.name] = np.arange(start, start + size, dtype=np.float64).reshape(tensor.shape)  # may be negated
        start += size
    stored = {role for role, _ in bound.places}
    plain = replace(bound, maps=NOTHING)
    return {name: array for name, array in roles(plain, arrays, own).items() if name in stored}


def _element(bound: BoundForm, element: Sequence[int], y: Array, x: Mapping[str, Array]) -> tuple[int, ...]:
    """The element in canonical order."""
    numbered = np.arange(y.size).reshape(y.shape)
    native = natively(bound, {"y": numbered})["y"]
    own = _axes(bound, x["x"].ndim) if "x" in x else 0
    if own and own < x["x"].ndim:
        native = native.reshape(*x["x"].shape[: x["x"].ndim - own + 1], *native.shape[1:])
    wanted = tuple(element)
    if bound.kind.name in RECURRENT and len(wanted) == 2:
        return _last_step(bound, wanted, y)
    if len(wanted) != native.ndim or any(not -n <= i < n for i, n in zip(wanted, native.shape, strict=True)):
        raise UsageError(
            f"the output has no element {', '.join(map(str, wanted))}",
            why=f"it is {native.shape}", do=f"give {native.ndim} indices",
        )  # fmt: skip
    return tuple(int(i) for i in np.unravel_index(int(native[wanted]), y.shape))


def _last_step(bound: BoundForm, wanted: tuple[int, ...], y: Array) -> tuple[int, ...]:
    """(sample, unit) of a layer that returns no sequence: the step that each direction reads last."""
    batch, steps, units = y.shape
    if any(not -n <= i < n for i, n in zip(wanted, (batch, units), strict=True)):
        what = f"the output has no element {', '.join(map(str, wanted))}"
        raise UsageError(what, why=f"after the last step it is {(batch, units)}")
    b, unit = wanted[0] % batch, wanted[1] % units
    forward = unit < units // len(bound.labels.get("direction", ("forward",)))
    return (b, steps - 1 if forward else 0, unit)


def inputs_of(bound: BoundForm, x: Any) -> dict[str, Array]:
    """The inputs by name: a mapping as it is, one array as the layer's first input.

    Raises:
        UsageError: an input that the layer does not have.
    """
    order = canonical_data(bound.kind.name)
    known = [name for name in data_order(bound) if name in order and name not in ("y", "h", "c")]
    if isinstance(x, (list, tuple)) and len(known) > 1:
        raise UsageError(f"{bound.form.name} takes several inputs", do=f"name them: {', '.join(known)}")
    given = dict(x) if isinstance(x, Mapping) else dict.fromkeys(known[: 1 if "x" in known else None], x)
    wrong = [name for name in given if name not in known]
    if wrong or len(given) < len(known):
        raise UsageError(f"{bound.form.name} takes {', '.join(known) or 'nothing'}, not {', '.join(given)}")
    return {name: np.asarray(array) for name, array in given.items()}
