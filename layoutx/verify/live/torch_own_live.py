"""What classes of the user's own compute that layoutx knows by running them, written with torch's functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PACKED, TURNED, SHIFTED = "PackedAttention", "TransposedLinear", "ShiftedRMSNorm"
OWNERS = (PACKED, TURNED, SHIFTED)
EPS = 1e-6  # Gemma's, where a config says nothing


def built(name: str, config: Mapping[str, Any], state: Mapping[str, Any]) -> Any:
    """A module with parameters of these names and shapes, that computes it; of attention its two layers."""
    from torch import nn

    if name != PACKED:
        return _single(name, config, state)
    layers = {}
    for part in ("in", "out"):
        own = {n.rpartition(".")[2]: value for n, value in state.items() if n.startswith(f"{part}_proj.")}
        layers[f"{part}_proj"] = _single(TURNED if config.get(f"{part}_turned") else "Linear", config, own)
    return nn.ModuleDict(layers)


def _single(name: str, config: Mapping[str, Any], state: Mapping[str, Any]) -> Any:
    import torch
    from torch import nn

    class Own(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for short, value in state.items():
                self.register_parameter(short, nn.Parameter(torch.empty_like(value)))

        def forward(self, x: Any) -> Any:
            if name == SHIFTED:
                root = torch.rsqrt(x.square().mean(-1, keepdim=True) + config.get("eps", EPS))
                return x * root * (config.get("shift", 1.0) + self.weight)
            made = x @ (self.weight if name == TURNED else self.weight.T)
            return made + self.bias if "bias" in state else made

    return Own()


def attended(module: Any, config: Mapping[str, Any], query: Any, key: Any, value: Any) -> Any:
    """Attention of the queries that the first layer makes of `query`, the keys of `key` and the values of `value`."""
    from torch.nn.functional import scaled_dot_product_attention

    heads, first = config["num_heads"], config.get("batch_first", True)

    def part(data: Any, at: int) -> Any:
        made = module["in_proj"](data if first else data.transpose(0, 1))
        if config.get("each_head"):
            return made.unflatten(-1, (heads, 3, -1)).select(-2, at).transpose(1, 2)
        return made.unflatten(-1, (3, heads, -1)).select(-3, at).transpose(1, 2)

    q, k, v = (part(data, at) for at, data in enumerate((query, key, value)))
    mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    made = module["out_proj"](mixed)
    return made if first else made.transpose(0, 1)
