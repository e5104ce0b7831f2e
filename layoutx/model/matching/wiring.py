"""Who feeds whom, and how, on both sides: layers are alike whose neighbours are counterparts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from layoutx.frozen import frozen
from layoutx.model.bare import NUMBER
from layoutx.model.keyed import Keyed
from layoutx.model.record import LayerRecord, ModelRecord, Way
from layoutx.model.ways import ACTIVE, GATE, SIGMOID, kind_of, linked, passed, through

INPUT, OUTPUT = "<input>", "<output>"
Label = tuple[tuple[str, ...], int, int]  # a way without its maker
Edges = Mapping[str, frozenset[Label]]  # neighbour -> in which ways
PLAIN: frozenset[Label] = frozenset({((), 0, 1)})


@frozen
class Wires:
    """Name -> the layers with weights before it, and those after it; INPUT and OUTPUT stand for the model's ends.

    A name that is missing on one side is one of which nobody knows what lies there.
    """

    before: Mapping[str, Edges]
    after: Mapping[str, Edges]


def wires_of(model: ModelRecord) -> Wires | None:
    """The wiring of records, through layers without weights; None where nothing is known of it.

    Where no record says what feeds it, some may say whom they alone read: no more is known then of these, and of
    those that they read no more than that.
    """
    found = ways_of(model)
    if found:
        return _both({name: _edges(own) for name, own in found.items()})
    alone = {record.name: record.alone for record in model.layers if record.alone}
    before = {name: {maker: PLAIN} for name, maker in alone.items()}
    return Wires(before, {maker: {name: PLAIN} for name, maker in alone.items()}) if alone else None


def ways_of(model: ModelRecord) -> dict[str, tuple[Way, ...]]:
    """Layer with weights -> those that feed it and how, through layers without; {} where no wiring is known."""
    if not any(record.inputs for record in model.layers):
        return {}
    records = {record.name: record for record in model.layers}
    made: dict[str, tuple[Way, ...]] = {r.name: (Way(r.name, active=_active(r)),) for r in model.layers if r.tensors}
    own = [name for name in made if records[name].inputs or records[name].note != NUMBER]  # else nobody knows
    return {name: tuple(way for group in _given(records[name], records, made) for way in group) for name in own}


def at_inputs(wires: Wires | None, name: str) -> bool:
    """Whether no layer with weights feeds this one, as far as the wiring is known."""
    return wires is not None and {*wires.before.get(name, {})} == {INPUT}


def _given(
    record: LayerRecord, records: Mapping[str, LayerRecord], made: dict[str, tuple[Way, ...]]
) -> list[tuple[Way, ...]]:
    """The ways of what a layer reads, found without recursion: models may be thousands of layers deep.

    Args:
        made: layer -> the ways of what it makes; those without weights are added.
    """
    waiting = [record]
    begun = {record.name}
    while waiting:
        one = waiting[-1]
        open_ = [records[name] for name in one.inputs if name in records and name not in made and name not in begun]
        waiting += open_
        begun.add(one.name)
        if not open_:
            waiting.pop()
            if one is not record:
                made[one.name] = passed(_kind(one), _groups(one, made))
    return _groups(record, made)


def _groups(record: LayerRecord, made: Mapping[str, tuple[Way, ...]]) -> list[tuple[Way, ...]]:
    """The ways of each value that a record reads, one that no layer of the model makes being its input."""
    ways = [way for way in record.ways if way.maker in record.inputs]
    told = {way.maker for way in ways}
    ways += [Way(name) for name in record.inputs if name not in told]
    if not ways:
        return [tuple(way for way in record.ways if not way.maker) or (Way(""),)]
    return [through(made.get(way.maker, (Way(""),)), way) for way in ways]


def _kind(record: LayerRecord) -> str:
    """What a layer without weights does to ways; Keras 2 has functions in layers, Keras 1 merges in several modes."""
    said = (record.class_name, *(str(record.config.get(key, "")) for key in ("function", "mode", "activation")))
    return next((kind for text in said if (kind := kind_of(text.rpartition(".")[2]))), "")


def _active(record: LayerRecord) -> str:
    """Which activation of its own a layer with weights has; a function of the user's own is one."""
    said = record.config.get("activation", "")
    own = isinstance(said, Mapping)  # as Keras writes functions that are none of its own
    kind = kind_of(str(said.get("config") if own else said).rpartition(">")[2])
    return kind if kind in (ACTIVE, SIGMOID) else ACTIVE if own else ""


