"""A torch module whose fused layers are several: a copy that computes the same, with a module for each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from layoutx.model.share import Share

NEAR = 1e-3  # of numbers of about 1, in whatever dtype the module has
SEED = 20261123


def with_parts(module: Any, chosen: Mapping[str, Sequence[Share]]) -> Any:
    """A copy with the layers of the fused ones beside them; all other parameters are the module's own.

    A layer that computes something else with its weights (a forward of its own, hooks) stays as it is.

    Args:
        chosen: path of a fused layer -> who has which of its outputs, all of them together.
    """
    import torch

    kept = {id(one): one for one in (*module.parameters(), *module.buffers())}
    copy = deepcopy(module, kept)
    for path, shares in chosen.items():
        above, _, name = path.rpartition(".")
        holder, fused = copy.get_submodule(above), copy.get_submodule(path)
        size = sum(share.groups * (share.stop - share.start) for share in shares)
        weight = fused.weight if fused.weight.shape[0] == size else fused.weight.T
        layers = [_layer(weight, fused.bias, torch.from_numpy(share.of(size))) for share in shares]
        order = torch.from_numpy(np.argsort(np.concatenate([share.of(size) for share in shares])))
        together = _together(fused, shares, layers, order)
        x = torch.randn((2, weight.shape[1]), generator=torch.Generator().manual_seed(SEED)).to(weight)
        with torch.no_grad():
            same = torch.allclose(fused(x), together(x), rtol=NEAR, atol=NEAR)
        if same:
            setattr(holder, name, together)
            for share, layer in zip(shares, layers, strict=True):
                if not share.name.isdigit():
                    setattr(holder, share.name, layer)
    return copy


def _layer(weight: Any, bias: Any, rows: Any) -> Any:
    """A Linear of some rows of another."""
    import torch

    layer = torch.nn.Linear(weight.shape[1], len(rows), bias is not None, device="meta")
    layer.weight = torch.nn.Parameter(weight.detach()[rows.to(weight.device)], requires_grad=False)
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias.detach()[rows.to(weight.device)], requires_grad=False)
    return layer


def _together(fused: Any, shares: Sequence[Share], layers: Sequence[Any], order: Any) -> Any:
    """What stands in the place of a fused layer and gives what it gave; holds the layers that have numbers alone."""
    import torch

    class Together(torch.nn.Module):  # type: ignore[misc]  # torch is not typed here
        def __init__(self) -> None:
            super().__init__()
            self.__dict__.update(weight=fused.weight, bias=fused.bias, beside=list(layers), order=order)
            for share, layer in zip(shares, layers, strict=True):
                if share.name.isdigit():
                    self.add_module(share.name, layer)

        def forward(self, x: Any) -> Any:
            made = torch.cat([layer(x) for layer in self.beside], -1)
            return made[..., self.order.to(made.device)]

    return Together()
