"""Where a layer's tensors could lie in a keyed model: every path that has the names, and of those the fitting ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import lru_cache
from typing import Any

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.model.bare import PATH, bare_names
from layoutx.model.keyed import Keyed, forms_for, prefixes
from layoutx.model.order import keeps_order, positions
from layoutx.model.projections import in_words
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

    `bare`: those that no layer holds, by the kind that they may be and shape.
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

    def among(self, layer: Layer, first: str, shape: tuple[int, ...]) -> Sequence[str]:
        """The tensors that the first one of a layer can be."""
        if first == PATH:
            return self.bare.get((layer.bound.kind.name, shape), [])
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
    for name, kind in bare_names(keyed, registry).items():
        bare.setdefault((kind, keyed.tensors[name].shape), []).append(name)
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
            first, shape = next(iter(way.shapes.items()))
            stored_as = way.layouts
            for prefix, names in places(form, list(way.shapes), keyed, index.among(layer, first, shape)):
                known = keyed.modules.get(prefix)
                if known is None and not form.modules and keyed.inside(prefix):
                    continue
                if form.by_class and (known is None or known.form != form.name):
                    continue  # fitting names and shapes are no reason
                if known is not None and known.form and known.form != form.runs and not form.modules:
                    continue
                if any(keyed.tensors[names[n]].shape != shape for n, shape in way.shapes.items()):
                    continue
                where = names.values() if form.modules else (prefix,)  # a composite may be found by two paths
                key = (*where, *map(str, way.instance.values()))
                live = dict(known.config) if known is not None and known.form == form.runs else {}
                said = {k: v for k, v in _said(values, layer, prefix).items() if k in form.config}
                told = {key: v for key, v in live.items() if v in switched.get(key, ())}  # what ways are tried for
                if told and _laid(form, way.config, way.shapes) != _laid(form, {**way.config, **told}, way.shapes):
                    continue  # the node says itself which way its kernel lies (transB)
                settled = {**said, **live} if known is not None and known.names else said
                if any(k in switched and {**form.config, **way.config}[k] != v for k, v in settled.items()):
                    continue
                if way.given.items() - {**seen_in(form, keyed, prefix), **said}.items():
                    continue
                given = {**said, **live}
                at = min(index.order[n] for n in names.values())
                if key not in best or len(names) > len(best[key].names):
                    best[key] = Candidate(form, {**way.config, **given}, way.instance, prefix, names, at, (), way.bound)
                    layouts[key] = stored_as
                elif not live and best[key].form is form and names == best[key].names and stored_as != layouts[key]:
                    differ = [k for k in switched if way.config.get(k) != best[key].config.get(k) and k not in given]
                    best[key] = replace(best[key], open=tuple(differ))
    return sorted(_fullest(list(best.values())), key=lambda c: c.at)


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


def places(
    form: Form, names: Sequence[str], keyed: Keyed, among: Iterable[str] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Module paths under which all the names exist; a composite form may also lie in consecutive modules.

    Args:
        among: the only tensors that the first name can be.
    """
    dotted = {name: name.replace("/", ".") for name in names}  # jax's forms spell paths inside a layer with "/"
    first = dotted[names[0]]
    for full in keyed.tensors if among is None else among:
        if first == PATH:
            if among is not None:  # else no name speaks for it
                yield full, {PATH: full}
        elif full == first or full.endswith(f".{first}"):
            prefix = full[: -len(first)].rstrip(".")
            found = {name: f"{prefix}.{short}" if prefix else short for name, short in dotted.items()}
            if all(name in keyed.tensors for name in found.values()):
                yield prefix, found
    if form.modules:
        yield from _consecutive(form, names, keyed)
    if form.by_class:
        for path, module in keyed.modules.items():
            if module.form == form.name and {module.names.get(name) for name in names} <= keyed.tensors.keys():
                yield path, {name: module.names[name] for name in names}


def _consecutive(form: Form, names: Sequence[str], keyed: Keyed) -> Iterator[tuple[str, dict[str, str]]]:
    slots = list(form.modules)
    own = {slot: [n.removeprefix(f"{slot}.") for n in names if n.startswith(f"{slot}.")] for slot in slots}
    paths = prefixes(keyed.tensors)
    direct: dict[str, set[str]] = {path: set() for path in paths}
    for name in keyed.tensors:
        path, _, last = name.rpartition(".")
        direct[path].add(last)
    runs = [paths[at : at + len(slots)] for at in range(len(paths) - len(slots) + 1)]
    runs += [run for run in _chains(keyed, len(slots)) if run not in runs and direct.keys() >= set(run)]
    for run in (spoken for one in runs if (spoken := in_words(one, slots, keeps_order(keyed)))):
        if all(direct[path] == set(own[slot]) for path, slot in zip(run, slots, strict=True)):
            yield (
                run[0],
                {
                    f"{slot}.{last}": f"{path}.{last}" if path else last
                    for path, slot in zip(run, slots, strict=True)
                    for last in own[slot]
                },
            )


def _chains(keyed: Keyed, count: int) -> Iterator[list[str]]:
    """Modules that feed each other and nobody else, wherever they are defined: lists of depthwise and of pointwise."""
    wires = keyed.wires() if keyed.wires is not None else {}
    before = {path: {way.maker for way in found if way.maker} for path, found in wires.items()}
    after: dict[str, list[str]] = {}
    for path, found in before.items():
        for other in found:
            after.setdefault(other, []).append(path)
    for path in before:
        run = [path]
        while len(run) < count and len(after.get(run[-1], ())) == 1 and before[after[run[-1]][0]] == {run[-1]}:
            run.append(after[run[-1]][0])
        if len(run) == count and len(set(run)) == count:
            yield run


@lru_cache(65536)  # each name is compared with many
def plain(name: str) -> str:
    """A name without what frameworks add or change: case, underscores, the path's separators."""
    return "".join(c for c in name.lower() if c.isalnum())
