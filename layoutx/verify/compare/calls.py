"""A layer's calls in a recording, also where the layer is several modules of the framework."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from layoutx.verify.compare.alone import modules_of
from layoutx.verify.compare.pairs import Half
from layoutx.verify.recording import Call, Recording

WRAPPERS = ("Bidirectional",)
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def call_of(side: Half, recording: Recording, number: int) -> Call | None:
    """The layer's call of that number; of several modules: what went into the first and came out of the last."""
    names = modules_of(side)
    if len(names) == 1:
        return recording.of(names[0], number)
    calls = [recording.of(name, number) for name in names]
    made = [call for call in calls if call is not None]
    if len(made) != len(calls):
        return None
    first = _projections(made) if side.bound.kind.name == "attention" else made[:1]
    inputs = tuple(call.inputs[0] for call in first if call.inputs)
    return Call(side.name, side.bound.form.name, inputs, made[-1].outputs, ("",) * len(inputs), number)


def _projections(calls: Sequence[Call]) -> list[Call]:
    by_end = {call.layer.rpartition(".")[2]: call for call in calls}
    return [by_end[end] for end in PROJECTIONS if end in by_end] or list(calls[:1])


def count(side: Half, recording: Recording) -> int:
    """How often the layer was called."""
    first = modules_of(side)[0]
    return sum(call.layer == first for call in recording.calls)


def position(side: Half, recording: Recording, number: int) -> int:
    """Where the layer's call ended in the recording; -1 where it was not called."""
    last = modules_of(side)[-1]
    found = [i for i, call in enumerate(recording.calls) if call.layer == last and call.number == number]
    return found[0] if found else -1


def inner(recording: Recording) -> Iterator[Call]:
    """All calls but those of containers, whose layers have calls of their own; a wrapper is one layer."""
    names = {call.layer: call.class_name for call in recording.calls}
    parts: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
        for holder in _holders(name):
            if holder in parts:
                parts[holder].append(name)
    wrapped = {part for name, own in parts.items() if names[name] in WRAPPERS for part in own}
    for call in recording.calls:
        own = parts[call.layer]
        if call.class_name in WRAPPERS and own:
            yield replace(call, class_name=f"{call.class_name}.{names[own[0]]}")
        elif not own and call.layer not in wrapped:
            yield call


def between(recording: Recording, start: int, end: int, paired: Collection[str]) -> tuple[str, ...]:
    """Layers without a counterpart that were called between two places: `pool (MaxPooling2D)`; no containers."""
    end = len(recording.calls) if end < 0 else end
    inside = {(call.layer, call.number) for call in recording.calls[start + 1 : end]}
    parts = tuple(name for name in paired if name)
    return tuple(
        f"{call.layer} ({call.class_name})"
        for call in inner(recording)
        if (call.layer, call.number) in inside
        and call.layer not in paired
        and not call.layer.startswith(tuple(f"{p}/" for p in parts))
    )


def _holders(name: str) -> Iterator[str]:
    """The names of all that may hold a layer: `` and `a` and `a/b` for `a/b.c`."""
    if name:
        yield ""
    yield from (name[:at] for at, letter in enumerate(name) if at and letter in "./")
