"""The `.metadata` of a torch distributed checkpoint: where each chunk of each tensor lies, read without running it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN, reading
from layoutx.files.boxes import check_boxes
from layoutx.files.dtypes import EXTRA, named
from layoutx.files.index import beside
from layoutx.files.limits import PREFIX, limit, within, within_expansion
from layoutx.files.names import shown
from layoutx.files.plain_pickle import Made, Name, load
from layoutx.frozen import frozen

METADATA = ".metadata"
STRIDED = "torch.strided"


@frozen
class Chunk:
    """A block of a tensor, and the place that holds it.

    Attributes:
        place: a file of the checkpoint's own folder, the first byte, how many; where it is packed, by what.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    place: tuple[Any, ...]


@frozen
class Entry:
    """One entry: a tensor, or pickled bytes (`dtype` is "").

    Attributes:
        path: the keys of the nested mappings that lead to it.
        dtype, layout: as torch calls them, "bfloat16", "torch.strided".
    """

    name: str
    path: tuple[str, ...]
    dtype: str = ""
    layout: str = STRIDED
    shape: tuple[int, ...] = ()
    chunks: tuple[Chunk, ...] = ()


def _made(*names: str) -> dict[str, Name]:
    return {name: Name(partial(Made, name.rpartition(" ")[2])) for name in names}


def _text(found: Any) -> str:
    """A text; anything else is not even printed, since lists that share lists can make a text of any length."""
    if not isinstance(found, str):
        raise ValueError(f"a {type(found).__name__} where a text has to be")
    return found


def _member(made: Any, name: Any) -> Made:
    """A member of an enumeration as Python 3.11.0 to 3.11.3 pickle it: getattr(class, name); nothing is looked up."""
    if not isinstance(made, Name) or not isinstance(made.call, partial):
        raise ValueError("it takes an attribute of what is no class of a checkpoint")
    return Made(*made.call.args, _text(name))


def _empty() -> dict[Any, Any]:
    """A mapping is filled key by key: made of forged pairs, it would hash whatever they begin with."""
    return {}


