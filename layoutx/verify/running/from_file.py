"""A file of a whole model is loaded by its own framework; a file of weights is refused with what to do instead."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layoutx.errors import LayoutxError, ModelError, UsageError
from layoutx.files import zips
from layoutx.files.blob import reading
from layoutx.files.magic import HDF5
from layoutx.files.open import no_file, open_store
from layoutx.files.saved_model import keras_nodes
from layoutx.model.graph import graph_of
from layoutx.verify.running.given import said
from layoutx.verify.running.harmless import check_exported, check_keras, check_saved_model, check_script
from layoutx.verify.running.opened import Runner

LACKING = "is not installed"
DO = "give package.module:callable that builds the model and loads its weights"


def from_file(path: Path) -> Runner:
    """What runs the model in a file.

    Raises:
        UsageError: there is no such file, it holds weights alone, or its framework is not installed.
        ModelError: the framework does not load it. FileError: it is damaged.
    """
    if path.is_dir():
        return _folder(path)
    if not path.exists():
        raise no_file(path)
    with reading(path, "a model"), path.open("rb") as file:
        head = file.read(64)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        return _safetensors(path)
    if head.startswith(b"PK"):
        return _zip(path)
    if head.startswith(HDF5):
        return _keras(path)
    from layoutx.files.onnx_wire import looks_like_onnx

    if path.suffix == ".onnx" or looks_like_onnx(path):
        from layoutx.verify.running.onnx_run import onnx_file

        return onnx_file(path)
    raise _weights(path)


def _weights(path: Path) -> LayoutxError:
    return UsageError(
        f"{path.name} cannot be run",
        where=str(path),
        why="it holds weights, not a model: they do not say what is computed with them",
        do=DO,
    )


def _safetensors(path: Path) -> Runner:
    from layoutx.files.safetensors import read_safetensors
    from layoutx.verify.running.recorded import Recorded, is_recording, read_recording

    if not is_recording(read_safetensors(path)):
        raise _weights(path)
    return Recorded(read_recording(path))


def _zip(path: Path) -> Runner:
    with reading(path, "a zip file"), zips.opened(path) as archive:
        names = archive.namelist()
    if "config.json" in names:
        return _keras(path)
    below = [name.partition("/")[2] for name in names]
    if any(name.endswith(".json") and name.startswith("models/") for name in below) or any(
        name.endswith("serialized_exported_program.json") for name in names
    ):
        return _exported(path)
    if any(name.startswith("code/") for name in below):
        return _scripted(path)
    raise _weights(path)


def _exported(path: Path) -> Runner:
    from layoutx.files.torch_file import need_torch
    from layoutx.verify.running.export_run import ExportRunner

    torch = need_torch()
    check_exported(path)
    try:
        return ExportRunner(torch.export.load(path))
    except Exception as error:
        raise _not_loaded(path, "torch.export.load", error) from error


def _scripted(path: Path) -> Runner:
    from layoutx.files.torch_file import need_torch
    from layoutx.verify.running.torch_run import TorchRunner

    torch = need_torch()
    check_script(path)
    try:
        return TorchRunner(torch.jit.load(path, map_location="cpu"))
    except Exception as error:
        raise _not_loaded(path, "torch.jit.load", error) from error


def _keras(path: Path) -> Runner:
    """Keras 3 files by keras; older ones by tf_keras, whose functions they were trained with (hard_sigmoid, gelu)."""
    from layoutx.verify.running.keras_run import KerasRunner

    store = open_store(path)
    if store.config is None:
        raise _weights(path)
    graph_of(store.config)  # Keras would look for ever for an order of layers that wait for one another
    version = store.version or str(store.config.get("keras_version", ""))
    old = not version.startswith("3")
    problems: list[str] = []
    for name in ("tf_keras", "keras") if old else ("keras",):
        check_keras(path, store.config, _registered(name))
        library = _library(name)
        if library is None:
            problems.append(f"{name} {LACKING}")
            continue
        try:
            found = KerasRunner(library.models.load_model(path, compile=False, safe_mode=True))
        except Exception as error:
            problems.append(f"{name} {library.__version__}: {_cause(error)}")
            continue
        if old and name == "keras":
            found.note = f"a file of Keras {version} run by Keras {library.__version__}: some of its functions changed"
        return found
    missing = all(one.endswith(LACKING) for one in problems)
    first = 'pip install "layoutx[keras]"; or ' if missing else ""
    do = f"{first}{DO}; or run `layoutx record` where it loads, and give the recording"
    raise ModelError(f"no installed Keras loads {path.name}", where=[str(path), *problems], why=_by(version), do=do)


def _registered(library: str) -> Callable[[str], Any]:
    """The class that the user registered under a name; where the library is not loaded yet, nobody has."""
    loaded = sys.modules.get(library)
    found: Callable[[str], Any] = loaded.saving.get_registered_object if loaded is not None else lambda name: None
    return found


def _cause(error: BaseException) -> str:
    """What Keras found wrong: it stands at the end of its text, after the whole config, or in the first error."""
    first = error
    while first.__cause__ is not None or first.__context__ is not None:
        first = first.__cause__ or first.__context__ or first
    text = str(error).rpartition("Exception encountered:")[2]
    return said(first if len(str(first)) < len(text) or first is not error else ValueError(text), 200)


def _by(version: str) -> str:
    return f"it was written by Keras {version}" if version else ""


def _library(name: str) -> Any:
    import importlib

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _folder(path: Path) -> Runner:
    if not (path / "saved_model.pb").exists():
        raise UsageError(f"{path.name or path} is a folder without saved_model.pb", where=str(path), do=DO)
    from layoutx.verify.running.saved_run import SavedRunner

    try:
        import tensorflow as tf
    except ImportError as error:
        raise UsageError("a SavedModel needs tensorflow", why=str(error), do="install tensorflow") from error
    check_saved_model(path)  # tf_keras runs its graph too
    if _is_keras(path) and (library := _library("tf_keras")) is not None:
        from layoutx.verify.running.keras_run import KerasRunner

        try:
            return KerasRunner(library.models.load_model(path, compile=False))
        except Exception:  # its signature can still be called
            pass
    try:
        return SavedRunner(tf.saved_model.load(str(path)))
    except Exception as error:
        raise _not_loaded(path, "tf.saved_model.load", error) from error


def _is_keras(folder: Path) -> bool:
    """Whether Keras may make the layers of a SavedModel; it can be called without them."""
    about = folder / "keras_metadata.pb"
    if not about.is_file():
        return False
    try:
        for node in keras_nodes(about):
            check_keras(folder, node, _registered("tf_keras"))
    except LayoutxError:
        return False
    return True


def _not_loaded(path: Path, by: str, error: Exception) -> LayoutxError:
    return ModelError(f"{by} does not load {path.name}", where=str(path), why=said(error), do=DO)
