"""The script for the other direction: safetensors of torch into the `.weights.h5` of a Keras model, with h5py.

python -m benching.script_back SOURCE.safetensors PLAN.json OUT.weights.h5
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import h5py
import ml_dtypes
from safetensors.numpy import load_file

from benching.by_hand import moved_back

source, plan, out = sys.argv[1:]
started = time.perf_counter()
told = json.loads(Path(plan).read_text(encoding="utf-8"))
shapes = {one["path"]: one["shape"] for one in told["stored"]}
tensors = load_file(source)
with h5py.File(out, "w") as file:
    for entry in told["entries"]:
        paths = entry["paths"]
        arrays = moved_back(entry, tensors[entry["name"]], [shapes[path] for path in paths])
        for path, array in zip(paths, arrays, strict=True):
            extra = array.dtype == ml_dtypes.bfloat16
            stored = file.create_dataset(path, data=array.view("V2") if extra else array)
            if extra:
                stored.attrs["dtype"] = "bfloat16"
print(time.perf_counter() - started)
