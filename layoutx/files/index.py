"""JSON in and beside weights files: parsed with a complaint, and an index followed to its shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN
from layoutx.files.remote import is_file, several


def parse_object(text: str | bytes, path: Path, what: str) -> dict[str, Any]:
    """A JSON object of a file; NaN and Infinity are taken, as Keras writes them.

    Raises:
        FileError: the text is not JSON, or is no object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(
            f"{path.name}: {what} is not valid JSON", where=str(path), why=str(error), do=DO_AGAIN
        ) from error
    if not isinstance(found, dict):
        raise FileError(
            f"{path.name}: {what} is not a JSON object", where=str(path), why=f"it is a {type(found).__name__}"
        )
    return found


def shard_files(path: Path, index: Mapping[str, Any]) -> list[Path]:
    """The files that an index names, each once, all in the index's own folder.

    Raises:
        FileError: the index is no `weight_map`, or a shard is missing or lies outside the folder.
    """
    places = index.get("weight_map")
    if not isinstance(places, dict):
        raise FileError(f"{path.name} is no index of shards", where=str(path), why="it has no object 'weight_map'")
    names: dict[str, None] = {}
    for found in places.values():
        for name in found if isinstance(found, list) else [found]:
            if not isinstance(name, str) or not name or Path(name).name != name:
                raise FileError(f"{path.name} names a shard outside its folder", where=f"{path}: {name!r}")
            names[name] = None
    there = several(is_file, [path.parent / name for name in names])
    missing = [name for name, found in zip(names, there, strict=True) if not found]
    if missing:
        raise FileError(
            f"{len(missing)} of the {len(names)} shards of {path.name} are missing",
            where=[str(path), "missing: " + ", ".join(missing)],
            do="put all shards beside the index",
        )
    return [path.parent / name for name in names]