_HERE, _OLD = "torch.distributed.checkpoint.metadata", "torch.distributed._shard.sharded_tensor.metadata"
_DTYPES = (
    *("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    *("bool", "complex128", "complex64", *EXTRA),
    *("complex32", "qint8", "quint8", "qint32", "float4_e2m1fn_x2"),  # that NumPy has no name for
)
# torch 2.13 torch/distributed/checkpoint/metadata.py, filesystem.py _StorageInfo; before torch 2.2 _shard's own classes
KNOWN: Mapping[str, Any] = {
    **_made(f"{_HERE} Metadata", f"{_HERE} MetadataIndex", f"{_HERE} StorageMeta"),
    **_made(f"{_HERE} TensorStorageMetadata", f"{_HERE} BytesStorageMetadata", f"{_HERE} ChunkStorageMetadata"),
    **_made(f"{_HERE} TensorProperties", f"{_HERE} _MEM_FORMAT_ENCODING", f"{_OLD} TensorProperties"),
    **_made(f"{_OLD} MEM_FORMAT_ENCODING", "torch.distributed.checkpoint.filesystem _StorageInfo"),
    **_made("pathlib PosixPath", "pathlib WindowsPath", "pathlib._local PosixPath", "pathlib._local WindowsPath"),
    "torch Size": Name(tuple),
    "torch.serialization _get_layout": Name(_text),
    "collections OrderedDict": Name(_empty),
    "builtins getattr": Name(_member),
    **{f"torch {name}": name for name in _DTYPES},
}


def entries_of(folder: Path) -> tuple[Entry, ...]:
    """What a checkpoint holds, in its own order.

    Raises:
        FileError: the metadata is damaged, holds more than descriptions of tensors, or does not fit the data files.
    """
    path = folder / METADATA
    with reading(path, "the metadata of a torch distributed checkpoint"):
        within("HEADER", path.stat().st_size, path, "the metadata")
        top = _state(load(path, KNOWN, _more, (str, int, Made)), "Metadata")
        places = dict(_places(top.get("storage_data") or {}))
        paths = top.get("planner_data")
        paths = paths if isinstance(paths, dict) else {}
        found = top["state_dict_metadata"].items()
        entries = tuple(_entry(_text(name), made, _path(paths.get(name), name), places) for name, made in found)
    _check_files(folder, entries)
    for entry in entries:
        dtype = named(entry.dtype) if entry.dtype else None
        held = sum(chunk.place[2] for chunk in entry.chunks)
        within_expansion(held, prod(entry.shape) * (dtype.itemsize if dtype else 1), path, shown(entry.name))
    return entries


def _state(made: Any, kind: str) -> dict[str, Any]:
    """What a described object of torch holds."""
    if not isinstance(made, Made) or made.arguments[:1] != (kind,):
        raise ValueError(f"no {kind} where one has to be")
    return made.state if isinstance(made.state, dict) else {}


def _places(data: Mapping[Any, Any]) -> Iterator[tuple[tuple[str, tuple[int, ...]], tuple[Any, ...]]]:
    """(Name, offsets of a chunk) -> its place."""
    for index, info in data.items():
        key, about = _state(index, "MetadataIndex"), _state(info, "_StorageInfo")
        if key.get("offset") is not None:  # pickled bytes have none, and are not read
            place = (_own(about["relative_path"]), *_sizes((about["offset"], about["length"])))
            packed = tuple(map(_text, about.get("transform_descriptors") or ()))
            yield (_text(key["fqn"]), _sizes(key["offset"])), (*place, packed) if packed else place


def _entry(name: str, made: Any, path: tuple[str, ...], places: Mapping[Any, Any]) -> Entry:
    if isinstance(made, Made) and made.arguments[:1] == ("BytesStorageMetadata",):
        return Entry(name, path)
    about = _state(made, "TensorStorageMetadata")
    dtype, layout = about["properties"].state[:2]
    if dtype not in _DTYPES or not isinstance(layout, str):
        raise ValueError(f"'{name}' is of no dtype")
    shape, chunks = _sizes(about["size"]), []
    if len(shape) > limit("RANK"):
        raise ValueError(f"{shown(name)} has {len(shape)} axes, more than {limit('RANK')} ({PREFIX}RANK)")
    for chunk in about["chunks"]:
        block = _state(chunk, "ChunkStorageMetadata")
        offsets, sizes = _sizes(block["offsets"]), _sizes(block["sizes"])
        if len(offsets) != len(sizes):
            raise ValueError(f"a chunk of {shown(name)} has sizes for other axes than offsets")
        if (name, offsets) not in places:
            raise ValueError(f"no file holds the chunk of '{name}' at {offsets}")
        chunks.append(Chunk(offsets, sizes, places[name, offsets]))
    if layout == STRIDED:
        spans = [[(at, at + n) for at, n in zip(c.offsets, c.sizes, strict=True)] for c in chunks]
        check_boxes(spans, shape, shown(name))
    return Entry(name, path, dtype, layout, shape, tuple(chunks))


def _path(keys: Any, name: str) -> tuple[str, ...]:
    """The way to an entry; checkpoints of planners that flatten nothing have none, and the name is the key."""
    if not isinstance(keys, tuple) or not keys or any(type(key) not in (str, int) for key in keys):
        return (name,)
    return tuple(map(str, keys))


def _sizes(found: Any) -> tuple[int, ...]:
    if not isinstance(found, tuple) or any(type(n) is not int or not 0 <= n < 1 << 62 for n in found):
        raise ValueError("sizes that are no numbers")
    return found


def _own(name: Any) -> str:
    """The name of a data file, which lies in the checkpoint's own folder."""
    if not _text(name) or Path(name).name != name or "\0" in name:
        raise ValueError(f"a data file outside of the folder: {name!r}")
    return _text(name)


def _check_files(folder: Path, entries: tuple[Entry, ...]) -> None:
    """Refuse a checkpoint of which a data file is missing or cut off."""
    ends: dict[str, int] = {}
    for entry in entries:
        for chunk in entry.chunks:
            file, at, nbytes, *_ = chunk.place
            ends[file] = max(ends.get(file, 0), at + nbytes)
    for name in ends:
        if (folder / name).exists() and beside(folder / METADATA, name) is None:
            what = f"a data file of {folder.name} lies outside of the folder"
            raise FileError(what, where=[str(folder), shown(name)], do="copy it there, links followed")
    missing = [name for name in ends if not (folder / name).is_file()]
    if missing:
        raise FileError(
            f"{len(missing)} of the {len(ends)} data files of {folder.name} are missing",
            where=[str(folder), "missing: " + ", ".join(missing[:8])],
            do="copy the files of all ranks into the folder",
        )
    for name, end in ends.items():
        if (folder / name).stat().st_size < end:
            raise FileError(
                f"{name} of {folder.name} is truncated",
                where=str(folder / name),
                why=f"a chunk ends at byte {end} of {(folder / name).stat().st_size}",
                do=DO_AGAIN,
            )


def _more(path: Path, what: str) -> FileError:
    return FileError(
        f"{path.name} of {path.parent.name} holds more than descriptions of tensors",
        where=[str(path), f"it holds {what}"],
        why="it is a pickle, which can run code when torch reads it",
        do="do not load this checkpoint with torch either, unless you know who made it",
    )
