"""Layers paired with the names of a keyed model: by name, by order, by elimination; never by a lucky size."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from layoutx.errors import LayoutxError, MatchError, UsageError, raise_all
from layoutx.model.keyed import Keyed
from layoutx.model.order import counted, family, keeps_order
from layoutx.model.places import Candidate, Layer, candidates, plain
from layoutx.model.record import LayerRecord
from layoutx.model.unmatched import ambiguous, homeless
from layoutx.spec.registry import Registry


@dataclass(frozen=True, slots=True)
class Pair:
    """A layer and its place in the keyed model, with the reason for the pairing."""

    record: LayerRecord
    candidate: Candidate
    reason: str


def pair(
    layers: Sequence[Layer],
    keyed: Keyed,
    registry: Registry,
    fixed: Mapping[str, str],
    *,
    whole: bool = True,
    ordered: bool = True,
    spare: Collection[str] = (),
) -> list[Pair]:
    """Give every layer its place.

    Args:
        layers: all of them with a form, in model order where that is known.
        keyed: the other model.
        fixed: layer name -> module path, decided by the user.
        whole: every name of the keyed model must be taken by a layer.
        ordered: the layers' order is the model's; else only the numbers in their names tell it.
        spare: names of the keyed model that may stay as they are.

    Raises:
        UsageError: `fixed` names no layer.
        MatchError: layers without a place, places without a layer, or several ways to pair them; all together.
    """
    options = {layer.record.name: candidates(layer, keyed, registry) for layer in layers}
    unknown = [name for name in fixed if name not in options]
    if unknown:
        raise UsageError(f"--pair names no layer: {', '.join(unknown)}", why=f"the layers are {', '.join(options)}")
    for name, prefix in fixed.items():
        options[name] = [c for c in options[name] if c.prefix == prefix]
    lost = [layer for layer in layers if not options[layer.record.name]]
    raise_all([homeless(x, keyed, registry, fixed.get(x.record.name)) for x in lost], "layers without a place")
    chosen = _no_offset(layers, _by_name(layers, options))
    if ordered and keeps_order(keyed):
        chosen = _in_order(layers, options, chosen) or _by_elimination(layers, options, chosen)
    else:
        chosen = _by_number(layers, options, _by_elimination(layers, options, chosen), ordered, keeps_order(keyed))
    open_layers = [layer for layer in layers if layer.record.name not in chosen]
    problems: list[LayoutxError] = [ambiguous(layer, options[layer.record.name], keyed) for layer in open_layers]
    taken = {name for candidate, _ in chosen.values() for name in candidate.names.values()}
    unused = [name for name in keyed.tensors if name not in taken and name not in spare]
    if unused and whole and not problems:
        problems.append(
            MatchError(
                f"{len(unused)} tensors of the {keyed.framework} model have no layer",
                where=", ".join(unused[:8]) + (", ..." if len(unused) > 8 else ""),
                do=f"leave it as it is (a buffer, say): --skip {unused[0]}; or pair it: --pair LAYER=MODULE",
            )
        )
    raise_all(problems, "the two models could not be paired")
    return [Pair(layer.record, *chosen[layer.record.name]) for layer in layers]


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


def _no_offset(layers: Sequence[Layer], chosen: Chosen) -> Chosen:
    """Keras counts `dense, dense_1`, others `dense1, dense2`: where the first of a series has no namesake, and a number
    was added by Keras, the names of that series say nothing."""
    open_series = {counted(layer.record.name) for layer in layers if layer.record.name not in chosen}
    return {name: found for name, found in chosen.items() if counted(name) == name or counted(name) not in open_series}


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
    names = {full for own in free for c in own for full in c.names.values()}
    ways: dict[int, list[list[Candidate]]] = {-1: [[]]}
    for own in free:
        longer: dict[int, list[list[Candidate]]] = {}
        for candidate in own:
            for last, paths in ways.items():
                if last < candidate.at:
                    known = longer.setdefault(candidate.at, [])
                    known += [[*path, candidate] for path in paths[: 2 - len(known)]]
        ways = longer
    found = [path for paths in ways.values() for path in paths if _covers(path, names)]
    if len(found) != 1:
        return None
    return {**chosen, **{layer.record.name: (c, reason) for layer, c in zip(rest, found[0], strict=True)}}


def _by_number(
    layers: Sequence[Layer], options: Mapping[str, Sequence[Candidate]], chosen: Chosen, ordered: bool, keeps: bool
) -> Chosen:
    """Layers paired in order where only numbers tell them apart, on each side whose own order is lost."""
    families: dict[tuple[object, ...], list[Layer]] = {}
    for layer in layers:
        if layer.record.name not in chosen:
            here = "" if ordered else counted(layer.record.name)
            there = {() if keeps else family(c.names.values()) for c in _free(options[layer.record.name], chosen)}
            if len(there) == 1:
                families.setdefault((here, *there), []).append(layer)
    for own in families.values():
        others = [layer for layer in layers if layer not in own]
        free = _free([c for layer in own for c in options[layer.record.name]], chosen)
        rivals = [c for layer in others if layer.record.name not in chosen for c in options[layer.record.name]]
        if not any(_overlap(c, rivals) for c in free):
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
