"""How far a long job is: loops tell it here, and whoever asked for it is called; nobody else hears anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Progress = Callable[[int, int, str], None]
T = TypeVar("T")
_LISTENER: ContextVar[Progress | None] = ContextVar("layoutx_progress", default=None)


def tell(done: int, many: int, what: str) -> None:
    """Say that `done` of `many` parts are done, and what comes now; `many` is 0 where nobody knows it."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(done, many, what)


def steps(items: Iterable[T], what: Callable[[T], str]) -> Iterator[T]:
    """The items of a loop, each told before it is worked on."""
    every = list(items)
    for number, item in enumerate(every):
        tell(number, len(every), what(item))
        yield item


@contextmanager
def heard(listener: Progress | None) -> Iterator[None]:
    """What is told inside goes to this listener; None leaves the one that there is."""
    token = _LISTENER.set(listener) if listener is not None else None
    try:
        yield
    finally:
        if token is not None:
            _LISTENER.reset(token)
