"""New values in the graph of a given ONNX model: nodes, names and shapes stay, tensors are replaced."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layoutx.errors import LayoutxError, UsageError, raise_all
from layoutx.files.blob import reading
from layoutx.files.dtypes import Array, bits
from layoutx.files.onnx_file import BITS, STRING, dtype_of, need_onnx, tensors_in
from layoutx.files.onnx_replace import replaced
from layoutx.files.store import Store
from layoutx.files.written import append_all

INLINE_LIMIT = (1 << 31) - (1 << 24)  # protobuf holds 2 GiB; what is larger goes to a data file beside the model
TYPED = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data", "external_data")


def check_like(template: Store | None, path: Path) -> Store:
    """Refuse a template that is no ONNX model.

    Raises:
        UsageError: none, or a file of another format; the onnx package is missing.
    """
    need_onnx()
    if template is None or template.format != "onnx":
        raise UsageError(
            f"{path.name} needs an ONNX model to be like",
            where=str(path),
            why="the graph says what is computed with the weights, and only a model's own file has it",
            do="give an .onnx file of the same model (--like)",
        )
    return template


def write_like(template: Store, path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    """Write `arrays` (name in the template -> array of the same shape and dtype) into a copy of the template.

    A name of a value that the graph computes from its tensors is stored in its place.
    All tensors lie in the file itself where they fit into 2 GiB, else in `data_beside(path)`.

    Raises:
        UsageError: names that are missing or unknown, shapes or dtypes that differ; all of them together.
    """
    with reading(template.path, "a template"):
        model = replaced(template, arrays)
    _check(template, arrays, [name for name, proto in tensors_in(model.graph) if proto.data_type != STRING])
    found = [(name, proto) for name, proto in tensors_in(model.graph) if name in arrays]
    if sum(array.nbytes for array in arrays.values()) + model.ByteSize() <= INLINE_LIMIT:
        for name, proto in found:
            _clear(proto)
            proto.raw_data = _raw(proto, arrays[name])
    else:
        _outside(found, arrays, data_beside(path))
    kept = [entry for entry in model.metadata_props if entry.key not in metadata]
    pairs = [(entry.key, entry.value) for entry in kept] + list(metadata.items())
    del model.metadata_props[:]
    for key, value in pairs:
        model.metadata_props.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def data_beside(path: Path) -> Path:
    """The data file of a model that is written to a temporary `path`; it keeps its name when the model is renamed."""
    return path.with_name(path.name.removeprefix(".").removesuffix(".tmp") + ".data")


def discard_data(path: Path) -> None:
    """Take away the data file of a model that was not finished."""
    data_beside(path).unlink(missing_ok=True)


def _check(template: Store, arrays: Mapping[str, Array], names: Sequence[str]) -> None:
    where = str(template.path)
    problems: list[LayoutxError] = [
        UsageError(f"no values for '{name}'", where=where, do="give an array for it")
        for name in names
        if name not in arrays
    ]
    for name, array in arrays.items():
        tensor = template.tensors.get(name) if name in names else None
        if tensor is None:
            problems.append(UsageError(f"the template has no '{name}'", where=where, do="leave it out"))
        elif (array.shape, array.dtype) != (tensor.shape, tensor.dtype):
            given, wanted = f"{array.dtype} {array.shape}", f"{tensor.dtype} {tensor.shape}"
            what = f"'{name}' has another shape or dtype in the template"
            problems.append(UsageError(what, where=[where, f"given {given}, template {wanted}"]))
    raise_all(problems, f"{len(problems)} arrays do not fit {template.path.name}")


def _clear(proto: Any) -> None:
    for name in TYPED:
        proto.ClearField(name)
    proto.ClearField("data_location")


def _raw(proto: Any, array: Array) -> bytes:
    """An array as ONNX stores it: little-endian, small types packed."""
    if proto.data_type in BITS:
        return bytes(need_onnx().numpy_helper.from_array(array, proto.name).raw_data)
    if dtype_of(proto.data_type) == array.dtype and array.dtype.isbuiltin == 1:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return bits(array).tobytes()


def _outside(found: list[tuple[str, Any]], arrays: Mapping[str, Array], path: Path) -> None:
    with path.open("xb") as file:
        for name, proto in found:
            raw = _raw(proto, arrays[name])
            if len(raw) <= 1024:  # shapes and axes have to stay in the model
                _clear(proto)
                proto.raw_data = raw
                continue
            file.write(b"\0" * (-file.tell() % 64))
            said = {"location": path.name, "offset": str(file.tell()), "length": str(len(raw))}
            _clear(proto)
            proto.ClearField("raw_data")
            proto.data_location = proto.EXTERNAL
            for key, value in said.items():
                proto.external_data.add(key=key, value=value)
            append_all(file, raw)
        file.flush()
        os.fsync(file.fileno())
