"""Layers that are several in one (qkv, gate and up), as these: where another model has them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Any

from layoutx.errors import UsageError
from layoutx.files.stacked import rows_of
from layoutx.files.store import Tensor
from layoutx.model.keyed import Keyed, prefixes, wired
from layoutx.model.record import ModelRecord
from layoutx.model.said import PARTS
from layoutx.model.share import Share

LINEAR, TURNED = "torch.Linear", "torch.TransposedLinear"
OWN = {"weight", "bias"}


def unfused(keyed: Keyed | ModelRecord, other: Keyed | ModelRecord) -> Keyed | ModelRecord:
    """The model with a layer for each part of those that the other model has apart; itself where there are none."""
    from layoutx.model.torch_flow import followed
    from layoutx.model.torch_unfused import taken_apart

    chosen = fused_there(keyed, other)
    told = keyed.dealt() if chosen and isinstance(keyed, Keyed) and keyed.dealt is not None else None
    if told is None or not isinstance(keyed, Keyed):
        return keyed
    apart = _apart(keyed, chosen)
    shapes = {name: tensor.shape for name, tensor in apart.tensors.items()}
    return wired(apart, lambda: followed(taken_apart(told[0], chosen), shapes))


def fused_there(keyed: Keyed | ModelRecord, other: Keyed | ModelRecord) -> dict[str, tuple[Share, ...]]:
    """Path of each layer that is several which the other model has apart -> the outputs of each.

    A layer is left whole where the other model has as many tensors of its size: it is fused there too.
    """
    told = keyed.dealt() if isinstance(keyed, Keyed) and keyed.dealt is not None else None
    if told is None or not isinstance(keyed, Keyed):
        return {}
    here, there = _sizes(keyed), _sizes(other)
    chosen = {}
    for path, shares in told[1].items():
        weight = keyed.tensors.get(f"{path}.weight")
        if weight is None or not _plain(keyed, path, weight):
            continue
        out = weight.shape[_axis(keyed, path)]
        parts = [share.groups * (share.stop - share.start) * (weight.size // out) for share in shares]
        taken = {share.at(path) for share in shares} & keyed.modules.keys()
        if not taken and there[weight.size] < here[weight.size] and all(there[size] for size in parts):
            chosen[path] = shares
    return chosen


def said_apart(keyed: Keyed, values: Mapping[str, Any]) -> Keyed:
    """The model with the layers apart of which the user says so; itself where there are none.

    Args:
        values: `{"h.*.attn.qkv.parts": "query 6, key 6, value 6"}`: how many rows each of them has, one behind the
            other, and so again in each group of rows until all are dealt out.

    Raises:
        UsageError: no such text, or rows that do not come out even.
    """
    said = {key.rpartition(".")[0]: value for key, value in values.items() if key.rpartition(".")[2] == PARTS}
    if not said:
        return keyed
    chosen = {}
    for path in prefixes(keyed.tensors):
        for pattern, text in said.items():
            if fnmatchcase(path, pattern) and _matrix(keyed, path) is not None:
                matrix = _matrix(keyed, path)
                chosen[path] = shares(path, matrix.shape[_axis(keyed, path)] if matrix is not None else 0, text)
    return _apart(keyed, chosen) if chosen else keyed


def shares(path: str, size: int, text: Any) -> tuple[Share, ...]:
    """What the user said of one layer, of so many outputs.

    Raises:
        UsageError: no names and numbers of rows, or rows that do not come out even.
    """
    runs = [one.split() for one in str(text).split(",")]
    do = f"say how many rows each has: --set '{path}.{PARTS}=query 6, key 6, value 6'"
    if not all(len(run) == 2 and run[1].isdigit() and int(run[1]) for run in runs) or len({r[0] for r in runs}) < 2:
        raise UsageError(f"{path}.{PARTS} does not name parts: {text!r}", do=do)
    ends = list(accumulate(int(many) for _, many in runs))
    if size % ends[-1]:
        raise UsageError(f"{path} has {size} rows, which {ends[-1]} do not divide", why=f"its parts are {text}", do=do)
    starts = zip((name for name, _ in runs), (0, *ends), ends, strict=False)
    return tuple(Share(name, size // ends[-1], start, stop) for name, start, stop in starts)


def _matrix(keyed: Keyed, path: str) -> Tensor | None:
    """The one matrix of a layer."""
    own = [keyed.tensors[full] for name, full in keyed.under(path).items() if "." not in name]
    found = [tensor for tensor in own if len(tensor.shape) == 2]
    return found[0] if len(found) == 1 and len(own) <= 2 else None


def _sizes(model: Keyed | ModelRecord) -> Counter[int]:
    """How many layers have a matrix of how many numbers."""
    held = model.layers if isinstance(model, ModelRecord) else (model,)
    return Counter(t.size for one in held for t in one.tensors.values() if len(t.shape) > 1)


def _plain(keyed: Keyed, path: str, weight: Tensor) -> bool:
    """Whether a layer is one matrix, and perhaps a bias, of its own: no part of a larger form, and nobody else's."""
    names = keyed.under(path)
    form = keyed.modules[path].form if path in keyed.modules else ""
    mine = names.keys() <= OWN and not any(full in keyed.tied or full in keyed.tied.values() for full in names.values())
    return mine and form in (LINEAR, TURNED, "") and len(weight.shape) == 2 and not keyed.inside(path)


