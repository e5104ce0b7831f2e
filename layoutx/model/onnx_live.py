"""A live ONNX model as a store: written to a folder of this process' own, and read like any other file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

from layoutx.errors import ModelError
from layoutx.files.open import open_store
from layoutx.files.store import Store

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

_BARE: list[TemporaryDirectory[str]] = []  # of models without weights, which take no room: until the process ends


def is_onnx(model: Any) -> bool:
    """Whether it is a `onnx.ModelProto`; nothing is imported."""
    return type(model).__name__ == "ModelProto" and type(model).__module__.split(".")[0] == "onnx"


def onnx_store(model: Any) -> Store:
    """The model's tensors; the file that they are read from goes with the last of them.

    Raises:
        ModelError: it cannot be written out, since its weights lie in other files or pass 2 GB.
    """
    from tempfile import TemporaryDirectory

    folder = TemporaryDirectory(prefix="layoutx-")
    path = Path(folder.name) / "model.onnx"
    try:
        path.write_bytes(model.SerializeToString())
    except Exception as error:  # protobuf's own errors
        why = " ".join(str(error).split())[:200]
        raise ModelError("the live ONNX model cannot be read", why=why, do="give its file") from error
    store = open_store(path)
    readers = [tensor.read for tensor in store.tensors.values()]
    left = set(map(id, readers))
    for reader in readers:
        finalize(reader, _one_less, left, id(reader), folder)
    if not readers:
        _BARE.append(folder)
    return store


def _one_less(left: set[int], gone: int, folder: TemporaryDirectory[str]) -> None:
    left.discard(gone)
    if not left:
        folder.cleanup()
