"""Layers with random weights in two forms, and mistakes planted into the second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from layoutx.plan.plan import Array, plan
from layoutx.plan.run import run
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry, registry
from layoutx.verify.relate.related import related
from layoutx.verify.relate.relation import TensorRelation


@cache
def known() -> Registry:
    return registry(())


@dataclass(frozen=True)
class Planted:
    """A layer on both sides; `stored` is what the second file holds, right until something is changed."""

    source: BoundForm
    weights: Mapping[str, Array]
    target: BoundForm
    stored: Mapping[str, Array]

    def changed(self, **tensors: Array) -> Planted:
        """With other arrays; "." in names is written "__"."""
        new = {name.replace("__", "."): np.ascontiguousarray(array) for name, array in tensors.items()}
        assert set(new) <= set(self.stored)
        return replace(self, stored={**self.stored, **new})

    def each(self, change: Any) -> Planted:
        """Every stored tensor changed by a function of name and array."""
        return replace(self, stored={n: np.ascontiguousarray(change(n, a)) for n, a in self.stored.items()})

    def related(self, **given: Any) -> dict[str, TensorRelation]:
        found = related(self.source, self.weights, self.target, self.stored, **given)
        return {relation.name: relation for relation in found}


def layer(
    source: str,
    target: str,
    sizes: Mapping[str, int],
    config: Mapping[str, Any] | None = None,
    target_config: Mapping[str, Any] | None = None,
    *,
    refine: tuple[str, str] | None = None,
    values: str = "",
    seed: int = 11,
    dtype: Any = np.float64,
) -> Planted:
    """A layer converted rightly.

    Args:
        refine: dims of the input axis on both sides.
        values: "" all different; "levels": 16 levels; "zeros": half of them zero.
    """
    rng = np.random.default_rng(seed)
    here, there = ({"input": text} for text in refine) if refine else ({}, {})
    first = known().bind(source, config or {}, sizes=sizes, refine=here)
    each = known().form(target).each
    instance = {each: 0} if each else {}
    second = known().bind(target, target_config or {}, sizes=sizes, refine=there, instance=instance)
    weights = {}
    for tensor in first.tensors:
        array = rng.normal(size=tensor.shape)
        array = np.abs(array) + 0.1 if "variance" in tensor.name else array
        array = np.round(array * 3) / 3 if values == "levels" else array
        weights[tensor.name] = (array * (rng.random(tensor.shape) < 0.5) if values == "zeros" else array).astype(dtype)
    return Planted(first, weights, second, run(plan(first, second), weights).tensors)


def gates(array: Array, count: int, order: tuple[int, ...], axis: int = 0) -> Array:
    """Blocks of an axis put in another order."""
    return np.concatenate([np.split(array, count, axis)[i] for i in order], axis)
