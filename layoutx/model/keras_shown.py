"""What layers in a layer of the user's own need to be called on symbols: shapes, numbers among symbols, no results.

A table of positions is looked up at plain numbers; a layer returns a cache that is None; attention takes one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import MethodType
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
        with ExitStack() as stack:
            stack.enter_context(_told_by_call(held, keras))
            stack.enter_context(_with_none(keras))
            yield numbers
    finally:
        for one in ours:
            object.__delattr__(one, "call")


def numbers_as_symbols(outputs: Sequence[Any], numbers: list[Any], keras: Any) -> list[Any]:
    """What a call gave, a symbol for what comes from no input of it; those are told to `numbers`. None is nothing."""
    found = []
    for x in outputs:
        if not isinstance(x, keras.KerasTensor) and keras.ops.is_tensor(x):
            x = keras.KerasTensor(tuple(x.shape), keras.backend.standardize_dtype(x.dtype))
            numbers.append(x)
        found += [x] if isinstance(x, keras.KerasTensor) else []
    return found


@contextmanager
def _with_none(keras: Any) -> Iterator[None]:
    """Layers may give None beside their tensors (a cache that is not used), which Keras refuses in a symbolic call."""
    homes: list[Any] = [sys.modules.get(f"keras.src.{name}") for name in ("layers.layer", "ops.operation")]
    ours = [home for home in homes if hasattr(home, "Node")]

    def lenient(node: Any) -> Any:
        def made(*args: Any, outputs: Any = None, **kwargs: Any) -> Any:
            kept = [x for x in keras.tree.flatten(outputs) if isinstance(x, keras.KerasTensor)]
            return node(*args, outputs=kept, **kwargs)

        return made

    before = [home.Node for home in ours]
    for home, node in zip(ours, before, strict=True):
        home.Node = lenient(node)
    try:
        yield
    finally:
        for home, node in zip(ours, before, strict=True):
            home.Node = node


@contextmanager
def _told_by_call(held: Sequence[Any], keras: Any) -> Iterator[None]:
    """Layers with a `call` of the user's own, and the output shapes of Keras' class, tell them by that call.

    A cache among the arguments (of a subclass of MultiHeadAttention) is none that Keras' own shapes are told of.
    """
    spec = keras.Operation.compute_output_spec
    ours = [
        one
        for one in held
        if not type(one).call.__module__.startswith("keras.src")
        and type(one).compute_output_spec.__module__.startswith("keras.src")
        and type(one).compute_output_spec is not keras.layers.Layer.compute_output_spec
    ]
    for one in ours:
        object.__setattr__(one, "compute_output_spec", MethodType(spec, one))
    try:
        yield
    finally:
        for one in ours:
            object.__delattr__(one, "compute_output_spec")


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
