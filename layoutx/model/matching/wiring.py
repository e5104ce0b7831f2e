"""Who feeds whom, on both sides: layers are alike whose neighbours are counterparts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from layoutx.frozen import frozen
from layoutx.model.keyed import Keyed
from layoutx.model.record import LayerRecord, ModelRecord

INPUT, OUTPUT = "<input>", "<output>"
Edges = Mapping[str, frozenset[str]]


@frozen
class Wires:
    """Name -> the layers with weights before it, and those after it; INPUT and OUTPUT stand for the model's ends."""

    before: Edges
    after: Edges


def wires_of(model: ModelRecord) -> Wires | None:
    """The wiring of records, through layers without weights; None where nothing is known of it."""
    if not any(record.inputs for record in model.layers):
        return None
    records = {record.name: record for record in model.layers}
    memo: dict[str, frozenset[str]] = {}
    own = [record.name for record in model.layers if record.tensors]
    return _both({name: _feeding(records[name], records, memo) for name in own})


def _feeding(
    record: LayerRecord, records: Mapping[str, LayerRecord], memo: dict[str, frozenset[str]]
) -> frozenset[str]:
    """The nearest layers with weights upstream, found without recursion: models may be thousands of layers deep."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = list(record.inputs)
    ended = not waiting
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        inner = records.get(name)
        if inner is not None and inner.tensors:
            found.add(name)
        elif inner is None or not inner.inputs:
            ended = True
        else:
            waiting += inner.inputs
    memo[record.name] = frozenset(found | ({INPUT} if ended and not found else set()))
    return memo[record.name]


def wires_between(feeding: Mapping[str, Collection[str]]) -> Wires | None:
    """Wiring from module path -> the paths of the modules that feed it."""
    if not any(feeding.values()):
        return None
    return _both({path: frozenset(found) or frozenset({INPUT}) for path, found in feeding.items()})


def _both(before: Mapping[str, frozenset[str]]) -> Wires:
    after: dict[str, set[str]] = {name: set() for name in before}
    for name, found in before.items():
        for other in found & after.keys():
            after[other].add(name)
    return Wires(before, {name: frozenset(found or {OUTPUT}) for name, found in after.items()})


def of_place(wires: Wires, paths: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
    """What lies before and after a place of several modules, these themselves left out."""
    before = frozenset(x for path in paths for x in wires.before.get(path, ())) - set(paths)
    after = frozenset(x for path in paths for x in wires.after.get(path, ())) - set(paths)
    if len(paths) > 1:  # an inner module that nothing of the model reads is no end of it
        before = before - {INPUT} or before
        after = after - {OUTPUT} or after
    return before, after


def agreement(
    mine: Iterable[frozenset[str]], yours: Sequence[frozenset[str]], known: Mapping[str, Collection[str]]
) -> tuple[float, float]:
    """How many neighbours are counterparts, and how many are not; one that only one side has is half a wrong one.

    Args:
        mine, yours: neighbours before, and after.
        known: layer -> the module paths of its counterpart, for the layers that have one.
    """
    right = wrong = uneven = 0
    for own, other in zip(mine, yours, strict=True):
        for name in own:
            if name in (INPUT, OUTPUT):
                right, wrong = (right + 1, wrong) if name in other else (right, wrong + 1)
            elif name in known:
                met = not other.isdisjoint(known[name])
                right, wrong = right + met, wrong + (not met)
        uneven += abs(len(own) - len(other))
    return (right, wrong + uneven / 2) if right or wrong else (0, 0)


def keyed_wires(keyed: Keyed) -> Wires | None:
    """The wiring of a live module or of another model seen as names; None where nothing is known of it."""
    return wires_between(keyed.wires()) if keyed.wires is not None else None
