"""Weights stored in parts (weight_norm, spectral_norm, pruning) made plain: on demand, or to look at a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np

from layoutx.errors import raise_all
from layoutx.files.dtypes import Array
from layoutx.files.store import Tensor
from layoutx.model.keyed import Keyed
from layoutx.model.parametrized import Site, refusal, sites
from layoutx.model.record import ModelRecord

ONCE = "rounded once"  # how what is said of such a weight ends


def settled(keyed: Keyed, materialise: bool, skip: tuple[str, ...] = ()) -> Keyed:
    """The model with plain weights: every weight that is stored in parts computed, if that was asked for.

    Computed in float64 and rounded once to the dtype of the stored direction; the new tensor says so (`derived`).

    Raises:
        ConversionError: weights in parts that nobody asked to compute, or of which the file does not tell enough;
            all together, without those of modules that `skip` names.
    """
    found = sites(keyed)
    if not found:
        return keyed
    problems = []
    tensors = dict(keyed.tensors)
    for site in found:
        if any(fnmatchcase(site.module, pattern) for pattern in skip):
            continue
        if site.compute is None or not materialise:
            problems.append(refusal(site))
        else:
            tensors = _replaced(tensors, site, _effective(keyed.tensors, site))
    raise_all(problems, f"{len(problems)} weights are stored in parts")
    return replace(keyed, tensors=tensors, tied=_tied(keyed, found, tensors))


def computed(model: Keyed | ModelRecord, skip: tuple[str, ...] = ()) -> Keyed | ModelRecord:
    """A model to look at and not to write: weights that are stored in parts are computed, where the parts tell how."""
    if not isinstance(model, Keyed):
        return model
    untold = [site.module for site in sites(model) if site.compute is None]
    return settled(model, True, (*skip, *untold))


def _tied(keyed: Keyed, found: Sequence[Site], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Which names are those of a tensor that stands under another one: weights of the same parts are the same."""
    first: dict[tuple[str, ...], str] = {}
    tied = {name: other for name, other in keyed.tied.items() if name in tensors}
    for site in found:
        own = tuple(keyed.tied.get(name, name) for name in site.parts.values())
        if site.weight in tensors and first.setdefault(own, site.weight) != site.weight:
            tied[site.weight] = first[own]
    return tied


def _replaced(tensors: Mapping[str, Tensor], site: Site, made: Tensor) -> dict[str, Tensor]:
    """The tensors with the parts of one weight left out; the weight where it was, or else where its first part was."""
    own = set(site.parts.values())
    place = site.weight if site.weight in own else next(name for name in tensors if name in own)
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name == place:
            found[site.weight] = made
        elif name not in own:
            found[name] = tensor
    return found


def _effective(tensors: Mapping[str, Tensor], site: Site) -> Tensor:
    parts = {part: tensors[name] for part, name in site.parts.items()}
    like = parts.get("v" if "g" in parts else "orig") or next(iter(parts.values()))

    def read() -> Array:
        assert site.compute is not None
        with np.errstate(all="ignore"):  # a direction of length zero gives NaN, as in the framework
            return site.compute({part: t.read().astype(np.float64) for part, t in parts.items()}).astype(like.dtype)

    text = f"{site.weight} was stored through {site.method}; computed in float64 as {site.formula}, {ONCE}"
    return Tensor(site.weight, like.dtype, like.shape, read, text)
