"""A checkpoint for the tests of executors, and what each way of making it must give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

import layoutx as lx

MOST = 3000  # bytes of a shard: about eight of them


def checkpoint(path: Path, giant: int = 0, dtype: Any = np.float32) -> Path:
    """Dense layers of other and of equal sizes with names of flax; `giant` rows of an embedding."""
    rng = np.random.default_rng(5)
    sizes = [(13, 17), (17, 17), (17, 29), (29, 11), (11, 19)] * 2
    arrays = {}
    for number, (inputs, outputs) in enumerate(sizes):
        arrays[f"params.Dense_{number}.kernel"] = rng.normal(size=(inputs, outputs)).astype(dtype)
        arrays[f"params.Dense_{number}.bias"] = rng.normal(size=outputs).astype(dtype)
    if giant:
        arrays["params.Embed_0.embedding"] = rng.normal(size=(giant, 19)).astype(dtype)
        arrays["params.Dense_99.kernel"] = rng.normal(size=(giant, 23)).astype(dtype)
    save_file(arrays, path)
    return path


def converted(source: Any, folder: Path, **how: Any) -> dict[str, bytes]:
    """Convert into a folder; every file of it."""
    folder.mkdir(exist_ok=True)
    given = {"to": "torch", "from_": "flax", "max_shard_size": MOST, "verify": "bytes", **how}
    lx.convert(source, folder / "m.safetensors", **given)
    return files(folder)


def files(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every file, hidden ones too; folders end in a slash."""
    return {f.name + "/" * f.is_dir(): b"" if f.is_dir() else f.read_bytes() for f in sorted(folder.iterdir())}


def same(found: dict[str, bytes], wanted: dict[str, bytes]) -> None:
    """The same files with the same bytes, an index among them that names them all."""
    assert found.keys() == wanted.keys()
    for name, data in wanted.items():
        assert found[name] == data, name
    index = json.loads(found["m.safetensors.index.json"])
    assert set(index["weight_map"].values()) == {name for name in found if name.endswith(".safetensors")}


BF16 = np.dtype(ml_dtypes.bfloat16)
