"""The calls of one run as they are seen, and as a recording holds them: numbered where a layer is called again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.recording import Call
from layoutx.verify.running.nested import Arguments, IsTensor, arguments, flattened
from layoutx.verify.running.untouched import changed


@frozen
class Event:
    """One call of one layer that has ended; `given` says how it was called."""

    layer: str
    class_name: str
    given: Arguments
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


def calls_of(events: Sequence[Event]) -> tuple[Call, ...]:
    """The calls with their numbers: 0 for a layer's first, 1 for its second."""
    counts: dict[str, int] = {}
    calls = []
    for event in events:
        number = counts.get(event.layer, 0)
        counts[event.layer] = number + 1
        calls.append(Call(event.layer, event.class_name, event.inputs, event.outputs, event.given.names, number))
    return tuple(calls)


def seen_form(events: Sequence[Event], layer: str, names: tuple[str, ...]) -> Arguments | None:
    """How the last run called a layer, where it gave it as many tensors under the same keywords."""
    return next((e.given for e in events if e.layer == layer and e.given.names == names), None)


@contextmanager
def watched(modules: Mapping[str, Any], is_tensor: IsTensor, array: Callable[[Any], Array]) -> Iterator[list[Event]]:
    """The calls of these modules inside, seen at the `__call__` of their classes.

    Args:
        modules: name -> module; a module of several names goes by its first.
        is_tensor: whether a value holds numbers (tracers of a loop do not); array: such a value as an array.
    """
    names: dict[int, str] = {}
    for name, module in modules.items():
        names.setdefault(id(module), name)
    events: list[Event] = []
    open_: list[Any] = []

    def replaced(original: Any) -> Any:
        def call(module: Any, *args: Any, **kwargs: Any) -> Any:
            own = original.__get__(module, type(module))
            if id(module) not in names or (open_ and open_[-1] is module):
                return own(*args, **kwargs)
            given = arguments(args, kwargs, is_tensor)
            inputs = tuple(array(t) for t in given.tensors)
            open_.append(module)
            try:
                result = own(*args, **kwargs)
            finally:
                open_.pop()
            outputs = tuple(array(t) for t in flattened(result, is_tensor))
            if outputs:
                events.append(Event(names[id(module)], type(module).__name__, given.form(), inputs, outputs))
            return result

        return call

    homes = dict.fromkeys(c for m in modules.values() for c in type(m).__mro__ if "__call__" in vars(c))
    with changed([(c, "__call__", replaced(vars(c)["__call__"])) for c in homes]):
        yield events
