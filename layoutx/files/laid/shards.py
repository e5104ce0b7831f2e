"""Shards: entries dealt out to files of bounded size, the files' names, and the index that finds them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from layoutx.errors import UsageError
from layoutx.files.laid.entry import Entry

ENDING = ".safetensors"
UNITS = {f"{c}{b}": step**k for k, c in enumerate("KMGT", 1) for b, step in (("B", 1000), ("iB", 1024))}


def partition(entries: Sequence[Entry], most_bytes: int) -> tuple[tuple[Entry, ...], ...]:
    """The entries in their order, in runs of at most `most_bytes` bytes; a larger tensor is alone in its run.

    Only tensors count, not headers, as with huggingface_hub. There, tensors after a large one still go into the run
    before it; here the order is kept.
    """
    runs: list[list[Entry]] = []
    size = 0
    for entry in entries:
        if not runs or size + entry.nbytes > most_bytes:
            runs.append([])
            size = 0
        runs[-1].append(entry)
        size += entry.nbytes
    return tuple(tuple(run) for run in runs)


def shard_names(name: str, count: int) -> tuple[str, ...]:
    """`x.safetensors` in 3 parts: `x-00001-of-00003.safetensors`, ...; one part keeps its name and needs no index.

    As huggingface_hub, serialization/_base.py split_state_dict_into_shards_factory.

    Raises:
        UsageError: not a safetensors file.
    """
    if count == 1:
        return (name,)
    stem = _stem(name)
    return tuple(f"{stem}-{k:05d}-of-{count:05d}{ENDING}" for k in range(1, count + 1))


def is_part(file: str, name: str) -> bool:
    """Whether a file is called as an output `name` or a part of one is: itself, a shard of it, their index."""
    stem = re.escape(_stem(name))
    return (
        re.fullmatch(rf"{stem}(-\d{{5,}}-of-\d{{5,}})?{re.escape(ENDING)}|{re.escape(index_name(name))}", file)
        is not None
    )


def index_name(name: str) -> str:
    """`x.safetensors` -> `x.safetensors.index.json`.

    Raises:
        UsageError: not a safetensors file.
    """
    return f"{_stem(name)}{ENDING}.index.json"


def index_text(parts: Mapping[str, Sequence[Entry]], metadata: Mapping[str, str]) -> str:
    """The index of shards (file name -> its entries), with text metadata beside the size of all tensors in bytes."""
    total = sum(entry.nbytes for entries in parts.values() for entry in entries)
    places = {entry.name: file for file, entries in parts.items() for entry in entries}
    index = {"metadata": {**metadata, "total_size": total}, "weight_map": places}
    return json.dumps(index, indent=2, ensure_ascii=False) + "\n"


def size_of(text: str) -> int:
    """The bytes of `5GB`, `1.5 GiB`, `200mb`: KB, MB, GB, TB count by 1000, KiB, MiB, GiB, TiB by 1024.

    Raises:
        UsageError: anything else.
    """
    units = {unit.lower(): size for unit, size in UNITS.items()}
    found = re.fullmatch(r"\s*(\d+)(?:\.(\d+))?\s*([a-zA-Z]+)\s*", text, re.ASCII)
    if found and found[3].lower() in units:
        fraction = found[2] or ""
        size: int = int(found[1] + fraction) * units[found[3].lower()] // 10 ** len(fraction)
        if size:
            return size
    raise UsageError(f"{text!r} is no size", do=f"give a number above 0 and a unit of {', '.join(UNITS)}, as in 5GB")


def _stem(name: str) -> str:
    if not name.endswith(ENDING):
        raise UsageError(f"{name} cannot be written in shards", do=f"choose an output that ends in {ENDING}")
    return name.removesuffix(ENDING)
