"""TensorFlow Lite `.tflite`: the constants of a model under their own names, read without TensorFlow."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import NoReturn

from layoutx.errors import FileError
from layoutx.files.blob import DO_AGAIN, array_at, mapped, reading, whole
from layoutx.files.dtypes import Array, DType, named
from layoutx.files.flatbuffer import BrokenError, Table, follow
from layoutx.files.limits import within
from layoutx.files.names import shown
from layoutx.files.store import Store, Tensor

LEAST = 32  # bytes of a graph or a tensor: a table, a vector, where they are pointed to
IDENTIFIER = b"TFL3"  # bytes 4 to 8 of the file
QUANTIZED, SKIPPED = "quantized:", "tflite:skipped"  # keys of the metadata
# TensorType of tensorflow/compiler/mlir/lite/schema/schema.fbs, version 3; "": not plain numbers of whole bytes
TYPES = (
    *("float32", "float16", "int32", "uint8", "int64", "", "bool", "int16", "complex64", "int8", "float64"),
    *("complex128", "uint64", "", "", "uint32", "uint16", "", "bfloat16", "", ""),
)
# fields of the schema's tables, by number
GRAPHS, BUFFERS, TENSORS = 2, 4, 0
SHAPE, TYPE, BUFFER, NAME, QUANTIZATION, SPARSITY = 0, 1, 2, 3, 4, 6
SCALE, ZERO_POINT, AXIS = 2, 3, 6
DATA, OFFSET, SIZE = 0, 1, 2


def read_tflite(path: Path) -> Store:
    """The constants of a `.tflite` file in its own order (`name#3` where another tensor has the name already).

    Quantised and sparse constants are listed with the dtype that is stored; metadata `quantized:<name>` holds scales,
    zero points and axis, and reading one fails, since its integers are not the weights. `tflite:skipped` names
    constants that are not plain numbers of whole bytes.

    Raises:
        FileError: the file is damaged, or no flatbuffer of this schema.
    """
    with reading(path, "a TensorFlow Lite model"):
        model = root(path)
        buffers = model.tables(BUFFERS)
        metadata: dict[str, str] = {}
        tensors: dict[str, Tensor] = {}
        skipped: list[str] = []
        for table, name in named_tensors(model):
            offset, size = _data(buffers, table.value(BUFFER, "<I"))
            dtype = _dtype(table)
            if size and dtype is None:
                skipped.append(name)
            elif size and dtype is not None:
                tensors[name] = _tensor(path, table, name, dtype, offset, size, metadata)
        if skipped:
            metadata[SKIPPED] = ", ".join(skipped)
        return Store(path, "tflite", tensors, metadata)


def root(path: Path) -> Table:
    """The model's table, over a map of the file.

    Raises:
        FileError: the file has not the identifier TFL3.
        BrokenError: its first offset leads out of it.
    """
    buf = memoryview(mapped(path))
    if bytes(buf[4:8]) != IDENTIFIER:
        raise FileError(f"{path.name} is no TensorFlow Lite model", where=str(path), why="bytes 4 to 8 are not TFL3")
    return follow(buf, 0)


def named_tensors(model: Table) -> list[tuple[Table, str]]:
    """The tensors of all graphs, constants or not, and the name of each in the store."""
    found: list[tuple[Table, str]] = []
    taken: set[str] = set()
    room = len(model.buf)
    for graph in model.tables(GRAPHS, LEAST):
        for table in graph.tables(TENSORS, LEAST):
            name = table.text(NAME)
            name = f"{name}#{len(found)}" if name in taken or not name else name
            room -= len(name) + LEAST
            if room < 0:  # a damaged vector of graphs or tensors comes back to the same ones without end
                raise BrokenError("its names are longer than the file")
            taken.add(name)
            found.append((table, name))
    return found


def _data(buffers: list[Table], index: int) -> tuple[int, int]:
    """Where a buffer's bytes begin in the file and how many they are; models over 2 GB have them at the end."""
    if index >= len(buffers):
        raise BrokenError(f"a tensor is in buffer {index} of {len(buffers)}")
    offset, size = (int(buffers[index].value(field, "<Q")) for field in (OFFSET, SIZE))
    return (offset, size) if offset > 1 else buffers[index].vector(DATA, 1)


def _dtype(table: Table) -> DType | None:
    kind = table.value(TYPE, "<b")
    return named(TYPES[kind]) if 0 <= kind < len(TYPES) and TYPES[kind] else None


def _tensor(
    path: Path, table: Table, name: str, dtype: DType, offset: int, size: int, metadata: dict[str, str]
) -> Tensor:
    shape = table.numbers(SHAPE, "i")
    within("RANK", len(shape), path, shown(name))
    quantization = table.table(QUANTIZATION)
    scales = quantization.numbers(SCALE, "f") if quantization else ()
    if quantization and scales:
        points, axis = quantization.numbers(ZERO_POINT, "q"), quantization.value(AXIS, "<i")
        metadata[QUANTIZED + name] = json.dumps({"scale": scales, "zero_point": points, "axis": axis})
        return Tensor(name, dtype, shape, lambda: _refuse(path, name, f"quantised: {dtype} with {len(scales)} scales"))
    if table.place(SPARSITY):
        return Tensor(name, dtype, shape, lambda: _refuse(path, name, "sparse: its zeros are not stored"))
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != size:
        raise FileError(
            f"{path.name}: '{name}' has not the size of its shape",
            where=f"{path}, {dtype} {shape}, {size} bytes",
            do=DO_AGAIN,
        )
    return Tensor(name, dtype, shape, lambda: _read(path, offset, dtype, shape))


def _read(path: Path, offset: int, dtype: DType, shape: tuple[int, ...]) -> Array:
    return array_at(whole(path), offset, dtype, shape)


def _refuse(path: Path, name: str, how: str) -> NoReturn:
    raise FileError(
        f"{path.name}: '{name}' is {how}",
        where=str(path),
        why="what is stored are not the weights themselves",
        do="convert the model again without quantisation and without sparsity",
    )
