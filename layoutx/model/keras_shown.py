"""Layers that are called on plain numbers while a symbolic call runs: a table of positions, looked up at 0 to n."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def shown(held: Sequence[Any], keras: Any) -> Iterator[list[Any]]:
    """Calls of these layers on numbers leave a trace as symbolic ones do; otherwise nothing shows that they were made.

    Raises, in such a call: ValueError where there are no numbers, as keras.ops.arange gives for a length that is None.

    Yields:
        The symbols that stand for the numbers, filled while the calls are made.
    """
    numbers: list[Any] = []
    ours = [one for one in held if one.weights and "call" not in vars(one)]
    for one in ours:
        object.__setattr__(one, "call", _traced(one, one.call, numbers, keras))
    try:
        yield numbers
    finally:
        for one in ours:
            object.__delattr__(one, "call")


def _traced(one: Any, call: Callable[..., Any], numbers: list[Any], keras: Any) -> Callable[..., Any]:
    def again(*args: Any, **kwargs: Any) -> Any:
        if not args or not _plain(args[0], keras):
            return call(*args, **kwargs)
        if 0 in args[0].shape:
            raise ValueError("as many positions as an axis of unknown length has: none")
        symbol = keras.KerasTensor(tuple(args[0].shape), keras.backend.standardize_dtype(args[0].dtype))
        made = one(symbol, *args[1:], **kwargs)
        numbers.append(symbol)
        return made

    return again


def _plain(value: Any, keras: Any) -> bool:
    """Whether a value holds numbers: neither a symbol nor what a framework gives while it traces."""
    if isinstance(value, keras.KerasTensor) or not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return False
    try:
        keras.ops.convert_to_numpy(value)
    except Exception:  # each framework has an error of its own for values without numbers
        return False
    return True
