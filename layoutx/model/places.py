"""Where a layer's tensors could lie in a keyed model: every path that has the names, and of those the fitting ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import lru_cache
from typing import Any

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.model.bare import PATH, bare_names
from layoutx.model.keyed import Keyed, Module, forms_for
from layoutx.model.order import positions
from layoutx.model.paths import places
from layoutx.model.said import values_said
from layoutx.model.storing import Layer, Stored, seen_in, stored
from layoutx.spec.bound import BoundForm
from layoutx.spec.configs import switches
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Form, holds

CROWD = 64  # places of one shape from which on the same name is enough: comparing all with all would take hours


@frozen
class Candidate:
    """One way to find a layer in a keyed model: form, config, instance, and where each tensor is.

    `open`: config keys that neither names nor shapes tell although they say where the numbers lie. `bound`: the form
    as the layer would be stored in it.
    """

    form: Form
    config: Mapping[str, Any]
    instance: Mapping[str, Any]
    prefix: str
    names: Mapping[str, str]
    at: int
    open: tuple[str, ...] = ()
    bound: BoundForm | None = None


@frozen
class Index:
    """A keyed model's names by their last part and shape, and what was found out before for layers of one size.

    `bare`: those that no layer holds, by the form that they may have and shape.
    `named`: both models call all their layers alike, and many places have one shape: the name then says which it is.
    `paired`: layer -> the place that the user gave it.
    """

    order: Mapping[str, int]
    ends: Mapping[tuple[str, tuple[int, ...]], list[str]]
    bare: Mapping[tuple[str, tuple[int, ...]], list[str]] = NOTHING
    known: dict[object, list[Stored]] = field(default_factory=dict)
    named: bool = False
    paired: Mapping[str, str] = NOTHING
    alike: dict[object, list[Candidate]] = field(default_factory=dict)

    def among(self, layer: Layer, form: Form, first: str, shape: tuple[int, ...]) -> Sequence[str]:
        """The tensors that the first one of a layer can be."""
        if first == PATH:
            return self.bare.get((form.name, shape), [])
        short = first.replace("/", ".")
        found = self.ends.get((short.rpartition(".")[2], shape), [])
        told = layer.record.name in self.paired
        own = f"{self.paired.get(layer.record.name, layer.record.name).replace('/', '.')}.{short}"
        return [own] if (told or (self.named and len(found) > CROWD)) and own in self.order else found

    def stored(self, layer: Layer, form: Form, keyed: Keyed, values: Mapping[str, Any]) -> list[Stored]:
        """As the function `stored`; layers of equal sizes, facts and axes are stored alike."""
        key = (form.name, layer.signature)
        if key not in self.known:
            self.known[key] = list(stored(layer, form, keyed, values))
        return self.known[key]


def index_of(
    keyed: Keyed, registry: Registry, layers: Sequence[Layer] = (), paired: Mapping[str, str] = NOTHING
) -> Index:
    """The index of a keyed model, for the candidates of many layers, and of these if all of them are looked for."""
    ends: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, tensor in keyed.tensors.items():
        ends.setdefault((name.rpartition(".")[2], tensor.shape), []).append(name)
    bare: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, forms in bare_names(keyed, registry).items():
        for form in forms:
            bare.setdefault((form, keyed.tensors[name].shape), []).append(name)
    paths = {name.rpartition(".")[0] for name in keyed.tensors}
    named = len(layers) > CROWD and all(layer.record.name.replace("/", ".") in paths for layer in layers)
    crowded = any(len(own) > CROWD for own in ends.values())
    return Index(positions(keyed), ends, bare, named=named and crowded, paired=paired)


def candidates(
    layer: Layer, keyed: Keyed, registry: Registry, values: Mapping[str, Any] = NOTHING, index: Index | None = None
) -> list[Candidate]:
    """All places where a layer's tensors are found by name and shape; the fullest config of each.

    Args:
        values: the user's, for config keys that a file of names and numbers does not tell.
        index: of the keyed model, where many layers are looked for: those of one signature have one list.
    """
    index = index_of(keyed, registry) if index is None else index
    if index.named or values or layer.record.name in index.paired:  # then the layer's name counts too
        return _candidates(layer, keyed, registry, values, index)
    key = layer.signature
    if key not in index.alike:
        index.alike[key] = _candidates(layer, keyed, registry, values, index)
    return index.alike[key]


def _candidates(
    layer: Layer, keyed: Keyed, registry: Registry, values: Mapping[str, Any], index: Index
) -> list[Candidate]:
    kind = layer.bound.kind.name
    usual = _held(layer, keyed, forms_for(kind, keyed, registry), values, index)
    return usual or _held(layer, keyed, registry.read_another_way(kind, keyed.framework), values, index)


def _held(
    layer: Layer, keyed: Keyed, forms: Sequence[Form], values: Mapping[str, Any], index: Index
) -> list[Candidate]:
    best: dict[tuple[str, ...], Candidate] = {}
    layouts: dict[tuple[str, ...], tuple[str, ...]] = {}
    for form in forms:
        switched = switches(form)
        for way in index.stored(layer, form, keyed, values):
            for place in _fitting(layer, keyed, form, way, values, index):
                if not place.settles(form, way, switched):
                    continue
                if PATH in way.shapes and not _roles(layer.bound) <= _roles(way.bound):
                    continue  # a bare matrix has no bias
                if way.given.items() - {**seen_in(form, keyed, place.prefix), **place.said}.items():
                    continue
                where = place.names.values() if form.modules else (place.prefix,)  # two paths may lead to a composite
                key = (*where, *map(str, way.instance.values()))
                if key not in best or len(place.names) > len(best[key].names):
                    at = min(index.order[name] for name in place.names.values())
                    config = {**way.config, **place.given}
                    best[key] = Candidate(form, config, way.instance, place.prefix, place.names, at, (), way.bound)
                    layouts[key] = way.lies
                elif place.also(best[key], form) and way.lies != layouts[key]:
                    differ = [k for k in switched if way.config.get(k) != best[key].config.get(k)]
                    best[key] = replace(best[key], open=tuple(k for k in differ if k not in place.given))
    return sorted(_fullest(list(best.values())), key=lambda c: c.at)


def _roles(bound: BoundForm) -> set[str]:
    return {role for role, _ in bound.places}


@frozen
class _Place:
    """Where tensors of the names and shapes of a layer are found.

    `known`: the module there. `live`, `said`: config values that it says itself, and those of the user.
    """

    prefix: str
    names: Mapping[str, str]
    known: Module | None
    live: Mapping[str, Any]
    said: Mapping[str, Any]

    @property
    def given(self) -> dict[str, Any]:
        return {**self.said, **self.live}

    def settles(self, form: Form, way: Stored, switched: Mapping[str, tuple[Any, ...]]) -> bool:
        """Whether what is known of the module and said by the user goes with a way that the layer would be stored.

        Args:
            switched: config key of the form -> its values, of those on which depends where numbers lie.
        """
        told = {key: v for key, v in self.live.items() if v in switched.get(key, ())}  # what ways are tried for
        if told and _laid(form, way.config, way.shapes) != _laid(form, {**way.config, **told}, way.shapes):
            return False  # the node says itself which way its kernel lies (transB)
        settled = self.given if self.known is not None and self.known.names else self.said
        return all({**form.config, **way.config}[k] == v for k, v in settled.items() if k in switched)

    def also(self, found: Candidate, form: Form) -> bool:
        """Whether a candidate is this very place, of which the module itself says nothing."""
        return not self.live and found.form is form and self.names == found.names


def _fitting(
    layer: Layer, keyed: Keyed, form: Form, way: Stored, values: Mapping[str, Any], index: Index
) -> Iterator[_Place]:
    """The places of the names and shapes of one way to store a layer, where no module of another kind is."""
    first, shape = next(iter(way.shapes.items()))
    for prefix, names in places(form, list(way.shapes), keyed, index.among(layer, form, first, shape)):
        known = keyed.modules.get(prefix)
        if not _may_be(form, known, keyed, prefix):
            continue
        if any(keyed.tensors[names[n]].shape != shape for n, shape in way.shapes.items()):
            continue
        live = dict(known.config) if known is not None and known.form == form.runs else {}
        said = {k: v for k, v in _said(values, layer, prefix).items() if k in form.config}
        yield _Place(prefix, names, known, live, said)


def _may_be(form: Form, known: Module | None, keyed: Keyed, prefix: str) -> bool:
    """Whether the module of a path may have a form: fitting names and shapes alone are no reason for all of them."""
    if known is None:
        return not form.by_class and (bool(form.modules) or not keyed.inside(prefix))
    if form.by_class and known.form != form.name:
        return False
    return not known.form or known.form == form.runs or bool(form.modules)


def _laid(form: Form, config: Mapping[str, Any], names: Collection[str]) -> list[int]:
    """Of each of these tensors that a form stores in several ways, which one it is under a config."""
    full = {**form.config, **config}
    several = (spec.cases for spec in form.tensors if len(spec.cases) > 1 and spec.name in names)
    return [next((at for at, case in enumerate(cases) if holds(case.when, full)), -1) for cases in several]


def _fullest(found: list[Candidate]) -> list[Candidate]:
    """Without those that leave out what another one has too: a composite is found with and without its biases."""
    names = [set(c.names.values()) for c in found]
    groups: dict[str, list[int]] = {}
    for i, c in enumerate(found):
        groups.setdefault(c.prefix, []).append(i)
    return [
        c
        for i, c in enumerate(found)
        if not any(names[i] < names[j] for j in groups[c.prefix] if found[j].form is c.form)
    ]


def _said(values: Mapping[str, Any], layer: Layer, prefix: str) -> dict[str, Any]:
    return {**values_said(values, prefix), **values_said(values, layer.record.name)} if values else {}


@lru_cache(65536)  # each name is compared with many
def plain(name: str) -> str:
    """A name without what frameworks add or change: case, underscores, the path's separators."""
    return "".join(c for c in name.lower() if c.isalnum())
