"""Open a weights file: what it is shows in its bytes, not in its ending."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice
from os import PathLike
from pathlib import Path

from layoutx.errors import FileError, UsageError
from layoutx.files import magic
from layoutx.files.blob import DO_AGAIN, reading
from layoutx.files.index import some
from layoutx.files.msgpack import is_msgpack
from layoutx.files.names import named_well
from layoutx.files.remote import located, url_of
from layoutx.files.steady import check_plain, state_at
from layoutx.files.store import Store
from layoutx.words import near

READS = (
    ".keras, .weights.h5, .h5, .safetensors, .index.json, .weights.json, .pt, .pth, .pt2, .npz, .onnx, .msgpack, "
    ".pdparams, .tflite, .index (TensorFlow checkpoint), a folder: SavedModel, "
    "orbax, a torch distributed checkpoint"
)
MOST_BESIDE = 1000  # files of a folder that are looked through for one that was meant
_OF_ONE = re.compile(r"\.(data-\d{5}-of-\d{5}|meta|index)$")  # what the files of one such checkpoint end in


def open_store(path: str | PathLike[str]) -> Store:
    """The tensors of a file, lazily: names, dtypes and shapes now, bytes when a tensor is read.

    Raises:
        UsageError: there is no such file, or torch is needed and missing.
        FileError: the file is empty, truncated, damaged, or none of the formats that layoutx reads; its names deceive.
    """
    path = located(path)
    state = state_at(path)
    store = named_well(_opened(path))
    return replace(store, state=state or state_at(store.path))


def _opened(path: Path) -> Store:
    """By the reader that the place or the first bytes ask for."""
    if url_of(path) is not None:
        from layoutx.files.remote_open import open_remote

        return open_remote(path)
    if path.is_dir():
        return _open_folder(path)
    if path.name == magic.PROGRAM and path.is_file():
        from layoutx.files.saved_model import read_saved_model

        return read_saved_model(path.parent)
    path = _named(path)
    return _open_file(path, _head(path))


def _open_folder(path: Path) -> Store:
    from layoutx.files.orbax_dir import is_orbax, read_orbax

    if is_orbax(path):
        return read_orbax(path)
    from layoutx.files.saved_model import is_saved_model, read_saved_model

    if is_saved_model(path):
        return read_saved_model(path)
    from layoutx.files.dcp_dir import is_dcp, read_dcp

    if is_dcp(path):
        return read_dcp(path)
    meant = _meant(path)
    if len(meant) == 1:
        return _opened(meant[0])
    which = some([file.name for file in meant]) or READS
    raise UsageError(f"{path.name or path} is a folder", where=str(path), do="name a file in it: " + which)


def _named(path: Path) -> Path:
    """The file that a name stands for: TensorFlow calls a checkpoint by what its files begin with."""
    beside = path.with_name(f"{_OF_ONE.sub('', path.name)}.index")
    stands_for = (not path.exists() or beside.stem != path.name) and beside.is_file()
    return beside if stands_for else path


def _head(path: Path) -> bytes:
    """The first 64 bytes of a file that may hold weights."""
    if not path.exists():
        raise no_file(path)
    check_plain(path)
    if not path.stat().st_size:  # what /proc has to say, too, for which a reader may have to wait
        raise FileError(f"{path.name} is empty", where=str(path), do=DO_AGAIN)
    with reading(path, "a file"), path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise FileError(
            f"{path.name} is a git-lfs pointer, not the file itself", where=str(path), do="run: git lfs pull"
        )
    if head.startswith(magic.HISTORY):
        what, do = f"{path.name} is a history of a training, not a model", f"run: layoutx history {path.name}"
        raise FileError(what, where=str(path), do=do)
    return head


def _open_file(path: Path, head: bytes) -> Store:
    """By what a file begins with; a TensorFlow checkpoint says what it is at its end."""
    # first, since its length bytes may spell "PK" (a header of 19280 bytes) or "{" (of 123)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        from layoutx.files.safetensors import read_safetensors

        return read_safetensors(path)
    if head[4:8] == b"TFL3":
        from layoutx.files.tflite_file import read_tflite

        return read_tflite(path)
    if head.startswith(b"PK"):
        return _open_zip(path)
    if head.lstrip()[:1] == b"{":
        return _open_index(path)
    if head[:1] == b"\x80" and head[2:14] == magic.TORCH:
        from layoutx.files.torch_file import read_torch

        return read_torch(path)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04"):
        from layoutx.files.paddle_file import read_pickle

        return read_pickle(path)
    if is_msgpack(head):
        from layoutx.files.msgpack_file import read_msgpack

        return read_msgpack(path)
    if _tail(path) == magic.TABLE:
        from layoutx.files.tf_checkpoint import read_checkpoint

        return read_checkpoint(path)
    if _is_hdf5(path, head):
        return _open_hdf5(path)
    from layoutx.files.onnx_wire import looks_like_onnx

    if path.suffix == ".onnx" or looks_like_onnx(path):
        from layoutx.files.onnx_file import read_onnx

        return read_onnx(path)
    raise _unknown(path, head)


def _meant(folder: Path) -> list[Path]:
    """The files of a folder that may be meant by it: its indices, of whatever kind, else its safetensors files."""
    indices = [one for ending in ("*.index", "*.index.json", "*.weights.json") for one in folder.glob(ending)]
    return sorted(indices or folder.glob("*.safetensors"))


def _tail(path: Path) -> bytes:
    """The last eight bytes."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - 8, 0))
        return file.read(8)


