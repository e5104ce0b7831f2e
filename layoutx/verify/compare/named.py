"""One call of a layer, its arrays under the names of the layer's mathematics and in canonical axis order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError, SizeError
from layoutx.frozen import frozen
from layoutx.lang.tree import Axis, Dim, Product, Spread
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.verify.compare.begun import MASK, begun, counted
from layoutx.verify.compare.pairs import Couple
from layoutx.verify.compare.states import RECURRENT, derived, directions, outputs_of, stack_place
from layoutx.verify.data import canonical_data, data_sizes, orders, rearrange, shaped, taken
from layoutx.verify.probe import INPUTS
from layoutx.verify.recording import Call

QUERY_VALUE_KEY = ("keras", "tf1")  # the order of attention's inputs there; query, key, value elsewhere
JOINED = ("sum", "mul", "ave")  # how Keras makes one output of two directions, other than by laying them side by side


@frozen
class Named:
    """A call's arrays by name.

    Attributes:
        inputs, outputs: in canonical order; axes before those that the layer knows are one with the batch.
        lead: the lengths of these axes in the framework's order, batch first.
        roles: the name of each input of the call; "" for masks, states and flags.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    lead: tuple[int, ...]
    roles: tuple[str, ...] = ()


def roles_of(bound: BoundForm, call: Call) -> tuple[str, ...]:
    """What each input of a call is: x, query, ...; "" for what is no data."""
    wanted = [name for name in canonical_data(bound.kind.name) if name in INPUTS]
    order = list(wanted)
    if {"query", "key", "value"} <= set(wanted) and bound.form.framework in QUERY_VALUE_KEY:
        order = ["query", "value", "key"]
    keywords = call.names or ("",) * len(call.inputs)
    free = [name for name in order if name not in keywords]
    found = []
    for name in keywords:
        plain = "x" if name in ("input", "inputs", "hidden_states") and "x" in free else name
        if plain in wanted:
            found.append(plain)
            free = [n for n in free if n != plain]
        elif not name and free:
            found.append(free.pop(0))
        else:
            found.append("")
    return tuple(found)


def named(
    bound: BoundForm, call: Call, stored: Mapping[str, str] = NOTHING, last: Mapping[str, str] = NOTHING
) -> Named:
    """A call in canonical order.

    Args:
        stored, last: dims of refined axes in this framework, and in canonical order.

    Raises:
        LayoutxError: arrays that do not have the axes that the form says.
    """
    roles = roles_of(bound, call)
    inputs, lead = {}, tuple[int, ...]()
    for role, array in zip(roles, call.inputs, strict=True):
        if role:
            own = _whole(array) if bound.kind.name == "embedding" else array
            inputs[role], found = ordered(bound, role, own, stored, last)
            lead = lead or found
    if "query" in inputs:  # Keras takes the value for the key, where there is none
        value = inputs.get("value", inputs.get("key", inputs["query"]))
        inputs = {"query": inputs["query"], "key": inputs.get("key", value), "value": value}
    beside = begun(bound, call, _turned(bound))
    outputs = named_outputs(bound, call.outputs, inputs, stored, last)
    if MASK in beside and len(call.outputs) == 1 and "y" in outputs:
        outputs.pop("h", None)  # the last step may be left out
    return Named({**inputs, **beside}, counted(outputs, beside.get(MASK)), lead, roles)


def named_outputs(
    bound: BoundForm,
    arrays: Sequence[Array],
    inputs: Mapping[str, Array],
    stored: Mapping[str, str] = NOTHING,
    last: Mapping[str, str] = NOTHING,
) -> dict[str, Array]:
    """What a call gave, by name and in canonical order; inputs: of the same call, canonical."""
    kind = bound.kind.name
    if kind not in RECURRENT:
        return {"y": ordered(bound, "y", arrays[0], stored, last)[0]} if arrays else {}
    native = outputs_of(bound, arrays, inputs["x"].ndim)
    merged = bound.settings.get("merge_mode") in JOINED
    found = {}
    for name, array in native.items():
        if name == "end" or (name == "y" and merged):
            found["end" if name == "end" else "merged"] = array
        else:
            found[name] = ordered(bound, name, array, stored, last)[0]
    if stack_place(bound)[1] > 1 and "y" not in found:
        return found
    return found if merged or kind == "conv_lstm" else derived(found, directions(bound), _turned(bound))


def beside(couple: Couple, inputs: Mapping[str, Array], there: Mapping[str, Array]) -> dict[str, Array]:
    """The target's arrays with the positions of the source's, where one's class is read another way (a Linear as a
    convolution): a map of one position and a row are the same numbers in the same order.
    """
    read = couple.source.bound.form.of or couple.target.bound.form.of
    return shaped(there, inputs["x"].shape[:-1]) if read and "x" in inputs else dict(there)


def met(couple: Couple, here: Named, there: Named) -> Named:
    """The target's own call, its arrays as `beside` gives them."""
    inputs, outputs = (beside(couple, here.inputs, arrays) for arrays in (there.inputs, there.outputs))
    return replace(there, inputs=inputs, outputs=outputs)


def without(call: Named, less: Mapping[str, Array]) -> Named:
    """The call with some of its data less these numbers along the last axis."""
    if not less:
        return call
    inputs, outputs = (
        {name: array - less[name] if name in less else array for name, array in arrays.items()}
        for arrays in (call.inputs, call.outputs)
    )
    return replace(call, inputs=inputs, outputs=outputs)


