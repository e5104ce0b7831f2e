"""A batch in a file: one array (.npy), or several by name or, saved without names, in order (.npz, safetensors)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.errors import FileError, UsageError
from layoutx.files.names import named_well
from layoutx.files.npz import read_npz
from layoutx.files.open import no_file
from layoutx.files.safetensors import read_safetensors
from layoutx.plan.plan import Array
from layoutx.verify.running.recorded import is_recording, read_recording

PLAIN = re.compile(r"arr_\d+")  # what numpy.savez calls arrays without a name


def inputs_of(given: Any) -> Any:
    """Inputs as they were given, or read from the file that a text names.

    Raises:
        UsageError: no such file. FileError: it is damaged, or of no kind that is read.
    """
    if not isinstance(given, (str, Path)):
        return given
    path = Path(given)
    if not path.is_file():
        raise no_file(path)
    if path.suffix == ".npz":
        return _named({name: tensor.read() for name, tensor in named_well(read_npz(path)).tensors.items()})
    if path.suffix == ".safetensors":
        store = named_well(read_safetensors(path))
        if is_recording(store):
            return list(read_recording(path).inputs)
        return _named({name: tensor.read() for name, tensor in store.tensors.items()})
    if path.suffix != ".npy":
        raise UsageError(f"{path.name} is no file of inputs", where=str(path), do="give .npy, .npz or .safetensors")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FileError(f"{path.name} is no .npy array", where=str(path), why=str(error)) from error


def _named(arrays: dict[str, Array]) -> Any:
    """A list where no array has a name of its own."""
    if arrays and all(PLAIN.fullmatch(name) for name in arrays):
        return [arrays[name] for name in sorted(arrays, key=lambda name: int(name[4:]))]
    return arrays
