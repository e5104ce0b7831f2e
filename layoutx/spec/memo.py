"""What follows from frozen objects and plain values alone is worked out once: kept by identity and by value."""

from __future__ import annotations

import gc
import marshal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


def key_of(*values: Any) -> bytes | None:
    """Plain values (texts, numbers, lists, dicts of them) as one key; None where another object is among them.

    Unlike `hash` and `==` it tells 1, 1.0 and True apart, and takes dicts and lists.
    """
    try:
        return marshal.dumps(values, 2)  # from version 3 on the bytes depend on how often an object is referred to
    except ValueError:
        return None


@contextmanager
def uncollected() -> Iterator[None]:
    """While thousands of objects are made that all stay, nobody looks for garbage among them: it takes as long.

    Nor at once when they are made: they go among the old ones, where all is looked at now and then.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if not gc.get_freeze_count():  # what somebody else has frozen stays so
                gc.freeze()
                gc.unfreeze()
            gc.enable()


class Memo(Generic[Value]):
    """Values by the identity of their owners and by a key; at most so many, then it begins anew."""

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._found: dict[tuple[Any, ...], tuple[tuple[object, ...], Value]] = {}

    def get(self, owners: tuple[object, ...], key: bytes | None, make: Callable[[], Value]) -> Value:
        """The value that was made for these very objects and this key, or a new one; never kept for the key None.

        Args:
            owners: frozen objects from which the value follows, and which are never changed.
        """
        if key is None:
            return make()
        at = (key, *map(id, owners))
        known = self._found.get(at)
        if known is not None:
            return known[1]
        value = make()
        if len(self._found) >= self._most:
            self._found.clear()
        self._found[at] = (owners, value)  # while the owners are kept here, no other object has their ids
        return value
