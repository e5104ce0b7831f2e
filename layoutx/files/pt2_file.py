"""torch.export programs (`.pt2`): the weights' raw bytes and the graph's JSON, read without torch; nothing is run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import FileError
from layoutx.files import zips
from layoutx.files.blob import Blob, array_at, member, reading
from layoutx.files.dtypes import Array, DType, named
from layoutx.files.store import Store, Tensor
from layoutx.files.views import View, check_view

# torch 2.13 torch/_export/serde/schema.py ScalarType, Layout
DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    9: "",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}
STRIDED = 7
CONFIG = "_weights_config.json"  # torch 2.13 torch/export/pt2_archive: data/weights/NAME_weights_config.json
OLD = "serialized_exported_program.json"  # torch before 2.8 kept the weights in a pickle beside this
TIED = "pt2:tied"
DO_SAVE = "load it with torch.export.load and give the program itself, or save it anew with torch.export.save"


def is_pt2(names: Sequence[str]) -> bool:
    """Whether a zip file with these members is an exported program."""
    return any("data/weights/" in name and name.endswith(CONFIG) for name in names) or OLD in names


def read_pt2(path: Path) -> Store:
    """Parameters and persistent buffers by the names of the exported module's state dict.

    Metadata `pt2:tied` maps, as JSON, each further name of a tensor to its first one.

    Raises:
        FileError: an archive of an older torch, of several programs, or with weights that are pickled or no numbers.
    """
    with reading(path, "an exported program"), zips.opened(path) as archive:
        _, config = _one(path, archive, "/data/weights/", CONFIG)
        folder = config.rpartition("/")[0]
        entries = json.loads(zips.content(archive, config, path))["config"]
        kept = _kept(path, archive)
        orders = [name for name in archive.namelist() if Path(name).name == "byteorder"]
        swapped = any(zips.content(archive, name, path).strip() == b"big" for name in orders[:1])
        tensors: dict[str, Tensor] = {}
        tied: dict[str, str] = {}
        seen: dict[str, str] = {}
        for name in sorted(entries, key=lambda name: kept.get(name, len(kept))):
            if name not in kept:
                continue
            tensors[name] = _tensor(path, archive, folder, name, entries[name], swapped)
            meta = entries[name]["tensor_meta"]
            key = json.dumps([entries[name]["path_name"], meta["sizes"], meta["strides"], meta["storage_offset"]])
            first = seen.setdefault(key, name)
            if first != name and tensors[name].size:
                tied[name] = first
    return Store(path, "pt2", tensors, {TIED: json.dumps(tied)} if tied else {})


def program_json(path: Path) -> Mapping[str, Any]:
    """The program itself: its graph, and which of its inputs are which weights.

    Raises:
        FileError: as for `read_pt2`.
    """
    with reading(path, "an exported program"), zips.opened(path) as archive:
        found: Mapping[str, Any] = json.loads(zips.content(archive, _one(path, archive, "/models/", ".json")[1], path))
        return found


def _one(path: Path, archive: zipfile.ZipFile, folder: str, ending: str) -> tuple[str, str]:
    """The only member of a folder with this ending, and what stands before the ending."""
    names = archive.namelist()
    if OLD in names:
        why = "torch before 2.8 kept a program's weights in a pickle, which can run code when it is read"
        raise FileError(f"{path.name} is an exported program of an older torch", where=str(path), why=why, do=DO_SAVE)
    found = [name for name in names if folder in f"/{name}" and name.endswith(ending)]
    if len(found) != 1:
        several = ", ".join(Path(name).name.removesuffix(ending) for name in found)
        what = f"holds several programs: {several}" if found else "holds no exported program"
        raise FileError(f"{path.name} {what}", where=str(path), do="save the one program with torch.export.save")
    return Path(found[0]).name.removesuffix(ending), found[0]


def _kept(path: Path, archive: zipfile.ZipFile) -> dict[str, int]:
    """What a state dict would hold -> its place: the module's own order of parameters, buffers beside them."""
    document = json.loads(zips.content(archive, _one(path, archive, "/models/", ".json")[1], path))
    owners: dict[str, list[str]] = {}
    for spec in document["graph_module"]["signature"]["input_specs"]:
        if "parameter" in spec:
            name = spec["parameter"]["parameter_name"]
        elif spec.get("buffer", {}).get("persistent"):
            name = spec["buffer"]["buffer_name"]
        else:
            continue
        owners.setdefault(name.rpartition(".")[0], []).append(name)
    return {name: at for at, name in enumerate(name for own in owners.values() for name in own)}


def _tensor(
    path: Path, archive: zipfile.ZipFile, folder: str, name: str, entry: Mapping[str, Any], swapped: bool
) -> Tensor:
    meta = entry["tensor_meta"]
    dtype = named(DTYPES.get(meta["dtype"], "") or "?")
    sizes, strides, offsets = (_whole(meta[key]) for key in ("sizes", "strides", "storage_offset"))
    if entry["use_pickle"] or dtype is None or meta["layout"] != STRIDED or None in (sizes, strides, offsets):
        why = "it is pickled" if entry["use_pickle"] else "it is sparse, quantized, or has no fixed size"
        where = f"{path}, dtype {dtype}"
        raise FileError(f"{path.name}: '{name}' does not hold plain numbers", where=where, why=why, do=DO_SAVE)
    assert sizes is not None
    assert strides is not None
    assert offsets is not None
    info = archive.getinfo(f"{folder}/{entry['path_name']}")
    view = View(tuple(sizes), tuple(strides), offsets[0], dtype.itemsize)
    check_view(view, info.file_size, path, name)
    stored = dtype.newbyteorder(">") if swapped else dtype
    if info.compress_type == zipfile.ZIP_STORED:
        read = partial(_array, member(info, path), stored, view)
    else:  # unpacked each time it is read
        read = partial(_unpacked, path, info, stored, view)
    return Tensor(name, stored.newbyteorder("=") if stored.isbuiltin != 2 else stored, view.sizes, read)


def _unpacked(path: Path, info: zipfile.ZipInfo, dtype: DType, view: View) -> Array:
    with reading(path, "an exported program"):
        return _array(member(info, path), dtype, view)


def _whole(value: Any) -> list[int] | None:
    """Sizes as the schema spells them; None where one is symbolic."""
    values = value if isinstance(value, list) else [value]
    found = [one.get("as_int") for one in values]
    return None if any(type(n) is not int or n < 0 for n in found) else found


def _array(blob: Blob, dtype: DType, view: View) -> Array:
    """The numbers of a tensor, which may be a view of its storage."""
    shape, offset = view.sizes, view.offset * dtype.itemsize
    rows = tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
    if all(n == 1 or mine == own for n, mine, own in zip(shape, view.strides, rows, strict=True)) or not prod(shape):
        return array_at(blob, offset, dtype, shape)
    flat = array_at(blob, offset, dtype, (view.extent,))
    steps = [step * dtype.itemsize for step in view.strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False))
