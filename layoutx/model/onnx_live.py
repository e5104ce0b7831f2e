"""A live ONNX model as a store: written to a folder of this process' own, and read like any other file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from layoutx.errors import ModelError
from layoutx.files.open import open_store
from layoutx.files.store import Store

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

_FOLDERS: list[TemporaryDirectory[str]] = []  # they live as long as the process: tensors are read when asked for


def is_onnx(model: Any) -> bool:
    """Whether it is a `onnx.ModelProto`; nothing is imported."""
    return type(model).__name__ == "ModelProto" and type(model).__module__.split(".")[0] == "onnx"


def onnx_store(model: Any) -> Store:
    """The model's tensors.

    Raises:
        ModelError: it cannot be written out, since its weights lie in other files or pass 2 GB.
    """
    from tempfile import TemporaryDirectory

    folder = TemporaryDirectory(prefix="layoutx-")
    _FOLDERS.append(folder)
    path = Path(folder.name) / "model.onnx"
    try:
        path.write_bytes(model.SerializeToString())
    except Exception as error:  # protobuf's own errors
        why = " ".join(str(error).split())[:200]
        raise ModelError("the live ONNX model cannot be read", why=why, do="give its file") from error
    return open_store(path)
