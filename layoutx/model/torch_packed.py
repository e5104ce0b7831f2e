"""Attention that packs its projections (qkv and proj, c_attn and c_proj), in a class of the user's own: found by a run.

What the class does between its two layers is looked at alone: the first one hands on random numbers, and the second
one has to be given the attention of the queries, keys and values in them. Which rows are which, and how many heads
there are, is what makes that true.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from inspect import Parameter, signature
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from layoutx.files.dtypes import Array
from layoutx.model.keyed import Module

FORM = "torch.PackedAttention"
LINEAR, TURNED = "torch.Linear", "torch.TransposedLinear"
BATCH, TIME = 2, 5
NEAR = 1e-4
SEED = 20261122


class _Two(NamedTuple):
    """Paths of the two layers below their attention, what the first one reads, and the second."""

    first: str
    second: str
    into: int
    width: int


class _Reached(Exception):  # noqa: N818
    """The second layer was given its data: what it makes of them does not count."""

    def __init__(self, given: Any) -> None:
        self.given = given


def packed(live: Mapping[str, Any], modules: Mapping[str, Module]) -> dict[str, Module]:
    """Every attention with two layers: path -> its form, options, and where its tensors are.

    Args:
        live: path -> module; modules: what is known of them, those that multiply by their weight among it.
    """
    found: dict[str, Module] = {}
    for path in sorted(live, key=lambda path: -path.count(".")):
        held = _held(path, live[path], modules) if not modules[path].form else None
        if held is None or any(other.startswith(f"{path}." if path else "") for other in found):
            continue
        config = _config(live[path], held)
        if config is not None:
            sides = [
                (part, f"{path}.{own}" if path else own) for part, own in zip(("in", "out"), held[:2], strict=True)
            ]
            has = {part: {n for n, p in live[own]._parameters.items() if p is not None} for part, own in sides}
            if any(names - {"bias"} != {"weight"} for names in has.values()):  # stored in parts, pruned
                continue
            config |= {f"{part}_turned": modules[own].form == TURNED for part, own in sides}
            config |= {f"{part}_bias": "bias" in has[part] for part, _ in sides}
            names = {f"{part}_proj.{short}": f"{own}.{short}" for part, own in sides for short in has[part]}
            found[path] = replace(modules[path], form=FORM, config=config, names=names)
    return found


def _held(path: str, module: Any, modules: Mapping[str, Module]) -> _Two | None:
    """The two layers of a module that holds nothing else, where the first makes three times what the second reads."""
    start = f"{path}." if path else ""
    inside = {name: one for name, one in module.named_modules() if name}
    if any(start + name not in modules for name in inside):  # torch lists a module of two names once
        return None
    linear = [name for name in inside if modules[start + name].form in (LINEAR, TURNED)]
    if len(linear) != 2 or len(list(module.parameters())) != sum(len(list(inside[n].parameters())) for n in linear):
        return None
    sizes = {name: tuple(inside[name].weight.shape) for name in linear}
    sizes = {n: shape[::-1] if modules[start + n].form == TURNED else shape for n, shape in sizes.items()}
    for first, second in (linear, linear[::-1]):
        (out, into), (_, width) = sizes[first], sizes[second]
        if out == 3 * width:
            return _Two(first, second, into, width)
    return None


def _config(module: Any, held: _Two) -> dict[str, Any] | None:
    """The options under which the module attends; None where it does something else, or cannot be run."""
    import torch

    device = next((p.device for p in module.parameters() if not p.is_meta), torch.device("cpu"))
    given = torch.randn((BATCH, TIME, 3 * held.width), generator=torch.Generator().manual_seed(SEED)).to(device)
    seen = _seen(module, held, given)
    if seen is None or seen.numel() != BATCH * TIME * held.width:
        return None
    data = given.cpu().numpy().astype(np.float64)
    reached = seen.detach().cpu().double().numpy().reshape(BATCH, TIME, held.width)
    said = {value for value in vars(module).values() if type(value) is int}  # the likeliest first: it saves time
    heads = sorted((n for n in range(1, held.width + 1) if held.width % n == 0), key=lambda n: n not in said)
    for many, batch_first, each, causal in product(heads, (True, False), (False, True), (True, False)):
        wanted = _attended(data if batch_first else data.swapaxes(0, 1), many, each, causal)
        wanted = wanted if batch_first else wanted.swapaxes(0, 1)
        if np.allclose(reached, wanted, rtol=NEAR, atol=NEAR):
            return {"num_heads": many, "each_head": each, "causal": causal, "batch_first": batch_first}
    return None


def _seen(module: Any, held: _Two, given: Any) -> Any:
    """What the second layer of a copy is given where the first hands on `given`; None where it is not reached."""
    import torch

    def reached(x: Any, *_: Any, **__: Any) -> Any:
        raise _Reached(x)

    try:
        copy = deepcopy(module, {id(value): value for value in module.parameters()}).eval()
        inner = dict(copy.named_modules())
        inner[held.first].forward = lambda x, *_, **__: given.reshape(*x.shape[:-1], given.shape[-1])
        inner[held.second].forward = reached
        asked = list(signature(copy.forward).parameters.values())[1:]
        more = [None for p in asked if p.default is Parameter.empty and p.kind is Parameter.POSITIONAL_OR_KEYWORD]
        with torch.no_grad():
            copy(torch.zeros((BATCH, TIME, held.into), device=given.device), *more)  # no mask, where it asks for one
    except _Reached as found:
        return found.given if isinstance(found.given, torch.Tensor) else None
    except Exception:  # any code of the user's may run here
        return None
    return None


def _attended(given: Array, heads: int, each: bool, causal: bool) -> Array:
    """softmax(q k / sqrt(size)) v for each head; queries, keys and values lie by kind, or head by head."""
    sizes = (heads, 3, -1) if each else (3, heads, -1)
    parts = np.moveaxis(given.reshape(*given.shape[:2], *sizes), 3 if each else 2, 0)
    q, k, v = (part.transpose(0, 2, 1, 3) for part in parts)
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
    if causal:
        scores = np.where(np.tri(scores.shape[-1], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = weights / weights.sum(-1, keepdims=True) @ v
    made: Array = mixed.transpose(0, 2, 1, 3).reshape(*given.shape[:2], -1)
    return made
