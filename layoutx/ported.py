"""A live model that weights were ported into, saved as its own framework saves it; whole or not at all."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from layoutx.errors import UsageError, VerificationError, raise_all
from layoutx.files.atomic import check_place, not_over, replacing
from layoutx.files.certificate import to_metadata
from layoutx.files.certified import of_arrays
from layoutx.files.dtypes import settled
from layoutx.files.hashes import hash_of
from layoutx.files.leftovers import temporary_of
from layoutx.files.open import open_store
from layoutx.files.save import can_write, save
from layoutx.job.slots import slots_of
from layoutx.job.tree_slots import tree_slots
from layoutx.model.callables import call
from layoutx.model.keras_live import is_keras
from layoutx.model.keyed import torch_tensor
from layoutx.model.torch_keyed import is_export
from layoutx.model.tree import is_tree
from layoutx.report import Report
from layoutx.transferred import Transfer

Said = TypeVar("Said", Report, Transfer)
ENDINGS = {"torch": (".safetensors", ".pt", ".pth"), "keras": (".keras", ".weights.h5")}
ENDINGS["export"] = (".pt2", *ENDINGS["torch"])
ENDINGS["tree"] = (".safetensors", ".npz", ".msgpack")  # under the names of the model's own tree


def built(given: str, must: bool) -> Any:
    """What `package.module:callable` builds; a file's path stays what it is.

    Raises:
        UsageError: `must`: it is a file, and no live model.
    """
    if not Path(given).exists() and ":" in given:
        return call(given)
    if must:
        raise UsageError(
            f"{given} is not a model that can be run",
            why="port loads the weights into a live model and runs it",
            do="give package.module:callable, which builds it (for a .pt2 file: returns torch.export.load(FILE)); "
            "files are written with `layoutx convert --like`",
        )
    return given


def check_output(path: str | None, target: Any, *read: object) -> None:
    """Refuse, before anything is computed, an output that cannot be written for this target.

    Args:
        read: the sources: files are not written over.

    Raises:
        UsageError: there is none; an ending that the target's framework does not save; one that is read.
    """
    endings = ENDINGS[_home(target)]
    if path is None:
        raise UsageError(
            "there is no output",
            why="the model lives only as long as this command",
            do=f"name it with -o OUT ({', '.join(endings)}); in Python lx.port changes your own model in place",
        )
    if not path.endswith(endings):
        raise UsageError(f"{Path(path).name} is no file for this target", do=f"end it with {' or '.join(endings)}")
    check_place(Path(path))
    not_over(Path(path), read)
    if not is_keras(target) and not path.endswith(".pt2"):
        can_write(path)


def _home(target: Any) -> str:
    if is_tree(target):
        return "tree"
    return "keras" if is_keras(target) else "export" if is_export(target) else "torch"


def saved(target: Any, path: str, report: Said) -> Said:
    """Write the target's weights; a state dict gets the certificate in its metadata. The report names the file."""
    if is_tree(target):
        slots = tree_slots(getattr(report, "model", None) or target)
        arrays = {name: slot.read() for name, slot in slots.items()}
        save(path, arrays, to_metadata({**report.certificate({}), **of_arrays(arrays)}))
        return replace(report, output=path, certified=True)
    if not is_keras(target) and not path.endswith(".pt2"):
        state = target.state_dict if is_export(target) else target.state_dict(keep_vars=True)
        arrays = {n: torch_tensor(n, value).read().copy() for n, value in state.items() if hasattr(value, "copy_")}
        save(path, arrays, to_metadata({**report.certificate({}), **of_arrays(arrays)}))
        return replace(report, output=path, certified=True)
    with replacing(Path(path)) as temporary, temporary_of(Path(path), folder=True) as folder:
        own = folder / Path(path).name  # Keras goes by the ending
        if is_export(target):
            import torch

            torch.export.save(target, own)
        elif path.endswith(".weights.h5"):
            target.save_weights(own)
        else:
            target.save(own)
        shutil.copyfile(own, temporary)
        _check(temporary, target, Path(path))
    return replace(report, output=path)


def _check(written: Path, target: Any, final: Path) -> None:
    """Read a file again that a framework wrote: whatever it calls them, every number of the model is in it.

    Raises:
        VerificationError: all tensors of the model that are not.
    """
    held = {hash_of(settled(tensor.read())) for tensor in open_store(written).tensors.values()}
    wrong = [name for name, slot in slots_of(target).items() if hash_of(settled(slot.read())) not in held]
    problems = [VerificationError(f"{final.name} did not keep '{name}'", where=str(final)) for name in wrong]
    raise_all(problems, f"{final.name} was not written: it did not give back what was put in")