def wires_between(feeding: Mapping[str, Sequence[Way]]) -> Wires | None:
    """Wiring from module path -> the modules that feed it, and how."""
    if not linked(feeding):
        return None
    return _both({path: _edges(found) for path, found in feeding.items()})


def _edges(ways: Sequence[Way]) -> Edges:
    """In which ways each neighbour comes; the model's input is one where there is no other."""
    found: dict[str, set[Label]] = {}
    for way in ways:
        found.setdefault(way.maker or INPUT, set()).add((way.pooled, way.at, way.of))
    if len(found) > 1:
        found.pop(INPUT, None)
    return {name: frozenset(labels) for name, labels in found.items()} or {INPUT: PLAIN}


def _both(before: Mapping[str, Edges]) -> Wires:
    after: dict[str, dict[str, frozenset[Label]]] = {name: {} for name in before}
    for name, found in before.items():
        for other, labels in found.items():
            if other in after:
                after[other][name] = labels
    return Wires(before, {name: found or {OUTPUT: PLAIN} for name, found in after.items()})


def of_place(wires: Wires, paths: Collection[str]) -> tuple[Edges, Edges]:
    """What lies before and after a place of several modules, these themselves left out."""
    return _around(wires.before, paths), _around(wires.after, paths)


def _around(side: Mapping[str, Edges], paths: Collection[str]) -> Edges:
    found: dict[str, frozenset[Label]] = {}
    for name, labels in (pair for path in paths for pair in side.get(path, {}).items() if pair[0] not in paths):
        found[name] = found.get(name, frozenset()) | labels
    if len(paths) > 1 and len(found) > 1:  # an inner module that nothing of the model reads is no end of it
        found = {name: labels for name, labels in found.items() if name not in (INPUT, OUTPUT)}
    return found


def agreement(
    mine: Sequence[Edges | None], yours: Sequence[Edges | None], known: Mapping[str, Collection[str]]
) -> tuple[float, float, bool]:
    """How many neighbours are counterparts, and how many are not; one that only one side has is half a wrong one.

    The last is whether those that are come alike too, some of them in a way that tells something, or both layers are
    gates, whatever of. A neighbour that comes in another way is a counterpart all the same: frameworks may write the
    way differently.

    Args:
        mine, yours: neighbours before, and after; None where they are not known.
        known: layer -> the module paths of its counterpart, for the layers that have one.
    """
    right = wrong = uneven = 0
    same, told = True, False
    for own, other in zip(mine, yours, strict=True):
        if own is None or other is None:
            continue
        for name, labels in own.items():
            if name not in known and name not in (INPUT, OUTPUT):
                continue
            met = [other[path] for path in known.get(name, (name,)) if path in other]
            right, wrong = (right + 1, wrong) if met else (right, wrong + 1)
            if met:
                same = same and frozenset().union(*met) == labels
                told = told or labels != PLAIN
        uneven += abs(len(own) - len(other))
    ends = [side[1] for side in (mine, yours)]
    gates = all(
        end is not None and all(GATE in pooled for pooled, *_ in frozenset().union(*end.values())) for end in ends
    )
    return (right, wrong + uneven / 2, (same and told) or gates) if right or wrong else (0, 0, gates)


def keyed_wires(keyed: Keyed) -> Wires | None:
    """The wiring of a live module or of another model seen as names; None where nothing is known of it."""
    return wires_between(keyed.wires()) if keyed.wires is not None else None
