"""A checkpoint in shards: the index, and the tensors of the files that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    absent = [name for name, file in places.items() if name not in shards[file].tensors]
    extra = [name for file, shard in shards.items() for name in shard.tensors if places.get(name) != file]
    if absent or extra:
        found = set(extra)
        where = {
            "in the index only": [name for name in absent if name not in found],
            "in the shards only": [name for name in extra if name not in places],
            "in another shard than the index says": [name for name in extra if name in places],
        }
        listed = [f"{what}: {some(names)}" for what, names in where.items() if names]
        raise FileError(f"{path.name} and its shards do not agree", where=[str(path), *listed], do=DO_AGAIN)
    said = index.get("metadata")
    whole_index = {k: v for k, v in said.items() if isinstance(v, str)} if isinstance(said, dict) else {}
    metadata = {key: value for shard in shards.values() for key, value in shard.metadata.items()}
    if tied := [shard.metadata[TIED] for shard in shards.values() if TIED in shard.metadata]:
        metadata[TIED] = "\n".join(tied)
    tensors = {name: shards[file].tensors[name] for name, file in places.items()}
    formats = [shard.format for shard in shards.values()]
    unsaid = any(blob_of(tensor) is None for tensor in tensors.values())  # torch maps its files itself
    kind, said = formats[0] if formats else "safetensors", {**metadata, **whole_index}
    return Store(path, kind, tensors, said, shards=states if unsaid else ())
