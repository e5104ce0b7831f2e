"""The files of a made model: `.weights.h5`, `.keras`, config, the plan for the scripts, a template of torch's names."""

from __future__ import annotations

import json
import math
import struct
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from benching.configs import config_of
from benching.kinds import Model, Stored

BLOCK = 2_097_143  # a prime: a tensor that is shifted by whole rows never holds the same numbers again
CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}


@dataclass(frozen=True, slots=True)
class Files:
    """Where the files of a model lie."""

    model: Model
    folder: Path

    @property
    def weights(self) -> Path:
        """The `.weights.h5`; gone after `zipped`."""
        return self.folder / "model.weights.h5"

    @property
    def keras(self) -> Path:
        """The `.keras`; not there before `zipped`."""
        return self.folder / "model.keras"

    @property
    def config(self) -> Path:
        """The model's config as JSON."""
        return self.folder / "config.json"

    @property
    def plan(self) -> Path:
        """What the scripts by hand have to do."""
        return self.folder / "plan.json"

    @property
    def names(self) -> Path:
        """A sparse safetensors file: torch's names, no numbers."""
        return self.folder / "names.safetensors"


def made(model: Model, folder: Path) -> Files:
    """Write everything but the `.keras`."""
    files = Files(model, folder)
    files.config.write_text(json.dumps(config_of(model)), encoding="utf-8")
    stored = {layer.name: [one.path for one in layer.stored] for layer in model.layers}
    plan = [{**asdict(one), "paths": [stored[one.layer][i] for i in one.parts]} for one in model.entries]
    back = [asdict(one) for one in model.stored]
    files.plan.write_text(json.dumps({"entries": plan, "stored": back}), encoding="utf-8")
    _template(model, files.names)
    _weights(model, files.weights)
    return files


def zipped(files: Files) -> Path:
    """The `.keras` of a model; its `.weights.h5` is moved into it, so that both are not kept."""
    with zipfile.ZipFile(files.keras, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}))
        archive.write(files.config, "config.json")
        archive.write(files.weights, "model.weights.h5")
    files.weights.unlink()
    return files.keras


def _weights(model: Model, path: Path) -> None:
    """The file as Keras 3 writes it: a group a layer, `vars` in it, datasets 0, 1, ... contiguous."""
    drawn = np.random.default_rng(6).standard_normal(BLOCK, dtype=np.float32)
    blocks: dict[str, Any] = {"float32": drawn, "float16": drawn.astype(np.float16)}
    blocks["bfloat16"] = drawn.astype(ml_dtypes.bfloat16)
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        for layer in model.layers:
            group = file.create_group(f"layers/{layer.name}")
            group.create_group("vars").attrs["name"] = layer.name
        for number, one in enumerate(model.stored):
            _dataset(file, one, blocks[one.dtype], number)


def _dataset(file: h5py.File, one: Stored, block: Any, number: int) -> None:
    start = (number * 7919) % (BLOCK // 2)
    flat = np.resize(block[start:], math.prod(one.shape))
    if one.path.endswith("/vars/3"):
        np.abs(flat, out=flat)  # a variance
    extra = one.dtype == "bfloat16"
    stored = file.create_dataset(one.path, data=(flat.view("V2") if extra else flat).reshape(one.shape))
    if extra:
        stored.attrs["dtype"] = one.dtype


def _template(model: Model, path: Path) -> None:
    entries: dict[str, Any] = {}
    end = 0
    for one in model.entries:
        size = math.prod(one.shape) * (8 if one.dtype == "int64" else 4 if one.dtype == "float32" else 2)
        entries[one.name] = {"dtype": CODES[one.dtype], "shape": one.shape, "data_offsets": [end, end + size]}
        end += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
