"""A checkpoint in shards: the index, and the tensors of the files that it names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN, blob_of
from layoutx.files.index import shard_files, some
from layoutx.files.notes import TIED
from layoutx.files.remote import several
from layoutx.files.steady import state_at
from layoutx.files.store import Store

TORCH = {".bin", ".pt", ".pth"}  # endings of shards that torch.save wrote: pytorch_model-00001-of-00002.bin


def read_index(path: Path, index: Mapping[str, Any], read: Callable[[Path], Store]) -> Store:
    """A sharded checkpoint: `*.index.json` and the shards beside it, in the order of its `weight_map`.

    Args:
        read: reads one shard.

    Raises:
        FileError: a shard is missing, or index and shards do not hold the same tensors.
    """
    try:
        paths = shard_files(path, index)
        states = tuple((one, state_at(one)) for one in paths)
        shards = {shard.path.name: shard for shard in several(read, paths)}
    except FileError as error:
        raise error if str(path) in error.where else error.at(f"a shard of {path}") from error
    places: dict[str, str] = index["weight_map"]
    _check_places(path, places, shards)
    tensors = {name: shards[file].tensors[name] for name, file in places.items()}
    kind = next((shard.format for shard in shards.values()), "safetensors")
    unsaid = any(blob_of(tensor) is None for tensor in tensors.values())  # torch maps its files itself
    return Store(path, kind, tensors, _metadata(index, shards.values()), shards=states if unsaid else ())


def _check_places(path: Path, places: Mapping[str, str], shards: Mapping[str, Store]) -> None:
    """Every tensor is in the shard that the index names, and in no other."""
    absent = [name for name, file in places.items() if name not in shards[file].tensors]
    extra = [name for file, shard in shards.items() for name in shard.tensors if places.get(name) != file]
    if not (absent or extra):
        return
    found = set(extra)
    where = {
        "in the index only": [name for name in absent if name not in found],
        "in the shards only": [name for name in extra if name not in places],
        "in another shard than the index says": [name for name in extra if name in places],
    }
    listed = [f"{what}: {some(names)}" for what, names in where.items() if names]
    raise FileError(f"{path.name} and its shards do not agree", where=[str(path), *listed], do=DO_AGAIN)


def _metadata(index: Mapping[str, Any], shards: Collection[Store]) -> dict[str, str]:
    """What the shards say together; the index has the last word. Tied names are those of all shards."""
    found = {key: value for shard in shards for key, value in shard.metadata.items()}
    if tied := [shard.metadata[TIED] for shard in shards if TIED in shard.metadata]:
        found[TIED] = "\n".join(tied)
    said = index.get("metadata")
    own = said if isinstance(said, dict) else {}
    return found | {key: value for key, value in own.items() if isinstance(value, str)}
