"""Orbax checkpoints: a folder of arrays, read through orbax, one tensor at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import FileError, UsageError
from layoutx.files.blob import DO_AGAIN, reading
from layoutx.files.dtypes import Array, is_numeric, settled
from layoutx.files.index import parse_object, text_of
from layoutx.files.limits import within, within_expansion
from layoutx.files.names import shown
from layoutx.files.notes import MEMBER, from_text
from layoutx.files.store import Store, Tensor

SKIPPED = "orbax:skipped"  # a key of the metadata
MARKS = ("_METADATA", "_CHECKPOINT_METADATA")
READS_NESTED = ("default", "state", "params", "items")  # the item names of CheckpointManager and older trainers


def need_orbax() -> Any:
    """The orbax.checkpoint module.

    Raises:
        UsageError: it is missing.
    """
    try:
        return import_module("orbax.checkpoint")
    except ImportError as error:
        raise UsageError(
            "reading and writing orbax checkpoints needs orbax", do="pip install orbax-checkpoint"
        ) from error


def checkpoint_in(folder: Path) -> Path | None:
    """The folder itself or the one item in it that holds an orbax tree; None where there is none."""
    if (folder / MARKS[0]).is_file():
        return folder
    inner = [folder / name for name in READS_NESTED if (folder / name / MARKS[0]).is_file()]
    return inner[0] if len(inner) == 1 else None


def is_orbax(folder: Path) -> bool:
    """Whether a folder is an orbax checkpoint, or the folder of one step."""
    return checkpoint_in(folder) is not None or any((folder / name).is_file() for name in MARKS)


def read_orbax(folder: Path) -> Store:
    """An orbax checkpoint; names joined with "/", `params/Dense_0/kernel`. Names and shapes now, arrays when read.

    Source: orbax-checkpoint 0.12.8 PyTreeCheckpointer.metadata and .restore; `...` in place of a leaf leaves it unread.

    Raises:
        UsageError: orbax is missing.
        FileError: the folder is damaged, or was written by another kind of handler.
    """
    ocp = need_orbax()
    place = checkpoint_in(folder)
    if place is None:
        raise FileError(
            f"{folder.name} is an orbax checkpoint without a tree of arrays",
            where=str(folder),
            why="no _METADATA in it",
        )
    with reading(folder, "an orbax checkpoint"):
        held = _held(folder, place)
        found = ocp.PyTreeCheckpointer().metadata(place.resolve())
        item = getattr(found, "item_metadata", found)
        tree = getattr(item, "tree", item)
        if not isinstance(tree, (dict, list)):
            raise FileError(
                f"{folder.name} holds no tree", where=str(folder), why="its metadata names no leaves", do=DO_AGAIN
            )
        tensors, skipped = {}, []
        for path, leaf in _leaves(tree, ()):
            name, dtype = "/".join(map(str, path)), getattr(leaf, "dtype", None)
            if dtype is None or not is_numeric(np.dtype(dtype)):
                skipped.append(f"{name} ({type(leaf).__name__})")
                continue
            within("RANK", len(leaf.shape), folder, shown(name))
            within_expansion(held, prod(leaf.shape) * np.dtype(dtype).itemsize, folder, shown(name))
            tensors[name] = _tensor(name, np.dtype(dtype), tuple(leaf.shape), place.resolve(), tree, path)
        note = place / MEMBER
        metadata = from_text(note.read_bytes()) if note.is_file() else {}
        return Store(folder, "orbax", tensors, {**metadata, **({SKIPPED: ", ".join(skipped)} if skipped else {})})


def _tensor(name: str, dtype: Any, shape: tuple[int, ...], place: Path, tree: Any, path: tuple[Any, ...]) -> Tensor:
    def read() -> Array:
        ocp = need_orbax()
        with reading(place, "an orbax checkpoint"):
            item = _only(tree, path)
            args = _mapped(item, lambda _: ocp.RestoreArgs(restore_type=np.ndarray))
            found = ocp.PyTreeCheckpointer().restore(place, args=ocp.args.PyTreeRestore(item=item, restore_args=args))
            for key in path:
                found = found[key]
            return settled(np.asarray(found))

    return Tensor(name, dtype, shape, read)


def _held(folder: Path, place: Path) -> int:
    """The bytes of all files of a checkpoint, after a look at where they lie: orbax follows names and links anywhere.

    Raises:
        FileError: a link, or a name in the metadata, leads out of the folder.
    """
    size, root = 0, os.path.realpath(folder)
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            here = os.path.join(at, name)
            if os.path.islink(here) and os.path.commonpath((root, os.path.realpath(here))) != root:
                what = f"{folder.name} holds a link that leads out of it"
                raise FileError(what, where=[str(folder), here], do="copy the folder, links followed")
        size += sum(os.lstat(os.path.join(at, name)).st_size for name in files)
    about = place / MARKS[0]
    for entry in _mappings(parse_object(text_of(about), about, "the metadata")):
        for key in entry.get("key_metadata") or ():
            word = str(key.get("key", "")) if isinstance(key, dict) else ""
            if ".." in word.split("/") or word.startswith("/") or "\0" in word:
                what = f"{folder.name} names an array outside of its folder"
                raise FileError(what, where=[str(about), shown(word)])
    return size


def _mappings(found: Any) -> Iterator[dict[str, Any]]:
    """The mappings in the tree of the metadata."""
    tree = found.get("tree_metadata")
    yield from (entry for entry in (tree.values() if isinstance(tree, dict) else ()) if isinstance(entry, dict))


def _leaves(tree: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(tree, (dict, list, tuple)):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _leaves(value, (*path, key))
    else:
        yield path, tree


def _only(tree: Any, path: tuple[Any, ...] | None) -> Any:
    """The tree with the leaf at `path` asked for, and all others left unread (`...`)."""
    if isinstance(tree, (dict, list, tuple)):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        inner = {key: _only(value, path[1:] if path and path[0] == key else None) for key, value in items}
        return inner if isinstance(tree, dict) else list(inner.values())
    return None if tree is None else 0 if path == () else ...


def _mapped(tree: Any, of: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _mapped(value, of) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_mapped(value, of) for value in tree]
    return None if tree is None else of(tree)
