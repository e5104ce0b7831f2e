"""torch `.pt`: a state dict read with weights only, mapped where the file allows, bits kept."""

from __future__ import annotations

import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from layoutx.errors import FileError, UsageError
from layoutx.files import zips
from layoutx.files.blob import reading
from layoutx.files.dtypes import EXTRA, Array, DType, is_extra, named
from layoutx.files.guarded import watch
from layoutx.files.limits import within_expansion
from layoutx.files.notes import MEMBER, TIED, from_text, to_text
from layoutx.files.store import Store, Tensor
from layoutx.files.torch_pickle import check_legacy, check_zip
from layoutx.files.written import Appended

OLDEST = (2, 6)  # before, torch.load(weights_only=True) can run code of the file: CVE-2025-32434
# where trainers put the state dict inside a checkpoint, the usual first
NESTS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params", "ema")
DO_SAVE = "save model.state_dict() and convert that file"


def need_torch() -> Any:
    """The torch module.

    Raises:
        UsageError: torch is missing, or too old to read a file safely.
    """
    try:
        import torch
    except ImportError as error:
        raise UsageError("reading and writing .pt files needs torch", do="pip install layoutx[torch]") from error
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < OLDEST:
        raise UsageError(
            f"torch {torch.__version__} is too old to read .pt files safely",
            why="before 2.6 torch.load(weights_only=True) can run code of the file (CVE-2025-32434)",
            do="pip install 'torch>=2.6'",
        )
    return torch


def read_torch(path: Path) -> Store:
    """A `.pt`/`.pth` state dict in its own order; metadata `torch:state` says where in the checkpoint it was.

    Raises:
        FileError: the file holds a pickled module or other objects, no state dict, or tensors without plain numbers.
        UsageError: torch is missing or too old.
    """
    torch = need_torch()
    metadata, mapped = _checked(path)
    loaded = _load(torch, path, mapped)
    state, nest = _state_of(torch, loaded, path)
    if nest:
        metadata["torch:state"] = nest
    skipped = [f"{name} ({type(value).__name__})" for name, value in state.items() if not torch.is_tensor(value)]
    if skipped:
        metadata["torch:skipped"] = ", ".join(skipped)
    tensors = {
        name: _tensor(torch, name, value, path, mapped) for name, value in state.items() if torch.is_tensor(value)
    }
    if tied := _tied(state):
        metadata[TIED] = "\n".join(f"{name}\t{first}" for name, first in tied.items())
    within_expansion(path.stat().st_size, sum(tensor.nbytes for tensor in tensors.values()), path, "what it holds")
    return Store(path, "torch", tensors, metadata)


def _tied(state: Mapping[str, Any]) -> dict[str, str]:
    """Names of one tensor -> the first of them: `net.0.weight` of a module that is `conv1` as well."""
    first: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    found: dict[str, str] = {}
    for name, value in state.items():
        if getattr(value, "layout", None) is None or str(value.layout) != "torch.strided" or not value.numel():
            continue
        key = (value.data_ptr(), tuple(value.shape), tuple(value.stride()))
        if first.setdefault(key, name) != name and "\t" not in name:
            found[name] = first[key]
    return found


