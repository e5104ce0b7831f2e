"""Where a layer's tensors could lie in a keyed model: every path that has the names, and of those the fitting ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from layoutx.errors import LayoutxError
from layoutx.model.keyed import Keyed, prefixes
from layoutx.model.order import positions
from layoutx.model.record import LayerRecord
from layoutx.plan.fit import configs
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Form

MOST_INSTANCES = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to find a layer in a keyed model: form, config, instance, and where each tensor is."""

    form: Form
    config: Mapping[str, Any]
    instance: Mapping[str, Any]
    prefix: str
    names: Mapping[str, str]
    at: int


@dataclass(frozen=True, slots=True)
class Layer:
    """A record with its bound form and the axes' order on the keyed side."""

    record: LayerRecord
    bound: BoundForm
    refine: Mapping[str, str]


def candidates(layer: Layer, keyed: Keyed, registry: Registry) -> list[Candidate]:
    """All places where a layer's tensors are found by name and shape; the fullest config of each."""
    best: dict[tuple[str, ...], Candidate] = {}
    order = positions(keyed)
    for form in registry.forms_of(layer.bound.kind.name, keyed.framework):
        for way in stored(layer, form, keyed):
            for prefix, names in places(form, list(way.shapes), keyed):
                known = keyed.modules.get(prefix)
                if known is not None and known.form and known.form != form.name and not form.modules:
                    continue
                if any(keyed.tensors[names[n]].shape != shape for n, shape in way.shapes.items()):
                    continue
                where = names.values() if form.modules else (prefix,)  # a composite may be found by two paths
                key = (*where, *map(str, way.instance.values()))
                given = dict(known.config) if known is not None and known.form == form.name else {}
                at = min(order[n] for n in names.values())
                if key not in best or len(names) > len(best[key].names):
                    best[key] = Candidate(form, {**way.config, **given}, way.instance, prefix, names, at)
    return sorted(best.values(), key=lambda c: c.at)


@dataclass(frozen=True, slots=True)
class Stored:
    """How a layer would be stored in a form: the bound form, and the names and shapes that a file would hold."""

    bound: BoundForm
    config: Mapping[str, Any]
    instance: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]


def stored(layer: Layer, form: Form, keyed: Keyed) -> Iterator[Stored]:
    """One for each config that the form tells apart; of instances only those that the keyed model has names for."""
    seen: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()
    ends = {name.rpartition(".")[2] for name in keyed.tensors}
    for config in configs(form, {}, layer.bound.facts):
        for number in range(MOST_INSTANCES if form.each else 1):
            instance = {form.each: number} if form.each else {}
            try:
                target = bind(
                    layer.bound.kind, form, config, sizes=layer.bound.sizes, refine=layer.refine, instance=instance
                )
            except LayoutxError:
                break
            shapes = {t.name: t.shape for t in target.tensors}
            if form.each and not any(name.rpartition(".")[2] in ends for name in shapes):
                break
            optional = [s.name for s in form.tensors if s.optional and s.name in shapes]
            for omit in (some for n in range(len(optional) + 1) for some in combinations(optional, n)):
                kept = {n: s for n, s in shapes.items() if n not in omit}
                key = tuple(kept.items())
                if kept and key not in seen:
                    seen.add(key)
                    yield Stored(target, config, instance, kept)


def places(form: Form, names: Sequence[str], keyed: Keyed) -> Iterator[tuple[str, dict[str, str]]]:
    """Module paths under which all the names exist; a composite form may also lie in consecutive modules."""
    dotted = {name: name.replace("/", ".") for name in names}  # jax's forms spell paths inside a layer with "/"
    first = dotted[names[0]]
    for full in keyed.tensors:
        if full == first or full.endswith(f".{first}"):
            prefix = full[: -len(first)].rstrip(".")
            found = {name: f"{prefix}.{short}" if prefix else short for name, short in dotted.items()}
            if all(name in keyed.tensors for name in found.values()):
                yield prefix, found
    if form.modules:
        yield from _consecutive(form, names, keyed)


def _consecutive(form: Form, names: Sequence[str], keyed: Keyed) -> Iterator[tuple[str, dict[str, str]]]:
    slots = list(form.modules)
    own = {slot: [n.removeprefix(f"{slot}.") for n in names if n.startswith(f"{slot}.")] for slot in slots}
    paths = prefixes(keyed.tensors)
    direct: dict[str, set[str]] = {path: set() for path in paths}
    for name in keyed.tensors:
        path, _, last = name.rpartition(".")
        direct[path].add(last)
    for at in range(len(paths) - len(slots) + 1):
        run = paths[at : at + len(slots)]
        if all(direct[path] == set(own[slot]) for path, slot in zip(run, slots, strict=True)):
            yield (
                run[0],
                {
                    f"{slot}.{last}": f"{path}.{last}" if path else last
                    for path, slot in zip(run, slots, strict=True)
                    for last in own[slot]
                },
            )


def plain(name: str) -> str:
    """A name without what frameworks add or change: case, underscores, the path's separators."""
    return "".join(c for c in name.lower() if c.isalnum())
