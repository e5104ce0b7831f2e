"""What modules of the user's own classes do with their weights, found by running copies of them: names tell nothing.

A class of one's own with `weight` and `bias` may multiply from either side (GPT-2's Conv1D), and a square weight looks
the same for both; a norm of one's own may scale by one plus its weight (Gemma).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from layoutx.model.keyed import Module
from layoutx.model.torch_packed import packed

TURNED = "torch.TransposedLinear"
PLAIN, SHIFTED = "torch.RMSNorm", "torch.ShiftedRMSNorm"
MOST = 1 << 24  # numbers of a weight that is made up for a run
FAR = 1e-3  # relative: more than rounding of float32
LARGE, TINY = 100.0, 1e-6  # inputs of a norm beside which no eps counts, and beside which it is all that does
SEED = 20261122
Call = Callable[[Mapping[str, Any], Any], Any]  # parameters and an input -> what the module makes of it


def own_classes(module: Any, modules: Mapping[str, Module]) -> dict[str, Module]:
    """The modules of the user's own classes that are a form's, as copies of them show; the others as they are.

    Args:
        module: a live torch module; modules: what its classes tell, by path.
    """
    found = dict(modules)
    live = dict(module.named_modules())
    for path, form, config in _leaves({path: one for path, one in live.items() if not modules[path].form}):
        found[path] = replace(found[path], form=form, config=config)
    return {**found, **packed(live, found)}


def _leaves(own: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, form and config of modules with nothing but a weight, and perhaps a bias; each class is run once."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for path, one in own.items():
        held = {name: value for name, value in one._parameters.items() if value is not None}
        plain = held.keys() <= {"weight", "bias"} and "weight" in held and not one._modules and not one._buffers
        if plain and held["weight"].ndim in (1, 2) and all(size > 1 for size in held["weight"].shape):
            said = {k: v for k, v in vars(one).items() if isinstance(v, (bool, str, float, int)) and k != "training"}
            kept = [(k, v) for k, v in sorted(said.items()) if type(v) is not int or v not in held["weight"].shape]
            alike.setdefault((type(one), held["weight"].ndim, *held, *kept), []).append(path)
    for paths in alike.values():
        smallest = own[min(paths, key=lambda path: own[path].weight.numel())]
        form, config = _form(smallest) if smallest.weight.numel() <= MOST else ("", {})
        yield from ((path, form, config) for path in paths if form)


def _form(one: Any) -> tuple[str, dict[str, Any]]:
    """The form that a module computes, and its config; "" where that is unknown, or nothing that names do not tell."""
    import torch

    random = torch.Generator().manual_seed(SEED)
    held = {name: value for name, value in one._parameters.items() if value is not None}
    made = {name: torch.randn(value.shape, generator=random) for name, value in held.items()}
    copy = deepcopy(one, {id(value): value for value in held.values()}).eval()

    def call(weights: Mapping[str, Any], x: Any) -> Any:
        with torch.no_grad():
            return torch.func.functional_call(copy, dict(weights), (x,))

    try:
        turned = made["weight"].ndim == 2 and _turned(call, made, random)
        norm = _norm(call, made["weight"], random) if made["weight"].ndim == 1 and "bias" not in made else None
    except Exception:  # any code of the user's may run here
        return "", {}
    return (TURNED, {}) if turned else norm or ("", {})


def _turned(call: Call, made: Mapping[str, Any], random: Any) -> bool:
    """Whether each column of the weight makes one output, and not each row."""
    import torch

    weight = made["weight"]
    into, out = weight.shape
    x = torch.randn((3, into), generator=random)
    before = call(made, x)
    other = weight.clone()
    other[:, 0] += 1.0
    after = call({**made, "weight": other}, x)
    if tuple(before.shape) != (3, out):
        return False
    changed = (before - after).abs().amax(0) > FAR * before.abs().max()
    return bool(changed[0]) and not bool(changed[1:].any())


def _norm(call: Call, weight: Any, random: Any) -> tuple[str, dict[str, Any]] | None:
    """Whether it divides by the root of the mean square, and multiplies by its weight or by one plus its weight.

    Its eps is what a tiny input shows.
    """
    import torch

    x = LARGE * torch.randn((2, 3, len(weight)), generator=random)
    plain = x / x.square().mean(-1, keepdim=True).sqrt()
    for form, shift in ((PLAIN, 0.0), (SHIFTED, 1.0)):
        alike = (
            torch.allclose(call({"weight": one}, x), plain * (shift + one), rtol=FAR, atol=FAR)
            for one in (weight, torch.zeros_like(weight))
        )
        if all(alike):
            small = call({"weight": torch.ones_like(weight)}, torch.full((1, 1, len(weight)), TINY))
            ratio = TINY * (shift + 1) / float(small[0, 0, 0])
            return form, {"eps": float(f"{max(ratio**2 - TINY**2, 0):.3g}")}
    return None
