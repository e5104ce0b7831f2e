"""Keras 3 weights: the `.keras` zip, bare `.weights.h5`, and shards listed in `.weights.json`."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layoutx.errors import FileError
from layoutx.files import zips
from layoutx.files.blob import Blob, member, reading, whole
from layoutx.files.index import parse_object, shard_files
from layoutx.files.store import Store, Tensor
from layoutx.spec.memo import uncollected

if TYPE_CHECKING:
    from layoutx.files import hdf5

INNER = "model.weights.h5"


def weights_blob(path: Path, format: str) -> Blob:
    """Where the HDF5 bytes of a `keras`, `weights.h5` or `h5` file lie.

    Raises:
        FileError: a `.keras` file without a plain `model.weights.h5`.
    """
    with reading(path, "a Keras file"):
        if format != "keras":
            return whole(path)
        with zips.opened(path) as archive:
            return _inner(archive, path)


def read_keras(path: Path) -> Store:
    """A `.keras` file: config, version, and the tensors of its inner HDF5 file under their paths there.

    Raises:
        FileError: a member is missing, damaged or of a kind that is not read.
    """
    with reading(path, "a .keras file"), zips.opened(path) as archive:
        names = archive.namelist()
        blob = _inner(archive, path)
        config = _object(archive, "config.json", path) if "config.json" in names else None
        about = _object(archive, "metadata.json", path) if "metadata.json" in names else {}
        tensors, metadata = _contents(blob)
    version = about.get("keras_version")
    return Store(path, "keras", tensors, metadata, config, version if isinstance(version, str) else "")


def read_weights(path: Path, found: hdf5.Listing | None = None) -> Store:
    """A bare `.weights.h5` file; it has no config and does not say which version wrote it.

    Args:
        found: what it holds, where that is known.

    Raises:
        FileError: the file is damaged.
    """
    with reading(path, "a Keras weights file"):
        return Store(path, "weights.h5", *(_contents(whole(path)) if found is None else contents(found)))


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


def _object(archive: zipfile.ZipFile, name: str, path: Path) -> dict[str, Any]:
    return parse_object(zips.content(archive, name, path), path, name)


def _inner(archive: zipfile.ZipFile, path: Path) -> Blob:
    names = archive.namelist()
    if INNER in names:
        return member(archive.getinfo(INNER), path)
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


def _contents(blob: Blob) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by path, and metadata: `name:<group>` is the user's name of a `vars` group (keras >= 3.6)."""
    from layoutx.files import hdf5

    return contents(hdf5.listing(blob))


@uncollected()
def contents(found: hdf5.Listing) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The same of a listing."""
    from layoutx.files import hdf5

    tensors = {path: hdf5.tensor(found, path) for path, _ in found.below()}
    said = {f"name:{path}": name for path, notes in found.groups.items() if (name := hdf5.text(notes, "name"))}
    return tensors, {**found.notes(), **said}
