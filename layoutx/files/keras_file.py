"""Keras 3 weights: the `.keras` zip, bare `.weights.h5`, and shards listed in `.weights.json`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layoutx.errors import FileError
from layoutx.files.blob import Blob, member, reading, whole
from layoutx.files.index import parse_object, shard_files
from layoutx.files.store import Store, Tensor
from layoutx.spec.memo import uncollected

INNER = "model.weights.h5"


def weights_blob(path: Path, format: str) -> Blob:
    """Where the HDF5 bytes of a `keras`, `weights.h5` or `h5` file lie.

    Raises:
        FileError: a `.keras` file without a plain `model.weights.h5`.
    """
    with reading(path, "a Keras file"):
        if format != "keras":
            return whole(path)
        with zipfile.ZipFile(path) as archive:
            return _inner(archive, path)


def read_keras(path: Path) -> Store:
    """A `.keras` file: config, version, and the tensors of its inner HDF5 file under their paths there.

    Raises:
        FileError: a member is missing, damaged or of a kind that is not read.
    """
    with reading(path, "a .keras file"), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        blob = _inner(archive, path)
        config = parse_object(archive.read("config.json"), path, "config.json") if "config.json" in names else None
        about = parse_object(archive.read("metadata.json"), path, "metadata.json") if "metadata.json" in names else {}
        tensors, metadata = _contents(blob)
    version = about.get("keras_version")
    return Store(path, "keras", tensors, metadata, config, version if isinstance(version, str) else "")


def read_weights(path: Path) -> Store:
    """A bare `.weights.h5` file; it has no config and does not say which version wrote it.

    Raises:
        FileError: the file is damaged.
    """
    with reading(path, "a Keras weights file"):
        return Store(path, "weights.h5", *_contents(whole(path)))


def read_sharded(path: Path, index: Mapping[str, Any]) -> Store:
    """Keras `.weights.json` (3.10 on) and the `.weights.h5` shards that it names, as one store.

    Raises:
        FileError: a shard is missing, lies elsewhere, or repeats a tensor of another.
    """
    shards = shard_files(path, index)
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    for shard in shards:
        with reading(shard, "a Keras weights shard"):
            found, names = _contents(whole(shard))
        if repeated := sorted(tensors.keys() & found.keys()):
            raise FileError(f"two shards of {path.name} hold '{repeated[0]}'", where=str(shard))
        tensors |= found
        metadata |= names
    return Store(path, "weights.h5", tensors, metadata)


def _inner(archive: zipfile.ZipFile, path: Path) -> Blob:
    names = archive.namelist()
    if INNER in names:
        return member(archive, archive.getinfo(INNER), path)
    if "model.weights.npz" in names:
        why = "its weights are a pickled .npz, which nothing reads safely"
    elif "model.weights.json" in names:
        why = "its weights are sharded inside the zip"
    else:
        why = "there is no member model.weights.h5"
    raise FileError(
        f"{path.name} has no readable weights",
        where=str(path),
        why=why,
        do="load it in Keras and save it again as .keras",
    )


@uncollected()
def _contents(blob: Blob) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by path, and metadata: `name:<group>` is the user's name of a `vars` group (keras >= 3.6)."""
    from layoutx.files import hdf5

    tensors: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    types: hdf5.Types = []
    with hdf5.opened(blob) as file:
        for path, found in hdf5.listed(file, blob):
            if hdf5.is_dataset(found):
                tensors[path] = hdf5.tensor(found, path, blob, types)
            elif name := hdf5.note_at(found, "name"):
                names[f"name:{path}"] = name
        return tensors, {**hdf5.notes_of(file), **names}
