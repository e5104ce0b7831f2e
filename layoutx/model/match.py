"""Layers paired with the names of a keyed model: by name, by order, by elimination; never by a lucky size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layoutx.errors import LayoutxError, MatchError, raise_all
from layoutx.model.keyed import Keyed, prefixes
from layoutx.model.order import family, keeps_order, positions
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
class Pair:
    """A layer and its place in the keyed model, with the reason for the pairing."""

    record: LayerRecord
    candidate: Candidate
    reason: str


@dataclass(frozen=True, slots=True)
class Layer:
    """A record with its bound form and the axes' order on the keyed side."""

    record: LayerRecord
    bound: BoundForm
    refine: Mapping[str, str]


def pair(
    layers: Sequence[Layer], keyed: Keyed, registry: Registry, fixed: Mapping[str, str], *, whole: bool = True
) -> list[Pair]:
    """Give every layer its place.

    Args:
        layers: in model order, all of them with a form.
        keyed: the other model.
        fixed: layer name -> module path, decided by the user.
        whole: every name of the keyed model must be taken by a layer.

    Raises:
        MatchError: layers without a place, places without a layer, or several ways to pair them; all together.
    """
    options = {layer.record.name: _candidates(layer, keyed, registry) for layer in layers}
    for name, prefix in fixed.items():
        if name in options:
            options[name] = [c for c in options[name] if c.prefix == prefix]
    raise_all(
        [_homeless(layer, keyed, registry) for layer in layers if not options[layer.record.name]],
        "layers without a place",
    )
    chosen = _by_name(layers, options)
    if keeps_order(keyed):
        chosen = _in_order(layers, options, chosen) or _by_elimination(layers, options, chosen)
    else:
        chosen = _by_number(layers, options, _by_elimination(layers, options, chosen))
    open_layers = [layer for layer in layers if layer.record.name not in chosen]
    problems: list[LayoutxError] = [_ambiguous(layer, options[layer.record.name], keyed) for layer in open_layers]
    taken = {name for candidate, _ in chosen.values() for name in candidate.names.values()}
    unused = [name for name in keyed.tensors if name not in taken]
    if unused and whole and not problems:
        problems.append(
            MatchError(
                f"{len(unused)} tensors of the {keyed.framework} model have no layer",
                where=", ".join(unused[:8]) + (", ..." if len(unused) > 8 else ""),
                do="leave layers out with --skip, or pair them with --pair LAYER=MODULE",
            )
        )
    raise_all(problems, "the two models could not be paired")
    return [Pair(layer.record, *chosen[layer.record.name]) for layer in layers]


def _candidates(layer: Layer, keyed: Keyed, registry: Registry) -> list[Candidate]:
    """All places where a layer's tensors are found by name and shape; the fullest config of each."""
    best: dict[tuple[str, ...], Candidate] = {}
    order = positions(keyed)
    for form in registry.forms_of(layer.bound.kind.name, keyed.framework):
        for config, instance, shapes in _stored(layer, form):
            for prefix, names in _places(form, list(shapes), keyed):
                known = keyed.modules.get(prefix)
                if known is not None and known.form and known.form != form.name and not form.modules:
                    continue
                if any(keyed.tensors[names[n]].shape != shape for n, shape in shapes.items()):
                    continue
                key = (prefix, *map(str, instance.values()), *([] if not form.modules else names.values()))
                given = dict(known.config) if known is not None and known.form == form.name else {}
                found = Candidate(
                    form, {**config, **given}, instance, prefix, names, min(order[n] for n in names.values())
                )
                if key not in best or len(names) > len(best[key].names):
                    best[key] = found
    return sorted(best.values(), key=lambda c: c.at)


def _stored(layer: Layer, form: Form) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, tuple[int, ...]]]]:
    """The names and shapes that a layer would have in a form, for each config that the form tells apart."""
    seen: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()
    for config in configs(layer.bound.kind, form, {}, layer.bound.facts):
        for number in range(MOST_INSTANCES if form.each else 1):
            instance = {form.each: number} if form.each else {}
            try:
                target = bind(
                    layer.bound.kind, form, config, sizes=layer.bound.sizes, refine=layer.refine, instance=instance
                )
            except LayoutxError:
                break
            shapes = {t.name: t.shape for t in target.tensors}
            optional = [s.name for s in form.tensors if s.optional and s.name in shapes]
            for omit in ([], optional) if optional else ([],):
                kept = {n: s for n, s in shapes.items() if n not in omit}
                key = tuple(kept.items())
                if kept and key not in seen:
                    seen.add(key)
                    yield config, instance, kept


def _places(form: Form, names: Sequence[str], keyed: Keyed) -> Iterator[tuple[str, dict[str, str]]]:
    """Module paths under which all the names exist; a composite form may also lie in consecutive modules."""
    tail = f".{names[0]}"
    for full in keyed.tensors:
        if full == names[0] or full.endswith(tail):
            prefix = full[: -len(names[0])].rstrip(".")
            found = {name: f"{prefix}.{name}" if prefix else name for name in names}
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


Chosen = dict[str, tuple[Candidate, str]]


