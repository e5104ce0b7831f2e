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
from layoutx.verify.data import canonical_data

PROBE = {"batch": 2, "time": 5, "tq": 3, "tk": 5}


def probe_settings(bound: BoundForm) -> dict[str, Any]:
    """The settings that the layer's own computation needs; borders and strides are not what weights are about."""
    rank = spatial_rank(bound)
    found = {name: value for name, value in bound.settings.items() if name in ("eps", "dilation") and value is not None}
    found.setdefault("eps", 1e-3)
    found["dilation"] = _each(found.get("dilation", 1), rank)
    return {**found, "strides": (1,) * rank, "padding": "valid", "output_padding": (0,) * rank}


def _each(value: Any, rank: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,) * max(rank, 1)
    values = values * rank if len(values) == 1 else values
    return tuple(int(v) for v in values)[:rank]


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
    kernel = [bound.sizes[name] for name in bound.kind.spread.get(spatial_rank(bound), ())]
    kind = bound.kind.name
    if kind == "prelu":
        spatial = [k if k > 1 else 3 + i for i, k in enumerate(kernel)]
    elif kind in ("batch_norm", "group_norm"):
        spatial = [3, 5, 7][: bound.form.rank or rank or 2]
    else:
        spatial = [(k - 1) * d + 2 + i for i, (k, d) in enumerate(zip(kernel, settings["dilation"], strict=False))]
    sizes = whole_sizes(bound, last)
    found = {}
    for name, dims in canonical_data(kind).items():
        if name in ("x", "query", "key", "value"):
            shape = _shape(dims, sizes, spatial)
            if kind == "embedding":
                found[name] = rng.integers(0, bound.sizes["vocab"], shape)
            else:
                found[name] = (rng.uniform(0.1, 1.0, shape) * rng.choice([-1.0, 1.0], shape)).astype(dtype)
    return found


def _shape(dims: Sequence[Dim], sizes: Mapping[str, int], spatial: Sequence[int]) -> tuple[int, ...]:
    known = {**PROBE, **sizes}
    shape: list[int] = []
    for dim in dims:
        shape += list(spatial) if isinstance(dim, Spread) else [extent(dim, known)]
    return tuple(shape)


def whole_sizes(bound: BoundForm, refine: Mapping[str, str]) -> dict[str, int]:
    """Sizes of all axes, refined ones too."""
    return {**bound.sizes, **{axis: extent(Product(parse_dims(text)), bound.sizes) for axis, text in refine.items()}}
