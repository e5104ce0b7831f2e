"""From which row on a torch module reads its tables of positions: seen in a run on numbers, of a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.running.torch_run import TorchRunner
from layoutx.verify.running.torch_watch import calm, is_tensor, tensor

OFFSET = "offset"


def first_rows(module: Any, inputs: Sequence[Array], keywords: Sequence[str] = ()) -> dict[str, dict[str, int]] | None:
    """Path of each Embedding that is read row by row, each row the one after the last -> the first of them.

    Ids are all the largest one that is given, so that none of them is padding, which has no position.

    Args:
        keywords: the argument of each input; () where they are given by position.

    Returns:
        {path: {"offset": row}}; None where a copy does not run on these inputs.
    """
    try:
        return _run(TorchRunner(module).copy(False), [_alike(one) for one in inputs], keywords)
    except Exception:  # any code of the user's may run here
        return None


def _alike(given: Array) -> Array:
    whole = np.issubdtype(given.dtype, np.integer) and given.size
    return np.full_like(given, given.max()) if whole else given


def _run(model: Any, inputs: Sequence[Array], keywords: Sequence[str]) -> dict[str, dict[str, int]]:
    import torch
    from torch.overrides import TorchFunctionMode

    paths = {id(one.weight): path for path, one in model.named_modules() if isinstance(one, torch.nn.Embedding)}
    rows: dict[str, set[int | None]] = {}

    class Watch(TorchFunctionMode):  # type: ignore[misc]  # torch is not typed here
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
        ) -> Any:
            if getattr(func, "__name__", "") == "embedding" and len(args) > 1 and id(args[1]) in paths:
                rows.setdefault(paths[id(args[1])], set()).add(_first(args[0].detach().cpu().numpy()))
            return func(*args, **(kwargs or {}))

    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    device = next((p.device for p in model.parameters()), "cpu")
    given = [tensor(array, kind, device) for array in inputs]
    if not all(map(is_tensor, given)):  # what no tensor holds tells no rows
        return {}
    with calm(False), Watch():
        model(**dict(zip(keywords, given, strict=True))) if keywords else model(*given)
    return {path: {OFFSET: first} for path, (first, *more) in rows.items() if not more and first}


def _first(ids: Array) -> int | None:
    """The first of rows that follow each other along the last axis, the same for all samples; None of others."""
    if ids.ndim == 0 or ids.shape[-1] < 2 or not np.issubdtype(ids.dtype, np.integer):
        return None
    first = int(ids.reshape(-1)[0])
    return first if (ids == first + np.arange(ids.shape[-1])).all() else None