def _by_name(layers: Sequence[Layer], options: Mapping[str, Sequence[Candidate]]) -> Chosen:
    """Layers whose own name is the path, or the end of the path, of exactly one candidate."""
    chosen: Chosen = {}
    for layer in layers:
        name = layer.record.name
        whole = [c for c in options[name] if plain(c.prefix) == plain(name)]
        last = [c for c in options[name] if plain(c.prefix.rpartition(".")[2]) == plain(name)]
        found = whole if len(whole) == 1 else last
        if len(found) == 1:
            chosen[name] = (found[0], "same name")
    owners: dict[str, list[str]] = {}
    for name, (candidate, _) in chosen.items():
        for full in candidate.names.values():
            owners.setdefault(full, []).append(name)
    clashing = {name for names in owners.values() if len(names) > 1 for name in names}
    return {name: found for name, found in chosen.items() if name not in clashing}


def _free(candidates: Sequence[Candidate], chosen: Chosen) -> list[Candidate]:
    taken = {full for candidate, _ in chosen.values() for full in candidate.names.values()}
    return [c for c in candidates if not taken & set(c.names.values())]


def _in_order(
    layers: Sequence[Layer],
    options: Mapping[str, Sequence[Candidate]],
    chosen: Chosen,
    reason: str = "same order, shapes fit",
) -> Chosen | None:
    """The one way to pair what is left so that both models keep their order and every place is used; else None."""
    rest = [layer for layer in layers if layer.record.name not in chosen]
    free = [_free(options[layer.record.name], chosen) for layer in rest]
    names = {full for candidates in free for c in candidates for full in c.names.values()}
    ways: dict[int, list[list[Candidate]]] = {-1: [[]]}
    for candidates in free:
        longer: dict[int, list[list[Candidate]]] = {}
        for candidate in candidates:
            for last, paths in ways.items():
                if last < candidate.at:
                    known = longer.setdefault(candidate.at, [])
                    known += [[*path, candidate] for path in paths[: 2 - len(known)]]
        ways = longer
    found = [path for paths in ways.values() for path in paths if _covers(path, names)]
    if len(found) != 1:
        return None
    return {**chosen, **{layer.record.name: (c, reason) for layer, c in zip(rest, found[0], strict=True)}}


def _by_number(layers: Sequence[Layer], options: Mapping[str, Sequence[Candidate]], chosen: Chosen) -> Chosen:
    """Layers whose places differ in nothing but the numbers in their names, paired in that order."""
    families: dict[tuple[str, ...], list[Layer]] = {}
    for layer in layers:
        if layer.record.name not in chosen:
            kinds = {family(c.names.values()) for c in _free(options[layer.record.name], chosen)}
            if len(kinds) == 1:
                families.setdefault(kinds.pop(), []).append(layer)
    for own in families.values():
        chosen = _in_order(own, options, chosen, "numbered in this order") or chosen
    return chosen


def _covers(path: Sequence[Candidate], names: set[str]) -> bool:
    taken = [full for candidate in path for full in candidate.names.values()]
    return len(taken) == len(set(taken)) and set(taken) == names


def _by_elimination(layers: Sequence[Layer], options: Mapping[str, Sequence[Candidate]], chosen: Chosen) -> Chosen:
    """Layers that have one place left, again and again."""
    chosen = dict(chosen)
    progress = True
    while progress:
        progress = False
        for layer in layers:
            name = layer.record.name
            if name in chosen:
                continue
            free = _free(options[name], chosen)
            rivals = [x for x in layers if x.record.name not in chosen and x is not layer]
            if len(free) == 1 and not any(_overlap(free[0], _free(options[x.record.name], chosen)) for x in rivals):
                chosen[name] = (free[0], "the only place that fits")
                progress = True
    return chosen


def _overlap(candidate: Candidate, others: Sequence[Candidate]) -> bool:
    own = set(candidate.names.values())
    return any(own & set(other.names.values()) for other in others)


def _ambiguous(layer: Layer, candidates: Sequence[Candidate], keyed: Keyed) -> MatchError:
    places = list(dict.fromkeys(c.prefix or "(top level)" for c in candidates))
    return MatchError(
        f"{layer.record.name} ({layer.record.class_name}) fits several places",
        where="candidates: " + ", ".join(places[:8]) + (", ..." if len(places) > 8 else ""),
        why="names and order do not decide between them"
        if keeps_order(keyed)
        else "the file is sorted by name, as safetensors does: its order says nothing",
        do=f"say which: --pair {layer.record.name}={places[0]}",
    )


def _homeless(layer: Layer, keyed: Keyed, registry: Registry) -> MatchError:
    """Why a layer has no place: the nearest one by name, with the shapes that differ."""
    where = [f"{t.name} {t.shape}" for t in layer.bound.tensors]
    forms = registry.forms_of(layer.bound.kind.name, keyed.framework)
    near = _nearest(layer, forms, keyed)
    return MatchError(
        f"no place in the {keyed.framework} model fits {layer.record.name} ({layer.record.class_name})",
        where=[f"{layer.record.name}: {', '.join(where)}", *near],
        why=f"a {' or '.join(f.class_name for f in forms) or layer.bound.kind.name} of these sizes is not there",
        do="correct the target model, or leave the layer out with --skip",
    )


def _nearest(layer: Layer, forms: Sequence[Form], keyed: Keyed) -> list[str]:
    found = []
    for form in forms:
        for _, _, shapes in _stored(layer, form):
            for prefix, names in _places(form, list(shapes), keyed):
                if plain(prefix.rpartition(".")[2]) != plain(layer.record.name.rpartition("/")[2]):
                    continue
                for name, shape in shapes.items():
                    there = keyed.tensors[names[name]].shape
                    if there != shape:
                        found.append(f"{names[name]} is {there} there, it would have to be {shape}")
    return list(dict.fromkeys(found))[:4]