def write_torch(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write a state dict in the order given; metadata is a zip member that torch.load passes over.

    Raises:
        UsageError: torch is missing, or has no such dtype.
    """
    torch = need_torch()
    state = OrderedDict((name, torch_of(torch, name, array)) for name, array in arrays.items())
    # given a file object, torch calls the folder in the zip "archive" and not after the temporary name
    with path.open("wb") as file:
        torch.save(state, Appended(file))
    if metadata:
        with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
            archive.writestr(f"archive/{MEMBER}", to_text(metadata))


def _load(torch: Any, path: Path, mapped: bool) -> Any:
    import pickle

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        said = " ".join(str(error).split())
        named = re.search(r"Unsupported global: GLOBAL (\S+)", said)
        holds = f"it names {named[1][:100]}" if named else said[:200]
        raise FileError(
            f"{path.name} holds more than weights",
            where=str(path),
            why=f"reading it would run code from the file: {holds}",
            do=DO_SAVE,
        ) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError and more on damaged files
        if "TorchScript" in str(error):
            raise FileError(
                f"{path.name} is a TorchScript archive",
                where=str(path),
                why="it holds code, not a state dict",
                do=DO_SAVE,
            ) from error
        with reading(path, "a torch checkpoint"):
            raise


def _state_of(torch: Any, loaded: Any, path: Path) -> tuple[Mapping[str, Any], str]:
    """The state dict in a checkpoint, and the key it was under ("" at the top)."""
    if _is_state(torch, loaded):
        return loaded, ""
    if isinstance(loaded, Mapping):
        for nest in NESTS:
            if _is_state(torch, loaded.get(nest)):
                return loaded[nest], nest
        if not loaded:
            return loaded, ""
    found = ", ".join(map(str, loaded)) if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
    raise FileError(
        f"{path.name} has no state dict",
        where=[str(path), f"it holds: {found[:200]}"],
        why="neither the checkpoint nor a usual key in it maps names to tensors",
        do=DO_SAVE,
    )


def _is_state(torch: Any, found: Any) -> bool:
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        return False
    return any(torch.is_tensor(value) for value in found.values())


def _tensor(torch: Any, name: str, value: Any, path: Path, mapped: bool) -> Tensor:
    value = value.detach()
    dtype = dtype_of(torch, value.dtype)
    plain = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"
    if dtype is None or not plain:
        raise FileError(
            f"{path.name}: '{name}' does not hold plain numbers",
            where=f"{path}, {value.dtype}, {value.layout}, {value.device}",
            why="sparse, quantized and meta tensors have no single array of values",
            do=DO_SAVE,
        )
    held = value.untyped_storage().nbytes()
    within_expansion(held, value.numel() * dtype.itemsize, path, f"'{name}'", f"tensor {name}")
    if mapped:  # by torch itself
        storage = value.untyped_storage()
        watch(storage, storage.data_ptr(), held, path, path.stat().st_size)
    return Tensor(name, dtype, tuple(value.shape), lambda: array_of(torch, value, dtype))


@cache
def dtype_of(torch: Any, dtype: Any) -> DType | None:
    """The NumPy dtype of a torch dtype; None where there is none."""
    name = str(dtype).removeprefix("torch.")
    if name in EXTRA:
        return named(name)
    try:
        return cast(DType, torch.empty(0, dtype=dtype).numpy().dtype)
    except (TypeError, RuntimeError):
        return None


def array_of(torch: Any, value: Any, dtype: DType) -> Array:
    """The tensor's values, copied only where they are not laid out row by row."""
    settled = value.resolve_conj().resolve_neg().contiguous()
    if is_extra(dtype):
        carrier = torch.int16 if dtype.itemsize == 2 else torch.int8
        return np.asarray(settled.view(carrier).numpy()).view(dtype)
    return np.asarray(settled.numpy())


def torch_of(torch: Any, name: str, array: Array) -> Any:
    """A torch tensor of an array's bits; it may share the array's memory.

    Raises:
        UsageError: torch has no such dtype.
    """
    carrier = np.dtype(f"i{array.dtype.itemsize}" if is_extra(array.dtype) else array.dtype)
    # torch wants aligned, writable memory even where it only reads
    ready = np.require(array.view(carrier), requirements=["A", "W", "C"]).reshape(array.shape)
    try:
        value = torch.from_numpy(ready)
        return value.view(getattr(torch, array.dtype.name)) if is_extra(array.dtype) else value
    except (TypeError, AttributeError) as error:
        raise UsageError(
            f"torch cannot hold '{name}'",
            where=f"dtype {array.dtype}",
            do="convert it to another dtype or choose another format",
        ) from error


def _checked(path: Path) -> tuple[dict[str, str], bool]:
    """The metadata of a checkpoint that torch may look at, and whether torch can map it.

    torch never compresses, but who packs the file again may.
    """
    with reading(path, "a torch checkpoint"):
        with path.open("rb") as file:
            if file.read(4) != b"PK\3\4":
                check_legacy(path)
                return {}, False
        with zips.opened(path) as archive:
            names = archive.namelist()
            if not any(name.endswith("/constants.pkl") for name in names):  # TorchScript, which torch refuses itself
                check_zip(archive, path)
            found = [name for name in names if name.count("/") == 1 and name.endswith(f"/{MEMBER}")]
            metadata = from_text(zips.content(archive, found[0], path)) if found else {}
            return metadata, all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
