"""Who feeds each call of each layer, as configs of every Keras version write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from layoutx.frozen import frozen
from layoutx.model.entry import MAPPING, bad_config, mapping_of

ARGUMENTS = {"args", "kwargs"}  # what a call of Keras 3 says


@frozen
class Ref:
    """One output of one call of one layer; layer "" is the graph's own input number `tensor`.

    `shape`: its lengths without the batch, where the config says them.
    """

    layer: str
    call: int = 0
    tensor: int = 0
    keyword: str = ""
    shape: tuple[int | None, ...] | None = field(default=None, compare=False)


Calls = tuple[tuple[Ref, ...], ...]


def calls_of(entry: Mapping[str, Any], where: str) -> Calls:
    """What each call of a layer is given.

    Raises:
        ModelError: a call is given what no layer makes.
    """
    calls = entry.get("inbound_nodes")
    return tuple([refs_of(call, where) for call in calls]) if isinstance(calls, list) else ()


def refs_of(value: Any, where: str) -> tuple[Ref, ...]:
    """Every tensor in one call's arguments: Keras 1 and 2 lists, Keras 3 `__keras_tensor__` objects."""
    found: list[Ref] = []
    _gather(value, "", found, where)
    return tuple(found)


def _gather(value: Any, keyword: str, found: list[Ref], where: str) -> None:
    if isinstance(value, list):
        if _is_ref(value):
            found.append(Ref(value[0], value[1], value[2], keyword))
            if len(value) == 4:
                _gather(value[3], "", found, where)
            return
        for item in value:
            _gather(item, keyword, found, where)
    elif isinstance(value, MAPPING):
        if value.get("class_name") == "__keras_tensor__":
            config = mapping_of(value.get("config"))
            history = config.get("keras_history")
            if isinstance(history, list) and len(history) == 3:
                if not _is_ref(history):
                    raise bad_config(f"The wiring names no output of a layer: {history!r:.200}", where)
                found.append(Ref(history[0], history[1], history[2], keyword, _shape(config.get("shape"))))
        elif value.keys() == ARGUMENTS:
            _gather(value["args"], "", found, where)
            _gather(value["kwargs"], "", found, where)
        else:
            for key, item in value.items():
                _gather(item, keyword or str(key), found, where)


def _shape(said: Any) -> tuple[int | None, ...] | None:
    """What a config says of a tensor's shape; None where it says nothing, or nothing that can be one."""
    plain = isinstance(said, (list, tuple)) and all(n is None or (type(n) is int and n >= 0) for n in said)
    return tuple(said[1:]) if plain else None


def _is_ref(value: list[Any]) -> bool:
    ok = 3 <= len(value) <= 4 and isinstance(value[0], str) and all(type(v) is int for v in value[1:3])
    return ok and value[0] != "_CONSTANT_VALUE" and (len(value) == 3 or isinstance(value[3], Mapping))


def no_circle(calls: Mapping[str, Calls], where: str) -> None:
    """Refuse calls that wait for one another: Keras itself would look for an order of them for ever.

    Args:
        calls: layer -> its calls, in the model's order.
    """
    if not _in_order(calls):
        _refuse_circle(calls, where)


def _in_order(calls: Mapping[str, Calls]) -> bool:
    """Whether every call reads earlier ones only, as most models are written: then nothing goes in a circle."""
    made = set[tuple[str, int]]()
    for name, own in calls.items():
        for i, call in enumerate(own or ((),)):
            if any((ref.layer, ref.call) not in made for ref in call if ref.layer):
                return False
            made.add((name, i))
    return True


def _refuse_circle(calls: Mapping[str, Calls], where: str) -> None:
    every = [((name, i), call) for name, own in calls.items() for i, call in enumerate(own)]
    waiting = {key: {(ref.layer, ref.call) for ref in call if ref.layer} for key, call in every}
    ready = [key for key, needs in waiting.items() if not needs & waiting.keys()]
    readers: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for key, needs in waiting.items():
        for need in needs:
            readers.setdefault(need, []).append(key)
    left = {key: len(needs & waiting.keys()) for key, needs in waiting.items()}
    while ready:
        key = ready.pop()
        del left[key]
        for reader in readers.get(key, ()):
            left[reader] -= 1
            if not left[reader]:
                ready.append(reader)
    if left:
        names = ", ".join(dict.fromkeys(name for name, _ in left))
        raise bad_config(f"The wiring goes in a circle: each of {names} waits for another of them", where)
