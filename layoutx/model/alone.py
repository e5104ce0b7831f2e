"""One thread at a time: what reading or running a model changes in its framework, it changes for the whole process.

torch.fx puts itself in the place of `Module.__call__` while it traces, a recording in the place of Keras' `__call__`; a
run in float64 sets the default dtype. Two at once would each put back what the other had set, and leave it behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

_lock = RLock()


@contextmanager
def alone() -> Iterator[None]:
    """Nobody else in this process is inside meanwhile, this thread as often as it likes; also a decorator."""
    with _lock:
        yield


def _renew() -> None:
    """In a fork of this process: who held the lock is in the other."""
    global _lock
    _lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
