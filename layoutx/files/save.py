"""Save arrays to a file whose ending says how; the result is read back and compared before it appears."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path

import numpy as np

from layoutx.errors import LayoutxError, UsageError, VerificationError, raise_all
from layoutx.files.atomic import check_place, replacing, replacing_folder
from layoutx.files.blob import writing
from layoutx.files.dtypes import Array, bits, settled, storable
from layoutx.files.holds import odd_bools, unheld
from layoutx.files.names import well_named
from layoutx.files.notes import MEMBER
from layoutx.files.onnx_write import check_like as check_onnx
from layoutx.files.onnx_write import discard_data, write_like
from layoutx.files.open import open_store
from layoutx.files.remote import located
from layoutx.files.room import probe_room
from layoutx.files.store import Store

KERAS = (".keras", ".weights.h5", ".h5", ".hdf5")
FOLDERS = (".dcp", ".orbax")  # these outputs are folders
WRITES = (".safetensors", ".npz", ".pt", ".pth", *KERAS, ".onnx", ".msgpack", ".pdparams", *FOLDERS)
Writer = Callable[[Path, Mapping[str, Array], Mapping[str, str]], None]


def can_write(path: str | PathLike[str], template: Store | None = None) -> None:
    """Refuse an output before any work is done for it.

    Raises:
        UsageError: an unknown ending, no such folder, torch missing for `.pt`, or a Keras file without
            a template that fits it.
    """
    path = located(path)
    check_place(path, is_ours if path.name.endswith(FOLDERS) else None)
    _writer(path, template)


def save(
    path: str | PathLike[str],
    arrays: Mapping[str, Array],
    metadata: Mapping[str, str],
    template: Store | None = None,
    unchanged: Callable[[], None] | None = None,
) -> None:
    """Write arrays and metadata, read them back bit for bit, then put the file in its place.

    Keras files (`.keras`, `.weights.h5`, `.h5`) and ONNX models are written in the structure of `template`, see
    `keras_write` and `onnx_write`.

    Args:
        unchanged: refuses what the arrays were made of, when all of it was read.

    Raises:
        UsageError: as `can_write`; arrays that hold no numbers; metadata that is not text; dtypes, shapes or names
            that the format cannot hold; all of them together.
        VerificationError: the file does not give back what was written; an old output is intact.
    """
    path = Path(path)
    can_write(path, template)
    _check_input(arrays, metadata, path)
    ready = {name: settled(array) for name, array in arrays.items()}
    entries = [(name, array.dtype, array.shape) for name, array in ready.items()]
    raise_all([*unheld(path, entries), *odd_bools(path, ready)])
    write = _writer(path, template)
    folder = path.name.endswith(FOLDERS)
    with replacing_folder(path, is_ours) if folder else replacing(path) as temporary:
        try:
            with writing(path):
                if not folder:
                    probe_room(temporary, sum(array.nbytes for array in ready.values()) + _extra_bytes(template))
                write(temporary, ready, metadata)
            verify(temporary, ready, metadata, path)
            if unchanged is not None:
                unchanged()
        except BaseException:
            discard_data(temporary)
            raise


def is_ours(folder: Path) -> bool:
    """Whether a folder is a checkpoint that layoutx wrote, which it may replace."""
    from layoutx.files.dcp_dir import is_dcp
    from layoutx.files.orbax_dir import is_orbax

    return (folder / MEMBER).is_file() and (is_dcp(folder) or is_orbax(folder))


def verify(written: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str], final: Path) -> None:
    """Compare a written file with what it should hold: names, dtypes, shapes, every bit, the metadata.

    Raises:
        VerificationError: any difference; all of them together.
    """
    store = open_store(written)
    check_kept(store, arrays, lambda name: _difference(store, name, arrays), metadata, final)


def check_kept(
    store: Store, wanted: Iterable[str], difference: Callable[[str], str], metadata: Mapping[str, str], final: Path
) -> None:
    """Raises VerificationError: all tensors of a written file with a difference ("" for none), and its metadata."""
    lost = {name: why for name in dict.fromkeys((*wanted, *store.tensors)) if (why := difference(name))}
    keys = [key for key, value in metadata.items() if store.metadata.get(key) != value]
    problems = [
        *(VerificationError(f"{final.name} did not keep '{n}'", where=str(final), why=why) for n, why in lost.items()),
        *(VerificationError(f"{final.name} did not keep the metadata '{key}'", where=str(final)) for key in keys),
    ]
    raise_all(problems, f"{final.name} was not written: it did not give back what was put in")


def _difference(store: Store, name: str, arrays: Mapping[str, Array]) -> str:
    """What is different about one tensor; "" where nothing is."""
    if name not in store.tensors:
        return "the file does not hold it"
    if name not in arrays:
        return "nobody asked for it"
    want, tensor = arrays[name], store.tensors[name]
    got = tensor.read()
    if (got.dtype, got.shape) != (want.dtype, want.shape) or (tensor.dtype, tensor.shape) != (got.dtype, got.shape):
        return f"{want.dtype} of shape {want.shape} became {got.dtype} of shape {got.shape}"
    return "" if np.array_equal(bits(got), bits(want)) else "its bytes changed"


def _extra_bytes(template: Store | None) -> int:
    """More than what a file in a template's structure needs beside its numbers."""
    return template.path.stat().st_size if template else 0


