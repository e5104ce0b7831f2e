"""Legacy Keras `.h5`: whole models and weights only, from Keras 1 without names to Keras 3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from layoutx.errors import FileError
from layoutx.files.blob import Blob, reading, whole
from layoutx.files.hdf5 import child, notes_of, opened, tensor, text_of, walk
from layoutx.files.index import parse_object
from layoutx.files.store import Store, Tensor

MODEL = "model_weights"
OPTIMIZER = "optimizer_weights"
TOP = "top_level_model_weights"


def is_legacy(file: h5py.File) -> bool:
    """Whether an HDF5 file is laid out as the legacy format, by its root attributes and groups."""
    marks = ("layer_names", "layer_names0", "nb_layers", "model_config")
    return MODEL in file or any(mark in file.attrs for mark in marks)


def read_legacy(path: Path) -> Store:
    """A legacy file; a tensor's key is `<layer>/<weight name>`, its group holds them in `weight_names` order.

    Layers without weights have an empty group. The group `top_level_model_weights` (weights that no layer owns)
    is there only where it holds any. Optimizer state is under `optimizer_weights/...` and in no group.

    Raises:
        FileError: a name without its dataset, a config that is not JSON, a damaged file.
    """
    with reading(path, "a legacy Keras .h5 file"):
        blob = whole(path)
        with opened(blob) as file:
            root = _group(file, MODEL, blob) if MODEL in file else file
            tensors: dict[str, Tensor] = {}
            groups: dict[str, tuple[str, ...]] = {}
            for layer, names in layers_of(root, blob):
                keys = [f"{layer}/{name}" for name in names]
                for key, name in zip(keys, names, strict=True):
                    tensors[key] = tensor(child(_group(root, layer, blob), name, blob), key, blob)
                groups[layer] = tuple(keys)
            if root is not file and OPTIMIZER in file:
                tensors |= _optimizer(_group(file, OPTIMIZER, blob), blob)
            return Store(
                path,
                "h5",
                tensors,
                notes_of(file),
                _config(file, path),
                _said("keras_version", file, root),
                _said("backend", file, root),
                groups,
            )


def layers_of(root: h5py.Group, blob: Blob) -> Iterator[tuple[str, list[str]]]:
    """Each layer's group name and weight names, in the file's order.

    Keras 1 before 0.3 counted (`nb_layers`, `layer_0/param_0`); everything since names them
    (Keras 1.2.2 engine/topology.py load_weights_from_hdf5_group; keras 3.15 legacy_h5_format.py).

    Raises:
        FileError: the root says neither.
    """
    named = names_in(root, "layer_names")
    if named is not None:
        for layer in named:
            yield layer, names_in(_group(root, layer, blob), "weight_names") or []
        if TOP in root and TOP not in named and (loose := names_in(_group(root, TOP, blob), "weight_names")):
            yield TOP, loose
    elif "nb_layers" in root.attrs:
        for k in range(int(root.attrs["nb_layers"])):
            count = int(_group(root, f"layer_{k}", blob).attrs.get("nb_params", 0))
            yield f"layer_{k}", [f"param_{p}" for p in range(count)]
    else:
        raise FileError(
            f"{blob.path.name} has no weights",
            where=f"{blob.path}, group {root.name}",
            why="it has neither layer_names nor nb_layers",
            do="save the model again with its weights",
        )


def names_in(group: h5py.Group, key: str) -> list[str] | None:
    """A list of names in an attribute, also where Keras split it (`key0`, `key1`, ... for more than 64512 bytes)."""
    if key in group.attrs:
        return [text_of(name) for name in group.attrs[key]]
    found: list[str] = []
    part = 0
    while f"{key}{part}" in group.attrs:
        found += [text_of(name) for name in group.attrs[f"{key}{part}"]]
        part += 1
    return found if part else None


def _group(parent: h5py.Group, name: str, blob: Blob) -> h5py.Group:
    found = child(parent, name, blob)
    if not isinstance(found, h5py.Group):
        raise FileError(f"{blob.path.name}: '{name}' is not a group", where=str(blob.path))
    return found


def _optimizer(group: h5py.Group, blob: Blob) -> dict[str, Tensor]:
    """Optimizer state by its path; nobody needs its order."""
    paths = [(found, found.name.strip("/")) for found in walk(group, blob) if isinstance(found, h5py.Dataset)]
    return {path: tensor(found, path, blob) for found, path in paths}


def _config(file: h5py.File, path: Path) -> dict[str, Any] | None:
    text = text_of(file.attrs.get("model_config"))
    return parse_object(text, path, "model_config") if text else None


def _said(key: str, *places: h5py.Group) -> str:
    return next((text for place in places if (text := text_of(place.attrs.get(key)))), "")
