"""A bound layer by the NumPy reference: with its direction, its reversal, its activation and its merged directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.verify.data import data_sizes, orders, rearrange
from layoutx.verify.forward import forward
from layoutx.verify.forward.activations import activation
from layoutx.verify.roles import as_float, roles

MERGES: Mapping[str, Callable[..., Any]] = {"sum": np.sum, "mul": np.prod, "ave": np.mean}


def forward_layer(
    bound: BoundForm,
    tensors: Mapping[str, Array],
    x: Mapping[str, Array],
    last: Mapping[str, str] = NOTHING,
    *,
    settings: Mapping[str, Any] | None = None,
    dtype: str = "",
) -> dict[str, Array]:
    """What one layer computes: canonical data in, canonical data out; directions stand side by side, unmerged.

    Args:
        tensors: form tensor name -> array.
        last: axis -> its dims in canonical order.
        settings: in place of the layer's own: those of a probe.
        dtype: what the weights are turned to; "": as they are.
    """
    given = as_float(tensors, dtype) if dtype and bound.maps else tensors  # a square is not rounded to what is stored
    values = roles(bound, given, last)
    values = as_float(values, dtype) if dtype else values
    return forward_roles(bound, values, x, bound.settings if settings is None else settings, bound.facts)


def forward_roles(
    bound: BoundForm, values: Mapping[str, Array], x: Mapping[str, Array], settings: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> dict[str, Array]:  # fmt: skip
    """As `forward_layer`, of role arrays, and with facts in place of the layer's own."""
    facts = dict(facts)
    if bound.labels.get("direction") == ("backward",):  # onnx direction=reverse
        facts.setdefault("direction", "backward")
    if settings.get("go_backwards"):
        x = {**x, **{name: x[name][:, ::-1] for name in ("x", "mask") if name in x}}
    found = forward(bound.kind.name, values, x, facts, settings)
    if settings.get("activation") is not None:
        found["y"] = activation(str(settings["activation"]))(found["y"])
    return found


def canonically(
    bound: BoundForm, x: Mapping[str, Array], stored: Mapping[str, str] = NOTHING, last: Mapping[str, str] = NOTHING
) -> dict[str, Array]:
    """Inputs in the framework's own order -> in canonical order; `stored`, `last`: dims of refined axes on each."""
    order, native = orders(bound)
    return {
        name: rearrange(array, native[name], order[name], data_sizes(bound),
                        labels=bound.labels, refine_here=stored, refine_there=last)
        for name, array in x.items()
    }  # fmt: skip


def natively(
    bound: BoundForm, found: Mapping[str, Array], stored: Mapping[str, str] = NOTHING, last: Mapping[str, str] = NOTHING
) -> dict[str, Array]:
    """Outputs in canonical order -> as the framework gives them, two directions merged where it merges them."""
    order, native = orders(bound)
    merge = MERGES.get(str(bound.settings.get("merge_mode")))
    outputs = {}
    for name, array in found.items():
        if name == "y" and merge is not None:  # no dims of a spec name this: the two directions are one
            outputs[name] = np.asarray(merge(array.reshape(*array.shape[:2], 2, -1), axis=2))
        else:
            outputs[name] = rearrange(array, order[name], native[name], data_sizes(bound),
                                      labels=bound.labels, refine_here=last, refine_there=stored)  # fmt: skip
    return outputs


def span(tensors: Mapping[str, Array]) -> float:
    """The largest weight where all are below one, else one: outputs below it are compared with it, not with zero."""
    sizes = [
        float(np.abs(a.astype(np.float64)).max(initial=0.0)) for a in tensors.values() if a.dtype.kind not in "iub"
    ]
    return min(1.0, max(sizes, default=1.0))