def _check_input(arrays: Mapping[str, Array], metadata: Mapping[str, str], path: Path) -> None:
    problems: list[LayoutxError] = [bad for name, array in arrays.items() if (bad := storable(name, np.asarray(array)))]
    if not arrays:
        problems.append(UsageError("there is nothing to save"))
    problems += well_named(arrays, path)
    for key, value in metadata.items():
        if not (_is_text(key) and _is_text(value)):
            problems.append(
                UsageError(f"the metadata {key!r} is not text", where=type(value).__name__, do="give a str")
            )
    raise_all(problems)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _writer(path: Path, template: Store | None) -> Writer:
    name = path.name
    if name.endswith(".safetensors"):
        from layoutx.files.safetensors import write_safetensors

        return write_safetensors
    if name.endswith(".npz"):
        from layoutx.files.npz import write_npz

        return write_npz
    if name.endswith(".msgpack"):
        from layoutx.files.msgpack_file import write_msgpack

        return write_msgpack
    if name.endswith(".pdparams"):
        from layoutx.files.paddle_file import write_paddle

        return write_paddle
    if name.endswith(".dcp"):
        from layoutx.files.dcp_dir import write_dcp
        from layoutx.files.torch_file import need_torch

        need_torch()
        return write_dcp
    if name.endswith(".orbax"):
        from layoutx.files.orbax_dir import need_orbax
        from layoutx.files.orbax_write import write_orbax

        need_orbax()
        return write_orbax
    if name.endswith((".pt", ".pth")):
        from layoutx.files.torch_file import need_torch, write_torch

        need_torch()
        return write_torch
    if name.endswith((".keras", ".h5", ".hdf5")):
        return _keras_writer(path, template)
    if name.endswith(".onnx"):
        like = check_onnx(template, path)
        return lambda at, arrays, metadata: write_like(like, at, arrays, metadata)
    raise UsageError(
        f"cannot tell from its ending what {name} should be",
        where=str(path),
        do="choose an output that ends in one of: " + ", ".join(WRITES),
    )


def _keras_writer(path: Path, template: Store | None) -> Writer:
    from layoutx.files.keras_write import check_like, write_like

    if template is None:
        raise UsageError(
            f"{path.name} needs a Keras file to be like",
            where=str(path),
            why="Keras finds weights by groups and positions that only the model's own file shows",
            do="give a .keras, .weights.h5 or .h5 file of the same model (--like; the target of a transfer)",
        )
    check_like(template, path)
    zipped = path.suffix == ".keras"
    return lambda at, arrays, metadata: write_like(template, at, arrays, metadata, zipped=zipped)
