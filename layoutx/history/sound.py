"""What the texts of a history have to hold, checked once before anything relies on it: the file may be a stranger's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from layoutx.errors import FileError
from layoutx.files.dtypes import is_numeric
from layoutx.history.frames import NOTE, STEP, Frame
from layoutx.history.summary import MEASURES
from layoutx.history.watched import dtype_of

Check = Callable[[Any], bool]


def text(value: Any) -> bool:
    return isinstance(value, str)


def whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 1 << 62)


def one_of(*values: Any) -> Check:
    return lambda value: any(type(value) is type(one) and value == one for one in values)


def all_of(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def known(name: Any) -> bool:
    """Whether it is a dtype of plain numbers."""
    try:
        found = dtype_of(name) if text(name) else None
    except (AttributeError, TypeError, ValueError):
        return False
    return found is not None and is_numeric(found)


HEAD: Mapping[str, Check] = {
    "framework": text,
    "what": one_of("all", "summary"),
    "layers": all_of(lambda value: isinstance(value, dict)),
    "slots": all_of(lambda value: isinstance(value, dict)),
}
LAYER: Mapping[str, Check] = dict.fromkeys(("name", "class", "form"), text)
SLOT: Mapping[str, Check] = {
    **dict.fromkeys(("layer", "name", "key", "about"), text),
    **dict.fromkeys(("shape", "kept"), all_of(whole)),
    "axes": all_of(text),
    "stored": known,
    "state": one_of(True, False),
    "unit": lambda value: value is None or whole(value),
    "nbytes": whole,
}
MOMENT: Mapping[str, Check] = {
    **dict.fromkeys(("step", "epoch"), whole),
    "time": number,
    "logs": lambda value: isinstance(value, dict) and all(map(number, value.values())),
    "measures": all_of(all_of(lambda value: value is None or number(value))),
    "crc": all_of(whole),
}


def check(frames: Sequence[Frame], path: Path) -> None:
    """Refuse a history whose texts do not say what its writer says.

    Raises:
        FileError: with the first thing that is missing or something else.
    """
    for wrong in _wrong(frames):
        raise FileError(
            f"{path.name} is not a history that layoutx wrote", where=str(path), why=wrong, do="record it again"
        )


def _wrong(frames: Sequence[Frame]) -> Iterator[str]:
    head = frames[0].text
    yield from _fields(head, HEAD, "its head")
    for at, layer in enumerate(head["layers"]):
        yield from _fields(layer, LAYER, f"layer {at}")
    for at, slot in enumerate(head["slots"]):
        yield from _slot(slot, f"tensor {at}")
    size, count = sum(slot["nbytes"] for slot in head["slots"]), len(head["slots"])
    for at, frame in enumerate(frames):
        if frame.kind == STEP:
            yield from _fields(frame.text, MOMENT, f"moment {at}")
            same = len(frame.text["measures"]) == len(frame.text["crc"]) == count
            if not same or any(len(one) != len(MEASURES) for one in frame.text["measures"]):
                yield f"moment {at} has not {len(MEASURES)} numbers of each of {count} tensors"
            if frame.end - frame.start != size:
                yield f"moment {at} holds {frame.end - frame.start} bytes, and {size} are said"
        elif frame.kind == NOTE:
            yield from _fields(frame.text, {"text": text}, f"note {at}")


def _fields(found: Mapping[str, Any], fields: Mapping[str, Check], where: str) -> Iterator[str]:
    for key, right in fields.items():
        if key not in found:
            yield f"{where} has no {key}"
        elif not right(found[key]):
            yield f"{where}: {key} is {str(found[key])[:40]!r}"


def _slot(slot: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from _fields(slot, SLOT, where)
    if len(slot["axes"]) != len(slot["shape"]) or not (slot["unit"] is None or slot["unit"] < len(slot["shape"])):
        yield f"{where} has other axes than its shape"
    if slot["nbytes"] != prod(slot["kept"]) * dtype_of(slot["stored"]).itemsize:
        yield f"{where} has another size than its shape"
