"""Inputs that cannot hide a mistake: every axis another length, no value zero, nothing symmetric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.lang.parse import parse_dims
from layoutx.lang.sizes import extent
from layoutx.lang.tree import Dim, Product, Spread
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.spec.schema import Form, Reading
from layoutx.verify.data import canonical_data

PROBE = {"batch": 2, "time": 5, "tq": 3, "tk": 5, "dim": 7, "value": 11}  # where the layer's own weights do not say
ASKED = ("eps", "dilation", "given_mean", "given_variance", "groups")
INPUTS = ("x", "x1", "x2", "query", "key", "value")
SLOPES = ("prelu", "srelu", "parametric_softplus")  # their numbers stand for positions of the data
LOCAL = {"locally_connected_1d": ("h",), "locally_connected_2d": ("h", "w")}
WINDOWS = ("conv", "conv_transpose", "separable_conv", "conv_lstm")


def probe_settings(bound: BoundForm, target: BoundForm | None = None) -> dict[str, Any]:
    """The settings that the layer's own computation needs; borders and strides are not what weights are about.

    What the target cannot do is not asked for: a dilation, or no padding where it always pads.
    """
    rank = window_rank(bound)
    found = {name: value for name, value in bound.settings.items() if name in ASKED and value is not None}
    found.setdefault("eps", 1e-3)
    sides = [bound] if target is None else [bound, target]
    dilation = found.get("dilation", 1) if all("dilation" in side.form.settings for side in sides) else 1
    padding = "same" if any(always_same(side.form) for side in sides) else "valid"
    return {
        **found,
        "dilation": _each(dilation, rank),
        "strides": (1,) * rank,
        "padding": padding,
        "output_padding": (0,) * rank,
    }


def always_same(form: Form) -> bool:
    """Whether this class pads in any case (haiku ConvLSTM), or its spec describes it only where it does (flax)."""
    values = [case.value for case in form.settings.get("padding", ())]
    readings = [value for value in values if isinstance(value, Reading)]
    if not readings:
        return "same" in values
    allowed = {key: words for key, words, _ in form.require}.get(readings[0].config)
    return allowed is not None and all(readings[0].values.get(word) == "same" for word in allowed)


def _each(value: Any, rank: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,) * max(rank, 1)
    values = values * rank if len(values) == 1 else values
    return tuple(int(v) for v in values)[:rank]


def window_rank(bound: BoundForm) -> int:
    """How many axes the layer's window has, which are not always axes that the kind spreads."""
    return len(LOCAL.get(bound.kind.name, ())) or spatial_rank(bound)


def spatial_rank(bound: BoundForm) -> int:
    ranks = [rank for rank, names in bound.kind.spread.items() if all(name in bound.sizes for name in names)]
    return max(ranks, default=0)


def probe_data(
    bound: BoundForm,
    settings: Mapping[str, Any],
    dtype: str,
    rank: int | None = None,
    last: Mapping[str, str] = NOTHING,
) -> dict[str, Array]:
    """Inputs in canonical order: every axis another length, no value zero, nothing symmetric.

    `rank` is the number of spatial axes where the kind itself leaves it open (the norms).
    """
    rng = np.random.default_rng(20261121)
    kind, spatial = bound.kind.name, _spatial(bound, settings, rank)
    sizes = whole_sizes(bound, last)
    found = {}
    for name, dims in canonical_data(kind).items():
        if name in INPUTS:
            shape = _shape(dims, sizes, spatial)
            if kind == "embedding":
                found[name] = rng.integers(0, bound.sizes["vocab"], shape)
            else:
                found[name] = (rng.uniform(0.1, 1.0, shape) * rng.choice([-1.0, 1.0], shape)).astype(dtype)
    return found


def _spatial(bound: BoundForm, settings: Mapping[str, Any], rank: int | None) -> list[int]:
    """Lengths of the data's spatial axes; the window finds several places on each."""
    kind = bound.kind.name
    kernel = [bound.sizes[name] for name in bound.kind.spread.get(spatial_rank(bound), ())]
    if kind in LOCAL:
        return [
            (bound.sizes[f"o{axis}"] - 1) * step + bound.sizes[f"k{axis}"]
            for axis, step in zip(LOCAL[kind], settings["strides"], strict=True)
        ]
    if kind in SLOPES:
        return [k if k > 1 else 3 + i for i, k in enumerate(kernel or [1] * (rank or 0))]
    if kind in WINDOWS:
        return [(k - 1) * d + 2 + i for i, (k, d) in enumerate(zip(kernel, settings["dilation"], strict=False))]
    open_rank = bound.form.rank or rank
    return [3, 5, 7][: 2 if open_rank is None else open_rank]


def _shape(dims: Sequence[Dim], sizes: Mapping[str, int], spatial: Sequence[int]) -> tuple[int, ...]:
    known = {**PROBE, **sizes}
    shape: list[int] = []
    for dim in dims:
        shape += list(spatial) if isinstance(dim, Spread) else [extent(dim, known)]
    return tuple(shape)


def whole_sizes(bound: BoundForm, refine: Mapping[str, str]) -> dict[str, int]:
    """Sizes of all axes, refined ones too."""
    return {**bound.sizes, **{axis: extent(Product(parse_dims(text)), bound.sizes) for axis, text in refine.items()}}