def _turned(bound: BoundForm) -> bool:
    return bool(bound.settings.get("go_backwards"))


def ordered(
    bound: BoundForm, name: str, array: Array, stored: Mapping[str, str], last: Mapping[str, str]
) -> tuple[Array, tuple[int, ...]]:
    """One array in canonical order, and the lengths of the axes that are now one with the batch.

    Raises:
        SizeError: it does not have the axes that the form says.
    """
    order, native = (found.get(name) for found in orders(bound))
    if native is None or order is None:
        raise SizeError(f"{bound.form.name} does not say which axes its {name} has")
    error: LayoutxError | None = None
    array = _as_one(array, native, data_sizes(bound), stored)
    for many in range(_fewest(bound, native, array), array.ndim + 1):
        merged = array.reshape(prod(array.shape[:many]), *array.shape[many:]) if many > 1 else array
        try:
            found = rearrange(
                merged, native, order, data_sizes(bound), labels=_labels(bound), refine_here=stored, refine_there=last
            )
            found = found[:, ::-1] if name == "x" and _turned(bound) else found
            return found, array.shape[:many]
        except LayoutxError as problem:
            error = error or problem
    raise error or SizeError(f"{name} of shape {array.shape} does not have the axes of {bound.form.name}")


def _as_one(array: Array, dims: Sequence[Dim], sizes: Mapping[str, int], stored: Mapping[str, str]) -> Array:
    """Data whose last axes are what the form's last one is made of (heads and their numbers, of an einsum), as one."""
    text = stored.get(dims[-1].name, "") if isinstance(dims[-1], Axis) else ""
    parts = re.findall(r"\w+", text) if re.fullmatch(r"\([\w ]+\)", text) else []
    lengths = tuple(sizes.get(part, 0) for part in parts)
    there = len(lengths) > 1 and array.ndim > len(lengths) and array.shape[-len(lengths) :] == lengths
    return array.reshape(*array.shape[: -len(lengths)], prod(lengths)) if there else array


def native(
    bound: BoundForm,
    name: str,
    array: Array,
    lead: tuple[int, ...],
    stored: Mapping[str, str] = NOTHING,
    last: Mapping[str, str] = NOTHING,
) -> Array:
    """One canonical array in the framework's own order; lead: what the batch is split into again, if that fits."""
    (order, wanted), sizes = orders(bound), data_sizes(bound)
    array = array[:, ::-1] if name == "x" and _turned(bound) else array
    whole = taken(bound, name, array, lead)
    found = rearrange(
        whole, order[name], wanted[name], sizes, labels=_labels(bound), refine_here=last, refine_there=stored
    )
    first = wanted[name][0]
    merged = len(lead) > 1 and whole is array and prod(lead) == found.shape[0]
    if merged and isinstance(first, Axis) and first.name == "batch":
        found = found.reshape(*lead, *found.shape[1:])
    return np.ascontiguousarray(found)


def _fewest(bound: BoundForm, dims: Sequence[Dim], array: Array) -> int:
    """How many first axes are certainly one with the batch: a window of two axes takes no data of three."""
    rank = bound.form.rank
    if rank is None or not any(isinstance(dim, Spread) for dim in dims):
        return 1
    return max(1, array.ndim - (len(dims) - 1 + rank) + 1)


def _labels(bound: BoundForm) -> dict[str, tuple[str, ...]]:
    """Labels of enumerated axes that data has; directions are told by the tensors where the form does not say."""
    if bound.kind.name not in RECURRENT:
        return dict(bound.labels)
    return {**bound.labels, "direction": directions(bound)}


def _whole(array: Array) -> Array:
    """Tokens as integers: Keras hands them on as floats.

    Raises:
        SizeError: numbers that name no rows: what a layer of the user's own adds its table to.
    """
    if array.dtype.kind in "iub":
        return array
    whole = np.rint(array)
    if not np.array_equal(whole, array):
        raise SizeError("it is given no row numbers: a class of one's own, which adds its table or does else with it")
    return whole.astype(np.int64)


AXES: Mapping[str, str] = {
    "batch": "sample",
    "time": "step",
    "tq": "query",
    "hidden": "unit",
    "hidden_prev": "unit",
    "output": "unit",
    "features": "feature",
    "direction": "direction",
    "dim": "unit",
}
SPATIAL: Mapping[int, tuple[str, ...]] = {1: ("place",), 2: ("row", "column"), 3: ("plane", "row", "column")}


def axis_words(bound: BoundForm, name: str, array: Array) -> tuple[str, ...]:
    """A word for each axis of a canonical array."""
    dims = canonical_data(bound.kind.name).get("y" if name in ("merged", "end") else name, ())
    if name == "end":
        return "sample", "unit"
    if name in ("h0", "c0"):
        return "sample", "direction", "unit"
    words: list[str] = []
    for dim in dims:
        if isinstance(dim, Spread):
            many = array.ndim - len(dims) + 1
            words += SPATIAL.get(many, tuple(f"axis {i + 1}" for i in range(many)))
        else:
            words.append(_word(dim, bound.kind.name))
    return tuple(words) if len(words) == array.ndim else tuple(f"axis {i}" for i in range(array.ndim))


def _word(dim: Dim, kind: str) -> str:
    last = dim.dims[-1] if isinstance(dim, Product) and dim.dims else dim
    name = last.name if isinstance(last, Axis) else "unit"
    if name in ("out", "channel", "in", "group"):
        return "channel" if kind not in ("attention", "rotary_attention") else "unit"
    return AXES.get(name, name)
