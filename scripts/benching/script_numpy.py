"""The script that people write today: read with h5py, transpose, make contiguous, save with safetensors.

python -m benching.script_numpy SOURCE.weights.h5 PLAN.json OUT.safetensors numpy|torch

numpy or torch: which of safetensors' two writers; the second one imports torch.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from benching.by_hand import moved

source, plan, out, writer = sys.argv[1:]
if writer == "torch":
    import torch
    from safetensors.torch import save_file
else:
    from safetensors.numpy import save_file


def as_torch(array: Any) -> Any:
    """A torch tensor on the same memory; torch takes no bfloat16 of NumPy."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


started = time.perf_counter()
tensors: dict[str, Any] = {}
with h5py.File(source) as file:
    for entry in json.loads(Path(plan).read_text(encoding="utf-8"))["entries"]:
        parts = [file[path][...] for path in entry["paths"]]
        parts = [part.view(ml_dtypes.bfloat16) if part.dtype.kind == "V" else part for part in parts]
        array = moved(entry, parts)
        tensors[entry["name"]] = as_torch(array) if writer == "torch" else array
save_file(tensors, out)
print(time.perf_counter() - started)
