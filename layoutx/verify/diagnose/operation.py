"""One thing that a model does between layers, as a function of NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable

from layoutx.frozen import frozen
from layoutx.plan.plan import Array


@frozen
class Op:
    """One operation.

    Attributes:
        name: in words, "max pooling 2 by stride 2". group: operations that stand for one another ("pooling").
        apply: arrays of the layers before -> the array that is handed on. mode: the failure mode that a wrong one is.
        code: how torch says it, with `x` for what it is applied to.
    """

    name: str
    group: str
    apply: Callable[[Array], Array]
    mode: str = ""
    code: str = ""
