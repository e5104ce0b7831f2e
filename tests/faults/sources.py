"""Sources of some MB in the formats that are read in place, each with how it is converted."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
from harm import OLD
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "move"))
from keras_files import config_of, dense, write_model

SIZES = (521, 509, 503, 499)  # three layers of 1 MB, transposed on their way


def made(folder: Path) -> dict[str, Path]:
    """One file of each format."""
    weights = folder / "m.weights.h5"
    layers = [dense(f"dense_{i}" if i else "dense", a, b) for i, (a, b) in enumerate(pairwise(SIZES))]
    write_model(weights, layers, [None, SIZES[0]])
    zipped = folder / "m.keras"
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.write(config_of(weights), "config.json")
        archive.write(weights, "model.weights.h5")
    rng = np.random.default_rng(5)
    arrays = {}
    for i, (a, b) in enumerate(pairwise(SIZES)):
        arrays[f"fc{i}.weight"] = rng.standard_normal((b, a), np.float32)
        arrays[f"fc{i}.bias"] = rng.standard_normal(b, np.float32)
    save_file(arrays, folder / "m.safetensors")
    np.savez(folder / "m.npz", **arrays)
    return {
        "safetensors": folder / "m.safetensors",
        "weights.h5": weights,
        "keras": zipped,
        "npz": folder / "m.npz",
    }


def copied(path: Path, folder: Path) -> Path:
    """A copy that is old, and may be harmed."""
    there = folder / path.name
    shutil.copyfile(path, there)
    if config_of(path).exists() and path.suffix == ".h5":
        shutil.copyfile(config_of(path), config_of(there))
    os.utime(there, (OLD, OLD))
    return there


def command(path: Path, out: Path, *more: str) -> list[str]:
    """The conversion of a source."""
    to = ["--to", "torch"] if path.suffix in (".h5", ".keras") else ["--to", "flax", "--from", "torch"]
    config = ["--config", str(config_of(path))] if path.suffix == ".h5" else []
    return ["convert", str(path), *to, *config, "-o", str(out), "--no-live", *more]
