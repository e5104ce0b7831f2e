"""In which orders the layers of a model may have been written: Keras sorts those of a graph by how deep they lie."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from layoutx.model.keras_leaves import snake
from layoutx.model.record import LayerRecord, ModelRecord

_SERIES = re.compile(r"(?P<path>(?:.*/)?)(?P<base>.*?)(?:_(?P<number>\d+))?")


def orders_of(model: ModelRecord) -> tuple[tuple[str, ...], ...]:
    """The layers' names in every order in which their model may define them, the likeliest first.

    A graph of Keras keeps its layers by their distance from the outputs: of two branches the longer one stands first,
    whichever was written first. The names that Keras itself gives (`dense`, `dense_1`) count as the layers were made;
    where these say nothing, branches may as well have been written one after the other.
    """
    stored = list(model.layers)
    if not model.framework.startswith("keras"):
        return (tuple(record.name for record in stored),)
    found = (_as_counted(order) for order in (stored, _by_branches(stored)))
    return tuple(dict.fromkeys(tuple(record.name for record in order) for order in found))


def _as_counted(records: Sequence[LayerRecord]) -> list[LayerRecord]:
    """The layers that Keras named put in the order of their numbers, in the places that layers of their class have.

    Where one feeds another that has the smaller number, they were not made as they are called: `Dense(5)(Dense(5)(x))`.
    """
    found = list(records)
    series: dict[tuple[str, str], list[tuple[int, int]]] = {}  # (path, class) -> (number in the name, place)
    for at, record in enumerate(records):
        said = _SERIES.fullmatch(record.name)
        if said is not None and said["base"] == snake(record.class_name):
            series.setdefault((said["path"], said["base"]), []).append((int(said["number"] or 0), at))
    for own in series.values():
        counted, places = [at for _, at in sorted(own)], sorted(at for _, at in own)
        if counted != places and _flows(records, [records[at].name for at in counted]):
            for place, at in zip(places, counted, strict=True):
                found[place] = records[at]
    return found


def _flows(records: Sequence[LayerRecord], order: Sequence[str]) -> bool:
    """Whether none of these layers is fed, directly or not, by one that stands after it in this order."""
    number = {name: at for at, name in enumerate(order)}
    latest: dict[str, int] = {}  # record -> the last of these layers that it is or comes from
    for record in records:
        before = max((latest.get(name, -1) for name in record.inputs), default=-1)
        own = number.get(record.name, -1)
        if 0 <= own < before:
            return False
        latest[record.name] = max(before, own)
    return True


def _by_branches(records: Sequence[LayerRecord]) -> list[LayerRecord]:
    """What each layer reads before the layer itself, one operand after the other."""
    by_name = {record.name: record for record in records}
    read = {name for record in records for name in record.inputs}
    ends = [record for record in records if record.name not in read]
    found: dict[str, LayerRecord] = {}
    for record in (*ends, *records):
        found |= {one.name: one for one in _before(record, by_name, found)}
    return list(found.values())


def _before(
    record: LayerRecord, by_name: Mapping[str, LayerRecord], found: Mapping[str, LayerRecord]
) -> Iterator[LayerRecord]:
    """A layer behind all that it reads, without recursion: models may be thousands of layers deep."""
    begun: set[str] = set()
    waiting = [(record, iter(record.inputs))] if record.name not in found else []
    while waiting:
        one, inputs = waiting[-1]
        begun.add(one.name)
        name = next((n for n in inputs if n in by_name and n not in found and n not in begun), None)
        if name is not None:
            waiting.append((by_name[name], iter(by_name[name].inputs)))
        else:
            waiting.pop()
            yield one
