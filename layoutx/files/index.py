"""JSON in and beside weights files, parsed with a complaint; an index followed to its shards, none elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN
from layoutx.files.limits import within
from layoutx.files.names import shown
from layoutx.files.remote import bytes_of, is_file, several, size_of, url_of

DO_WEIGHTS = "give the file that holds the weights, or the .index.json beside its shards"


def text_of(path: Path) -> bytes:
    """All of a file that is parsed as a whole, plain or remote.

    Raises:
        FileError: it is larger than the limit HEADER.
    """
    within("HEADER", size_of(path), path, "the file")
    return bytes_of(path)


def parse_object(text: str | bytes, path: Path, what: str) -> dict[str, Any]:
    """A JSON object of a file; NaN and Infinity are taken, as Keras writes them.

    Raises:
        FileError: the text is larger than the limits HEADER and ITEMS, not JSON, or no object; a key stands twice.
    """
    within("HEADER", len(text), path, what)
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    items = sum(map(raw.count, (b",", b"{", b"[")))
    within("ITEMS", items, path, what)  # before it is parsed: that takes fifty times the memory of the text
    try:
        found = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise FileError(
            f"{path.name}: {what} is not valid JSON", where=str(path), why=str(error)[:300], do=DO_AGAIN
        ) from error
    if not isinstance(found, dict):
        raise FileError(
            f"{path.name}: {what} is not a JSON object", where=str(path), why=f"it is a {type(found).__name__}"
        )
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def some(names: Collection[str], most: int = 8) -> str:
    """The first of many names, for an error."""
    first = ", ".join(name if len(name) < 80 else shown(name) for _, name in zip(range(most), names, strict=False))
    return f"{first} and {len(names) - most:,} more" if len(names) > most else first


def beside(path: Path, name: str) -> Path | None:
    """The file of that name in the folder of `path`, links followed; None where that leads elsewhere.

    Where `path` is a link itself, its target's own folder is as good: a download cache keeps a whole model there.
    """
    if url_of(path) is not None:
        return path.parent / name
    if not name or "\0" in name or os.path.isabs(name):
        return None
    try:
        target = os.path.realpath(path.parent / name)
        for folder in (os.path.realpath(path.parent), os.path.dirname(os.path.realpath(path))):
            if os.path.commonpath((folder, target)) == folder:
                return Path(target)
    except (OSError, ValueError):
        pass  # a name that no file can have
    return None


def shard_files(path: Path, index: Mapping[str, Any]) -> list[Path]:
    """The files that an index names, each once, all in the index's own folder.

    Raises:
        FileError: the index is no `weight_map`, or a shard is missing or lies outside the folder.
    """
    places = index.get("weight_map")
    if not isinstance(places, dict):
        what, why, do = f"{path.name} is no index of shards", "it has no object 'weight_map'", DO_WEIGHTS
        if "class_name" in index and "config" in index:
            what, why = f"{path.name} holds no weights", "it is a Keras model's to_json(): layers and their options"
            do = f"give its weights, and this one beside them: layoutx convert WEIGHTS.h5 --config {path.name}"
        raise FileError(what, where=str(path), why=why, do=do)
    names: dict[str, None] = {}
    for found in places.values():
        for name in found if isinstance(found, list) else [found]:
            if not isinstance(name, str):
                kind = type(name).__name__
                raise FileError(f"{path.name} names a shard that is no text", where=str(path), why=f"it is a {kind}")
            names[name] = None
    for name in names:
        if not name or Path(name).name != name or name == ".." or beside(path, name) is None:
            raise FileError(
                f"{path.name} names a shard outside its folder",
                where=[str(path), f"the shard {shown(name)}"],
                why="an index must not make layoutx read other files",
                do="copy all shards into one folder, links followed",
            )
    there = several(is_file, [path.parent / name for name in names])
    missing = [name for name, found in zip(names, there, strict=True) if not found]
    if missing:
        raise FileError(
            f"{len(missing)} of the {len(names)} shards of {path.name} are missing",
            where=[str(path), "missing: " + some(missing)],
            do="put all shards beside the index",
        )
    return [path.parent / name for name in names]
