"""Layers moved rightly, and then broken as people break them: what a diagnosis is given, by NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from layoutx.plan.fit import fit
from layoutx.plan.run import run
from layoutx.spec.registry import registry
from layoutx.verify.diagnose.evaluate import outputs
from layoutx.verify.diagnose.suspect import Suspect
from layoutx.verify.probe import probe_data, probe_settings

Arrays = dict[str, np.ndarray]
POSITIVE = ("variance",)


def moved(
    source: str,
    target: str,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    there: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    here_rows: Mapping[str, str] | None = None,
    there_rows: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    known: bool = True,
    batch: int = 6,
    seed: int = 0,
) -> Suspect:
    """A right port of one layer: source and target compute the same.

    Args:
        config, shapes: of the source; there: the target's config where it is not to be chosen.
        sizes, here_rows, there_rows: of a flattened map behind `input`, on both sides.
        known: whether the diagnosis may see the source's weights.
    """
    known_forms = registry()
    bound = known_forms.bind(source, config, shapes=shapes, sizes=sizes or {}, refine=here_rows or {})
    plan = fit(bound, known_forms.form(target), there or {}, refine=there_rows or {})
    rng = np.random.default_rng(seed)
    weights = {t.name: rng.normal(size=t.shape) * 0.7 + 0.13 for t in bound.tensors}
    for (role, _), place in bound.places.items():
        if role in POSITIVE:
            weights[place.tensor] = rng.uniform(0.4, 3.0, weights[place.tensor].shape)
    stored = run(plan, weights).tensors
    chosen = {**probe_settings(bound, plan.target), **(settings or {})}
    last = here_rows or {}
    inputs = {}
    for name, x in probe_data(bound, chosen, "float64", 0 if "norm" in bound.kind.name else None, last).items():
        wide = (batch, *x.shape[1:])
        whole = x.dtype.kind in "iu"
        inputs[name] = rng.integers(0, bound.sizes["vocab"] - 2, wide) if whole else rng.normal(size=wide)
    empty = Suspect("layer", "block.layer", bound, plan.target, weights, stored, inputs, {}, {}, last, there_rows or {})
    right = replace(empty, settings=chosen)
    expected = outputs(replace(right, target=bound, stored=weights))
    return replace(right, expected=expected, found=outputs(right), weights=weights if known else {})


def broken(suspect: Suspect, *breaks: Callable[[Suspect], Suspect]) -> Suspect:
    """The suspect after some mistakes, with what its layer then gives."""
    for one in breaks:
        suspect = one(suspect)
    return replace(suspect, found=outputs(suspect))


def rewritten(**changes: Callable[[np.ndarray], np.ndarray]) -> Callable[[Suspect], Suspect]:
    """A mistake in the stored tensors; two underscores stand for a slash, `DOT` for a dot."""

    def apply(suspect: Suspect) -> Suspect:
        stored = dict(suspect.stored)
        for key, change in changes.items():
            name = key.replace("__", "/").replace("DOT", ".")
            array = np.ascontiguousarray(change(stored[name].copy()))
            assert array.shape == stored[name].shape, (name, array.shape, stored[name].shape)
            stored[name] = array
        return replace(suspect, stored=stored)

    return apply


def unknown(suspect: Suspect) -> Suspect:
    """The same without the source's weights."""
    return replace(suspect, weights={})
