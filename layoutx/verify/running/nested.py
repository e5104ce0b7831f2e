"""Arguments and results of a call: nested values as a flat list of tensors, and put together again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from layoutx.frozen import frozen

IsTensor = Callable[[Any], bool]


@frozen
class Place:
    """Where tensor number `index` stood."""

    index: int


@frozen
class Arguments:
    """What one call was given.

    Attributes:
        tensors: positional ones in order, then those given by keyword; nested ones flattened.
        names: the keyword of each, "" for positional ones.
        args, kwargs: the call's arguments with a `Place` for each tensor; flags stand as they are.
    """

    tensors: tuple[Any, ...]
    names: tuple[str, ...]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def form(self) -> Arguments:
        """The same without the tensors: how a layer is called."""
        return Arguments((), self.names, self.args, self.kwargs)

    def filled(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The call's arguments with these tensors in their places."""
        args = tuple(_filled(value, tensors) for value in self.args)
        return args, {key: _filled(value, tensors) for key, value in self.kwargs.items()}


def arguments(args: Sequence[Any], kwargs: Mapping[str, Any], is_tensor: IsTensor) -> Arguments:
    """The arguments of a call, taken apart."""
    found: list[Any] = []
    places = tuple(_emptied(value, is_tensor, found) for value in args)
    names = [""] * len(found)
    keywords = {}
    for key, value in kwargs.items():
        keywords[key] = _emptied(value, is_tensor, found)
        names += [key] * (len(found) - len(names))
    return Arguments(tuple(found), tuple(names), places, keywords)


def flattened(value: Any, is_tensor: IsTensor) -> Iterator[Any]:
    """All tensors in a result, in order: those of tuples, lists, mappings and dataclasses."""
    if is_tensor(value):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from flattened(item, is_tensor)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from flattened(item, is_tensor)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for each in dataclasses.fields(value):
            yield from flattened(getattr(value, each.name), is_tensor)


def _emptied(value: Any, is_tensor: IsTensor, found: list[Any]) -> Any:
    if is_tensor(value):
        found.append(value)
        return Place(len(found) - 1)
    if type(value) is dict:
        return {key: _emptied(item, is_tensor, found) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return _like(value, [_emptied(item, is_tensor, found) for item in value])
    return value


def _filled(value: Any, tensors: Sequence[Any]) -> Any:
    if isinstance(value, Place):
        return tensors[value.index]
    if type(value) is dict:
        return {key: _filled(item, tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return _like(value, [_filled(item, tensors) for item in value])
    return value


def _like(value: Any, items: list[Any]) -> Any:
    """A list, a tuple or a named tuple of these items."""
    if hasattr(value, "_fields"):
        return type(value)._make(items)  # a packed sequence of torch refuses places in its constructor
    return tuple(items) if isinstance(value, tuple) else items
