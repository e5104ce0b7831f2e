"""How a layer would be stored in a form: every config that the form tells apart, with names, shapes and layouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from math import prod
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError
from layoutx.frozen import frozen
from layoutx.lang.show import show
from layoutx.lang.tree import Layout, Unit, walk
from layoutx.model.keyed import Keyed
from layoutx.model.record import LayerRecord
from layoutx.plan.fit import VERSION, configs, sized_of
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.schema import Form

MOST_INSTANCES, MOST_RANK = 64, 3


@frozen
class Layer:
    """A record with its bound form and the axes' order on the keyed side."""

    record: LayerRecord
    bound: BoundForm
    refine: Mapping[str, str]

    @property
    def signature(self) -> tuple[str, ...]:
        """What decides how it would be stored: its kind, sizes, labels (both directions or one), facts and axes."""
        bound = self.bound
        return (bound.kind.name, *map(repr, (bound.sizes, bound.labels, bound.facts, self.refine)))


@frozen
class Stored:
    """How a layer would be stored in a form: the bound form; names, shapes and layouts that a file would hold.

    `given`: config values of the form's `seen` keys, for places of which they hold.
    """

    bound: BoundForm
    config: Mapping[str, Any]
    instance: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    layouts: tuple[str, ...]
    given: Mapping[str, Any] = NOTHING

    @property
    def lies(self) -> tuple[str, ...]:
        """The layouts that say where numbers lie: a single one lies at one place, whatever its axes are called."""
        return tuple(text for text, shape in zip(self.layouts, self.shapes.values(), strict=True) if prod(shape) > 1)


def stored(layer: Layer, form: Form, keyed: Keyed, values: Mapping[str, Any] = NOTHING) -> Iterator[Stored]:
    """One for each config that the form tells apart; of instances only those that the keyed model has names for.

    Args:
        values: the user's, for config keys that no file tells.
    """
    seen: set[tuple[object, ...]] = set()
    refine = form.laid(layer.refine) if form.apart else layer.refine
    ends = {name.rpartition(".")[2] for name in keyed.tensors} if form.each else set()
    version = _version(form, keyed)
    for given, config in ((g, c) for g in _given(form, keyed, values) for c in _ranked(layer, form, {**g, **version})):
        for number in range(MOST_INSTANCES if form.each else 1):
            instance = {form.each: number} if form.each else {}
            target = _bound(layer, form, config, instance, refine)
            if target is None or not _covers(target, layer.bound):
                break
            shapes = {t.name: t.shape for t in target.tensors}
            layouts = {t.name: show(t.layout) for t in target.tensors}
            if form.each and not any(name.rpartition(".")[2] in ends for name in shapes):
                break
            optional = [s.name for s in form.tensors if s.optional and s.name in shapes]
            for omit in (some for n in range(len(optional) + 1) for some in combinations(optional, n)):
                kept = {n: s for n, s in shapes.items() if n not in omit}
                shown = tuple(layouts[name] for name in kept)
                key = (*kept.items(), *shown)
                if kept and key not in seen:
                    seen.add(key)
                    yield Stored(target, config, instance, kept, shown, given)


def _covers(target: BoundForm, source: BoundForm) -> bool:
    """Whether a form has a label for each of the source's: one direction has no place for both."""
    return all(set(own) <= set(target.labels.get(axis, own)) for axis, own in source.labels.items())


def _ranked(layer: Layer, form: Form, given: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Configs; each with every number of spatial axes where only the stored dimensions tell it (haiku's norms)."""
    spatial = any(axis in layer.bound.sizes for names in layer.bound.kind.spread.values() for axis in names)
    open_ = not spatial and form.config.get("rank", 0) is None and _has_units(form)
    for config in configs(form, given, layer.bound.facts, sized_of(form, layer.bound)):
        yield from ({**config, "rank": rank} for rank in range(MOST_RANK + 1)) if open_ else (config,)


def _has_units(form: Form) -> bool:
    """Whether it stores a dimension of length one for each spatial axis."""
    layouts = (case.value for spec in form.tensors for case in spec.cases)
    return any(isinstance(n, Unit) and n.spread for x in layouts if isinstance(x, Layout) for n in walk(x.dims))


def _bound(
    layer: Layer, form: Form, config: Mapping[str, Any], instance: Mapping[str, Any], refine: Mapping[str, str]
) -> BoundForm | None:
    try:
        return bind(layer.bound.kind, form, config, sizes=layer.bound.sizes, refine=refine, instance=instance)
    except LayoutxError:
        return None


def _version(form: Form, keyed: Keyed) -> dict[str, Any]:
    """The framework's major version, where the form depends on it and the model's modules say it: names differ."""
    if VERSION not in form.config:
        return {}
    said = (m.config for m in keyed.modules.values() if m.form.partition(".")[0] == form.framework)
    return next(({VERSION: config[VERSION]} for config in said if VERSION in config), {})


def _given(form: Form, keyed: Keyed, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every set of values of a form's `seen` keys that the user says, or a run of the model shows somewhere."""
    if not form.seen:
        return [{}]
    shown = keyed.told().values() if keyed.told is not None else ()
    said = ({name.rpartition(".")[2]: value} for name, value in values.items())
    every = [{key: one[key] for key in form.seen} for one in (*shown, *said) if form.seen <= one.keys()]
    return [one for at, one in enumerate(every) if one not in every[:at]]


def seen_in(form: Form, keyed: Keyed, path: str) -> Mapping[str, Any]:
    """What a run of the model shows of a form's `seen` keys at one place."""
    found = keyed.told().get(path, NOTHING) if form.seen and keyed.told is not None else NOTHING
    return {key: value for key, value in found.items() if key in form.seen}