def _axis(keyed: Keyed, path: str) -> int:
    """Along which axis of its matrix a layer's outputs lie: as its class, else its bias, else its framework tells."""
    form = keyed.modules[path].form if path in keyed.modules else ""
    matrix, names = _matrix(keyed, path), keyed.under(path).values()
    if form in (LINEAR, TURNED) or matrix is None:
        return int(form == TURNED)
    bias = next((keyed.tensors[n].shape for n in names if len(keyed.tensors[n].shape) == 1), ())
    fits = [axis for axis in (0, 1) if bias == (matrix.shape[axis],)]
    return fits[0] if len(fits) == 1 else int(keyed.framework != "torch")


def _apart(keyed: Keyed, chosen: Mapping[str, Sequence[Share]]) -> Keyed:
    """The parts one after the other, where the layer stood."""
    made = {path: _layers(keyed, path, shares) for path, shares in chosen.items()}
    tensors: dict[str, Tensor] = {}
    modules, store = dict(keyed.modules), keyed.store
    for name, tensor in keyed.tensors.items():
        path = name.rpartition(".")[0]
        tensors |= made.get(path, {name: tensor})
    for path in chosen.keys() & modules.keys():
        modules |= {share.at(path): replace(modules[path], config={}) for share in chosen[path]}
        modules[path] = replace(modules[path], form="", config={})
    if store is not None:
        parts: dict[str, dict[str, Tensor]] = {}
        for tensor in tensors.values():
            if tensor.part is not None:
                parts.setdefault(tensor.part.whole.name, {})[tensor.name] = tensor
        kept = {n: t for name, one in store.tensors.items() for n, t in parts.get(one.name, {name: one}).items()}
        store = replace(store, tensors=kept)
    return replace(keyed, tensors=tensors, modules=modules, store=store, dealt=None)


def _layers(keyed: Keyed, path: str, shares: Sequence[Share]) -> dict[str, Tensor]:
    """The tensors of the layers that one is: full name -> rows of the stored one, layer by layer."""
    runs = [(share.groups, share.start, share.stop) for share in shares]
    found: dict[tuple[int, str], Tensor] = {}
    for last, full in keyed.under(path).items():
        tensor = keyed.tensors[full]
        own = rows_of(tensor, _axis(keyed, path) if len(tensor.shape) == 2 else 0, runs)
        found |= {(at, last): one for at, one in enumerate(own)}
    return {f"{shares[at].at(path)}.{last}": found[at, last] for at, last in sorted(found, key=lambda key: key[0])}
