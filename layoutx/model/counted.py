"""Which call of a layer a number means: of nested models Keras counts the construction as one, by version and place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from layoutx.model.entry import MAPPING, bad_config
from layoutx.model.wiring import Calls, Ref, refs_of

Offsets = Mapping[str, int]


def offsets(
    calls: Mapping[str, Calls], models: Iterable[str], functional: Iterable[str], body: Mapping[str, Any], where: str
) -> tuple[Offsets, Offsets]:
    """1 for nested models whose call numbers start at 1, between layers and at the model's ends.

    Keras 2 counts a model's own construction as call 0 everywhere; Keras 3 for functional models, at the ends alone.

    Args:
        calls: layer -> its calls; models: those of the layers that are models, `functional` those made so.
        body: the config of the whole, whose layers are objects; `where` it is, for errors.

    Raises ModelError where the ends name no output of a layer.
    """
    models = tuple(models)
    if not models:
        return {}, {}
    inside = [ref for own in calls.values() for call in own for ref in call]
    if any(isinstance(call, MAPPING) for entry in body["layers"] for call in entry.get("inbound_nodes", ())):
        return _from_one(calls, models, inside), dict.fromkeys(functional, 1)
    both = _from_one(calls, models, (*inside, *refs_of(body.get("output_layers", []), where)))
    return both, both


def _from_one(calls: Mapping[str, Calls], models: Iterable[str], refs: Iterable[Ref]) -> Offsets:
    """1 for those of whose calls a number is used that counting from 0 does not reach."""
    used: dict[str, int] = {}
    for ref in refs:
        used[ref.layer] = max(used.get(ref.layer, ref.call), ref.call)
    return {name: 1 for name in models if used.get(name, -1) >= len(calls[name])}


def resolved(own: Calls, calls: Mapping[str, Calls], begin: Offsets, where: str) -> Calls:
    """A layer's calls, those of others counted from 0.

    Raises ModelError for a layer or a call that the model does not have.
    """
    return tuple([tuple([resolve(ref, calls, begin, where) for ref in call]) for call in own])


def resolve(ref: Ref, calls: Mapping[str, Calls], begin: Offsets, where: str) -> Ref:
    """The same for one reference."""
    own = calls.get(ref.layer)
    if own is None:
        raise bad_config(f'The wiring names a layer "{ref.layer}" that the model does not have', where)
    offset = begin.get(ref.layer, 0)
    call = ref.call - offset
    if not 0 <= call < max(1, len(own)):
        raise bad_config(f'The wiring uses call {ref.call} of layer "{ref.layer}", which has {len(own)} calls', where)
    return replace(ref, call=call) if offset else ref
