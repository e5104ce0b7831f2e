"""Sizes to show a form with: a different prime for each axis, so that no two are mistaken for each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layoutx.lang.sizes import extent
from layoutx.lang.tree import Axis, Dim, walk
from layoutx.spec.schema import Cases, Form, Kind, choose

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)


def example_sizes(kind: Kind, form: Form, config: Mapping[str, Any], rank: int) -> dict[str, int]:
    """A prime for each axis that the form leaves free under this config."""
    full = {**form.config, **config}

    def chosen(table: Mapping[str, Cases]) -> set[str]:
        return {axis for axis, cases in table.items() if choose(cases, full) is not None}

    spatial = kind.spread.get(rank, ())
    fixed = chosen(form.pin) | chosen(form.equal) | chosen(form.same) | set(kind.same)
    if "..." in fixed:
        fixed |= set(spatial)
        return {**_primes(sorted((axes_of(kind) - _spatial_words(kind)) - fixed)), **dict.fromkeys(spatial, 1)}
    return _tied(form, _primes(sorted(((axes_of(kind) - _spatial_words(kind)) | set(spatial)) - fixed)))


def spreads(form: Form) -> bool:
    """Whether a form is one of maps of any rank: the sides of its kernel are sizes too."""
    return any("..." in case.value.text for spec in form.tensors for case in spec.cases)


def _tied(form: Form, sizes: dict[str, int]) -> dict[str, int]:
    """Axes that share a config key with a product (embed_dim is heads × head size) take its size."""
    by_key: dict[str, list[Dim]] = {}
    for key, dim in form.sizes:
        if not isinstance(dim, tuple):
            by_key.setdefault(key, []).append(dim)
    for dims in by_key.values():
        products = [dim for dim in dims if not isinstance(dim, Axis)]
        if products:
            size = extent(products[0], sizes)
            sizes |= {dim.name: size for dim in dims if isinstance(dim, Axis)}
    return sizes


def _primes(axes: Sequence[str]) -> dict[str, int]:
    return dict(zip(axes, PRIMES, strict=False))


def _spatial_words(kind: Kind) -> set[str]:
    return {name for names in kind.spread.values() for name in names} | {"..."}


def axes_of(kind: Kind) -> set[str]:
    """All integer axes of a kind, the spatial ones included."""
    named = {n.name for role in kind.roles.values() for n in walk(role.axes) if isinstance(n, Axis)} - set(kind.labels)
    return named | {name for names in kind.spread.values() for name in names} | {"..."}
