"""What a run must not leave behind: random states moved on, attributes changed."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from layoutx.model.alone import alone

Change = tuple[Any, str, Any]
MISSING = object()


@contextmanager
def same_random() -> Iterator[None]:
    """The random states of Python, NumPy and torch are afterwards what they were; no other run is inside meanwhile."""
    with ExitStack() as stack:
        stack.enter_context(alone())
        state, numbers = random.getstate(), np.random.get_state()
        torch = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "random"):
            stack.enter_context(torch.random.fork_rng())
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(numbers)


@contextmanager
def changed(changes: Iterable[Change]) -> Iterator[None]:
    """Attributes set to other values inside; every one is put back, past the objects' own `__setattr__`."""
    done: list[Change] = []
    try:
        for holder, name, value in changes:
            own = vars(holder)
            done.append((holder, name, own.get(name, MISSING)))
            if isinstance(holder, type):
                setattr(holder, name, value)
            else:
                object.__setattr__(holder, name, value)
        yield
    finally:
        for holder, name, value in reversed(done):
            if value is MISSING:
                delattr(holder, name) if isinstance(holder, type) else object.__delattr__(holder, name)
            elif isinstance(holder, type):
                setattr(holder, name, value)
            else:
                object.__setattr__(holder, name, value)
