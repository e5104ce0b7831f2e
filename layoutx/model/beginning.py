"""Layers that a user leaves out at a model's inputs: what they make of the inputs is what the other model is given."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord


def beginning(model: Keyed | ModelRecord, patterns: Collection[str]) -> Mapping[str, tuple[str, ...]]:
    """Input -> the layers from it up to the last one that is left out; inputs without such a layer are not named.

    Nothing else reads what lies on the way, and what stays on it has no weights (a Rescaling before a Normalization).

    Args:
        patterns: names of the layers that are left out, as for `--skip`.
    """
    if not patterns or not isinstance(model, ModelRecord):
        return {}
    records = {record.name: record for record in model.layers}
    readers: dict[str, list[str]] = {}
    for record in model.layers:
        for name in record.inputs:
            readers.setdefault(name, []).append(record.name)
    found = {}
    for start in (record.name for record in model.layers if not record.inputs):
        way: list[str] = []
        until, at = 0, start
        while len(readers.get(at, ())) == 1:
            at = readers[at][0]
            out = any(fnmatchcase(at, pattern) for pattern in patterns)
            if len(records[at].inputs) != 1 or (records[at].tensors and not out):
                break
            way.append(at)
            until = len(way) if out else until
        if until:
            found[start] = tuple(way[:until])
    return found
