"""The same script with torch's permute and contiguous.

python -m benching.script_torch SOURCE.weights.h5 PLAN.json OUT.safetensors
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import torch
from safetensors.torch import save_file

source, plan, out = sys.argv[1:]


def tensor(dataset: Any) -> torch.Tensor:
    """A dataset as a tensor; Keras stores bfloat16 as two bytes without a meaning."""
    array = dataset[...]
    return (
        torch.from_numpy(array.view("u2")).view(torch.bfloat16) if array.dtype.kind == "V" else torch.from_numpy(array)
    )


def moved(entry: dict[str, Any], parts: list[torch.Tensor]) -> torch.Tensor:
    """As `by_hand.moved`."""
    how = entry["how"]
    if how == "matrix":
        return parts[0].t().contiguous()
    if how == "conv":
        return parts[0].permute(3, 2, 0, 1).contiguous()
    if how == "fused":
        return torch.cat([part.reshape(part.shape[0], -1).t() for part in parts]).contiguous()
    if how == "fused bias":
        return torch.cat([part.reshape(-1) for part in parts])
    if how == "heads":
        return parts[0].reshape(-1, parts[0].shape[-1]).t().contiguous()
    if how in ("zeros", "count"):
        return torch.zeros(entry["shape"], dtype=getattr(torch, entry["dtype"]))
    return parts[0]


started = time.perf_counter()
with h5py.File(source) as file:
    entries = json.loads(Path(plan).read_text(encoding="utf-8"))["entries"]
    tensors = {entry["name"]: moved(entry, [tensor(file[path]) for path in entry["paths"]]) for entry in entries}
save_file(tensors, out)
print(time.perf_counter() - started)