def _open_zip(path: Path) -> Store:
    from layoutx.files import zips

    with reading(path, "a zip file"), zips.opened(path) as archive:
        names = archive.namelist()
    if any(name in ("config.json", "metadata.json") or name.startswith("model.weights.") for name in names):
        from layoutx.files.keras_file import read_keras

        return read_keras(path)
    from layoutx.files.pt2_file import is_pt2, read_pt2

    if is_pt2(names):
        return read_pt2(path)
    if any(name.split("/", 1)[-1] == "data.pkl" for name in names):
        from layoutx.files.torch_file import read_torch

        return read_torch(path)
    if any(name.endswith(".npy") for name in names):
        from layoutx.files.npz import read_npz

        return read_npz(path)
    raise FileError(
        f"{path.name} is a zip file without weights",
        where=[str(path), "it holds: " + ", ".join(names[:8])],
        why="neither a .keras, .npz nor torch file",
        do="give one of: " + READS,
    )


def _open_index(path: Path) -> Store:
    from layoutx.files import keras_file
    from layoutx.files.index import parse_object, shard_files, text_of
    from layoutx.files.sharded import TORCH, read_index

    with reading(path, "an index of shards"):
        index = parse_object(text_of(path), path, "the file")
        shards = shard_files(path, index)
        endings = {shard.suffix for shard in shards}
        if endings == {".safetensors"}:
            from layoutx.files.safetensors import read_safetensors

            return read_index(path, index, read_safetensors)
        if endings and endings <= TORCH:
            from layoutx.files.torch_file import read_torch

            return read_index(path, index, read_torch)
        if endings == {".h5"}:
            return keras_file.read_sharded(path, index)
        raise FileError(
            f"{path.name} is an index of {', '.join(sorted(endings)) or 'no'} files",
            where=str(path),
            why="shards are read as .safetensors, torch .bin or Keras .weights.h5",
            do="save it again as safetensors",
        )


def _is_hdf5(path: Path, head: bytes) -> bool:
    """HDF5 begins at byte 0, or after a user block of 512, 1024, 2048, ... bytes."""
    if head.startswith(magic.HDF5):
        return True
    with path.open("rb") as file:
        size, at = path.stat().st_size, 512
        while at + 8 <= size:
            file.seek(at)
            if file.read(8) == magic.HDF5:
                return True
            at *= 2
    return False


def _open_hdf5(path: Path) -> Store:
    from layoutx.files import hdf5, keras_file, keras_legacy
    from layoutx.files.blob import whole

    with reading(path, "HDF5"):
        found = hdf5.listing(whole(path))
    if keras_legacy.is_legacy(found):
        return keras_legacy.read_legacy(path, found)
    if any(group.endswith("/vars") for group in found.groups):
        return keras_file.read_weights(path, found)
    held = ", ".join([name for name in (*found.groups, *found.datasets) if name and "/" not in name][:8]) or "nothing"
    raise FileError(
        f"{path.name} is HDF5, but no Keras file",
        where=[str(path), f"it holds: {held}"],
        why="it has neither layer_names nor vars groups",
        do="give one of: " + READS,
    )


def no_file(path: Path) -> UsageError:
    """There is nothing at this path; what lies beside it and is called alike is named."""
    if path.is_dir():
        return UsageError(f"{path.name or path} is a folder", where=str(path), do="name a file in it")
    beside = [one.name for one in islice(path.parent.iterdir(), MOST_BESIDE)] if path.parent.is_dir() else []
    why = near(path.name, beside) if path.parent.is_dir() else f"there is no folder {path.parent}"
    do = "check the path" if path.parts[:1] != ("~",) else "write the home folder out: a shell reads ~, in no quotes"
    module, _, name = path.name.rpartition(".")
    home = Path(module.partition(".")[0])
    if module and len(path.parts) == 1 and (home.is_dir() or home.with_suffix(".py").is_file()):
        do = f"check the path; what builds a model has a colon: {module}:{name}"
    return UsageError(f"there is no file {path.name}", where=str(path), why=why, do=do)


def _unknown(path: Path, head: bytes) -> FileError:
    why = f"it begins with {head[:12]!r}"
    if head.lstrip()[:1] == b"<":
        do = "copy or download the file again: what was saved is a page, not what it links to"
        return FileError(f"{path.name} is a web page, or XML, and holds no weights", where=str(path), why=why, do=do)
    if head[:1] == b"\x80":
        why += ", a bare pickle, which can run code when it is read"
    return FileError(
        f"{path.name} is none of the formats that layoutx reads", where=str(path), why=why, do="give one of: " + READS
    )
