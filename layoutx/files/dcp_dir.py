"""Torch distributed checkpoints (DCP): a folder that all ranks wrote to, read and written through torch's planner."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from layoutx.errors import FileError
from layoutx.files.blob import reading
from layoutx.files.dcp_metadata import METADATA, STRIDED, Entry, entries_of
from layoutx.files.dtypes import Array, DType, is_numeric, named
from layoutx.files.notes import MEMBER, SKIPPED, from_text, to_text
from layoutx.files.store import Store, Tensor
from layoutx.files.torch_file import NESTS, array_of, need_torch, torch_of

STATE = "torch:state"  # a key of the metadata
# the keys under which trainers keep what is no weight: torch.distributed.checkpoint.state_dict says "optim"
_OPTIMIZER = re.compile(r"(optim|optimi[sz]ers?)(_?(states?|\d+))*")
_OPTIMIZER_NAME = re.compile(r"(optim|optimi[sz]ers?)\.(param_)?(state|groups)\..*")  # where no path is kept: Megatron
_TRAINING = re.compile(r"(lr_)?schedulers?(_\d+)?|dataloader|train_state|trainer|loops|callbacks|rng(_states?)?")


def is_dcp(folder: Path) -> bool:
    """Whether a folder is a torch distributed checkpoint; `__0.metadata` is that of one rank alone."""
    return (folder / METADATA).is_file() or (folder / f"__0{METADATA}").is_file()


def read_dcp(folder: Path) -> Store:
    """A torch distributed checkpoint, the chunks of all ranks put together when a tensor is read; names without torch.

    Nested names are joined with "."; of a checkpoint with a model's state beside other things (`{"model": ...}`) only
    that is taken, and metadata `torch:state` says where it was. `dcp:skipped` maps what is left out to the reason.

    Raises:
        FileError: it is damaged, holds no weights, or its metadata is more than a description of tensors.
    """
    if not (folder / METADATA).is_file():
        raise FileError(
            f"{folder.name} has metadata for each rank, and none of the whole",
            where=str(folder),
            why="it was saved with use_collectives=False: no file says how the ranks' chunks belong together",
            do="load it with the same number of ranks, and save it with use_collectives=True",
        )
    entries = entries_of(folder)
    skipped = {entry.name: reason for entry in entries if (reason := _reason(entry))}
    kept = [entry for entry in entries if entry.name not in skipped]
    nest = _nest(kept)
    tensors: dict[str, Tensor] = {}
    for entry in kept:
        if nest and entry.path[0] != nest:
            skipped[entry.name] = f"not in the model's state, which is under {nest}"
            continue
        name = ".".join(entry.path[1:]) if nest else entry.name
        tensors[name] = Tensor(name, _dtype(entry), entry.shape, partial(_read, folder, entry))
    if not tensors:
        held = ", ".join(f"{name} ({why})" for name, why in list(skipped.items())[:4]) or "nothing"
        raise FileError(f"{folder.name} holds no weights", where=[str(folder), f"it holds: {held}"])
    note = folder / MEMBER
    metadata = from_text(note.read_bytes()) if note.is_file() else {}
    said = {STATE: nest} if nest else {}
    return Store(folder, "dcp", tensors, {**metadata, **said, **({SKIPPED: json.dumps(skipped)} if skipped else {})})


def write_dcp(folder: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write a flat state dict, in the order given, that `torch.distributed.checkpoint.load` gives to any ranks.

    Metadata is a file of its own in the folder, `layoutx.json`, which torch passes over. Neither a path nor a random
    number is written, so the same arrays give the same bytes.

    Raises:
        UsageError: torch is missing, or has no such dtype.
    """
    torch = need_torch()
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.metadata import StorageMeta

    planner, writer = dcp.DefaultSavePlanner(), dcp.FileSystemWriter(folder, sync_files=False, overwrite=False)
    writer.storage_meta = StorageMeta
    # dcp.save without its collectives: this process is the only rank, whatever process group the caller may have
    planner.set_up_planner({name: torch_of(torch, name, array) for name, array in arrays.items()}, None, True)
    writer.set_up_storage_writer(True)
    plans, about = planner.create_global_plan([writer.prepare_local_plan(planner.create_local_plan())])
    plan = planner.finish_plan(writer.prepare_global_plan(plans)[0])
    writer.finish(about, [writer.write_data(plan, planner).wait()])
    (folder / MEMBER).write_text(to_text(metadata), encoding="utf-8")


def _read(folder: Path, entry: Entry) -> Array:
    """One tensor, by torch's planner and reader; neither gets to see the pickled metadata."""
    torch = need_torch()
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint import metadata as about
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    dtype = getattr(torch, entry.dtype)
    chunks = [about.ChunkStorageMetadata(torch.Size(c.offsets), torch.Size(c.sizes)) for c in entry.chunks]
    whole = about.TensorStorageMetadata(about.TensorProperties(dtype=dtype), torch.Size(entry.shape), chunks)
    places = {about.MetadataIndex(entry.name, c.offsets): _StorageInfo(*c.place) for c in entry.chunks}
    known = about.Metadata({entry.name: whole}, storage_data=places)
    value = torch.zeros(entry.shape, dtype=dtype)  # not empty: chunks of a forged file may leave gaps
    with reading(folder, "a torch distributed checkpoint"):
        planner = dcp.DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
        reader = dcp.FileSystemReader(folder)
        planner.set_up_planner({entry.name: value}, known, True)
        reader.set_up_storage_reader(known, True)
        plan = reader.prepare_local_plan(planner.create_local_plan())
        plan = reader.prepare_global_plan(planner.create_global_plan([plan]))[0]
        reader.read_data(planner.finish_plan(plan), planner).wait()
    return array_of(torch, value, _dtype(entry))


def _dtype(entry: Entry) -> DType:
    found = named(entry.dtype)
    assert found is not None, "an entry without a dtype was not left out"
    return found


def _reason(entry: Entry) -> str:
    """Why an entry is no weight; "" where it is one."""
    first, deep = entry.path[0], len(entry.path)
    if (deep > 1 and _OPTIMIZER.fullmatch(first)) or _OPTIMIZER_NAME.fullmatch(entry.name):
        return "optimizer state"
    if deep > 2 and first in ("state", "param_groups"):  # the own state dict of an optimizer
        return "optimizer state"
    if _TRAINING.fullmatch(first):
        return "state of the training"
    if not entry.dtype:
        return "no numbers: pickled bytes"
    found = named(entry.dtype)
    if found is None or not is_numeric(found):
        return f"no numbers: {entry.dtype}"
    return "" if entry.layout == STRIDED else f"no plain numbers: {entry.layout}"


def reason_of(name: str) -> str:
    """Why a tensor of this name, written flat, would be read as something else than a weight; "" where it would not."""
    return _reason(Entry(name, (name,), "float32"))


def _nest(entries: Sequence[Entry]) -> str:
    """The key that the model's state is under; "" where the checkpoint is the state: more than counts lies beside."""
    firsts = {entry.path[0] for entry in entries if len(entry.path) > 1}
    beside = any(entry.shape for entry in entries if len(entry.path) == 1 or entry.path[0] not in NESTS)
    return "" if beside else next((nest for nest in NESTS if nest in firsts), "")
