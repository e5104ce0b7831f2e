"""ONNX models as stores: initializers and Constant nodes, lazily; external data only from the model's own folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from stat import S_ISREG
from typing import Any

from layoutx.errors import FileError, UsageError, raise_all
from layoutx.files.blob import DO_AGAIN, Blob, array_at, reading, whole
from layoutx.files.blob import stored as stored_at
from layoutx.files.dtypes import Array, DType, settled
from layoutx.files.index import beside, some
from layoutx.files.limits import within
from layoutx.files.names import shown
from layoutx.files.onnx_functions import check_functions
from layoutx.files.onnx_wire import IN_PLACE, thinned
from layoutx.files.steady import state_in
from layoutx.files.store import Store, Tensor

STRING, BITS = 8, {21: 4, 22: 4, 23: 4, 25: 2, 26: 2, 27: 6, 28: 6}  # TensorProto.DataType: text; bits of packed types
LARGEST = 1 << 48  # elements: more is a forged shape
USUAL_RANK = 8  # axes for which no limit is looked up
HELD = frozenset((4, 5, 6, 7, 9, 10, 11, 13))  # fields of TensorProto: numbers by type, raw_data, external_data


def need_onnx() -> Any:
    """The onnx package.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise UsageError(
            "ONNX models need the onnx package", why=str(error), do='install it: pip install "layoutx[onnx]"'
        ) from error
    return onnx


def read_onnx(path: Path) -> Store:
    """The tensors of an ONNX model: initializers by name, Constant nodes by the name of their output.

    A tensor in the body of an If, Loop or Scan is called `<node>/<attribute>/<name>`. Texts are left out.

    Raises:
        UsageError: the onnx package is missing.
        FileError: no ONNX model; truncated; sparse initializers; external data that is missing, short or elsewhere.
    """
    need_onnx()
    with reading(path, "an ONNX model"):
        model = structure(path)
        sparse = [x.values.name for graph in _graphs(model) for x in getattr(graph, "sparse_initializer", ())]
        if sparse:
            raise FileError(
                f"{path.name} has sparse initializers: {some(sparse)}",
                where=str(path),
                why="layoutx reads dense tensors only",
                do="make them dense before the export",
            )
        found = [(name, proto) for name, proto in tensors_in(model.graph) if proto.data_type != STRING]
        within("TENSORS", len(found), path, "the graph")
        names = [name for name, _ in found]
        twice = next((name for name, count in Counter(names).items() if not name or count > 1), None)
        if twice is not None:
            raise FileError(f"{path.name} has several tensors called {shown(twice)}", where=str(path), do=DO_AGAIN)
        tensors, problems = {}, []
        for name, proto in found:
            try:
                tensors[name] = _tensor(name, proto, path)
            except FileError as error:
                problems.append(error)
        raise_all(problems, f"{len(problems)} tensors of {path.name} cannot be read")
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        return Store(path, "onnx", tensors, metadata, version=f"opset {opset_of(model)}")


def structure(path: Path) -> Any:
    """The file's ModelProto without its large numbers, which stay where they are in the file.

    Raises:
        FileError: no protobuf message, or one without a graph.
    """
    onnx = need_onnx()
    model = onnx.ModelProto()
    with reading(path, "an ONNX model"):
        model.ParseFromString(thinned(path))
        if not model.HasField("graph"):
            raise FileError(f"{path.name} is no ONNX model", where=str(path), why="it holds no graph", do=DO_AGAIN)
        if not all(isinstance(text, str) for text in _texts(model)):  # protobuf gives bytes where they are no UTF-8
            raise FileError(f"{path.name} is damaged", where=str(path), why="a name in it is no text", do=DO_AGAIN)
        check_functions(model, path)
    return model


def _texts(model: Any) -> Iterator[object]:
    """Every name that a model's reader relies on."""
    for entry in model.metadata_props:
        yield from (entry.key, entry.value)
    yield from (entry.domain for entry in model.opset_import)
    for graph in _graphs(model):
        yield graph.name
        for proto in getattr(graph, "initializer", ()):
            yield proto.name
            yield from (text for entry in proto.external_data for text in (entry.key, entry.value))
        for node in graph.node:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
            yield from (attribute.name for attribute in node.attribute)
            yield from (entry.value for entry in node.metadata_props if entry.key.startswith("pkg."))
        for info in (*getattr(graph, "value_info", ()), *graph.input, *graph.output):
            yield getattr(info, "name", info)


def _graphs(model: Any) -> Iterator[Any]:
    """The graph, the functions, and the bodies of their nodes."""
    graphs = [model.graph, *model.functions]
    while graphs:
        graph = graphs.pop()
        yield graph
        graphs.extend(body for node in graph.node for attribute in node.attribute for body in bodies(attribute))


def opset_of(model: Any) -> int:
    """The version of ONNX' own operators that a model uses."""
    return next((int(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def tensors_in(graph: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every TensorProto of a graph that has a value of its own, with its name in the store; bodies too."""
    for proto in graph.initializer:
        yield prefix + proto.name, proto
    for i, node in enumerate(graph.node):
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value" and node.output:
                yield prefix + node.output[0], attribute.t
            for body in bodies(attribute):
                yield from tensors_in(body, f"{prefix}{label(node, i)}/{attribute.name}/")


def bodies(attribute: Any) -> Sequence[Any]:
    """The graphs that an attribute holds."""
    return [attribute.g] if attribute.HasField("g") else list(attribute.graphs)


def label(node: Any, position: int) -> str:
    """What a node is called: its name, else its first output, else its operator and position."""
    return str(node.name or next(iter(node.output), "") or f"{node.op_type}_{position}")


def _tensor(name: str, proto: Any, path: Path) -> Tensor:
    shape = tuple(int(n) for n in proto.dims)
    if len(shape) > USUAL_RANK:
        within("RANK", len(shape), path, shown(name))
    count = prod(shape)
    if any(n < 0 for n in shape) or prod(n or 1 for n in shape) > LARGEST:
        raise FileError(f"{shown(name)} has a shape that is none: {shape}", where=str(path), do=DO_AGAIN)
    if len(HELD.intersection(field.number for field, _ in proto.ListFields())) > 1:
        raise FileError(f"{shown(name)} has its numbers twice, in two fields", where=str(path), do=DO_AGAIN)
    dtype = dtype_of(proto.data_type)
    if dtype is None:
        raise FileError(
            f"'{name}' has the element type {proto.data_type}",
            where=str(path),
            why="layoutx does not know it",
            do="install a newer onnx package, or convert it to another type",
        )
    blob = _blob(name, proto, path)
    if blob is None:
        return Tensor(name, dtype, shape, lambda: _small(name, proto, dtype, shape, path))
    packed = BITS.get(proto.data_type, 0)
    wanted = -(-count * packed // 8) if packed else count * dtype.itemsize
    if blob.size != wanted:
        raise FileError(
            f"'{name}' is cut short" if blob.size < wanted else f"'{name}' has more bytes than its shape",
            where=list(dict.fromkeys((str(path), str(blob.path)))),
            why=f"{dtype} of shape {shape} takes {wanted} bytes, the file gives {blob.size}",
            do=DO_AGAIN,
        )
    if packed:
        return Tensor(name, dtype, shape, lambda: _unpacked(proto, blob, dtype, path))
    stored = dtype.newbyteorder("<") if dtype.isbuiltin == 1 else dtype
    return stored_at(name, blob, 0, stored, shape)


def dtype_of(data_type: int) -> DType | None:
    """The NumPy (or ml_dtypes) dtype of a TensorProto.DataType, None for texts and unknown numbers."""
    import numpy as np

    if data_type == STRING:
        return None
    try:
        found: DType = np.dtype(need_onnx().helper.tensor_dtype_to_np_dtype(data_type))
    except (KeyError, TypeError):
        return None
    return found


def _small(name: str, proto: Any, dtype: DType, shape: tuple[int, ...], path: Path) -> Array:
    """Numbers that lie in the message itself, in typed fields or few raw bytes."""
    with reading(path, "an ONNX model"):
        array = settled(need_onnx().numpy_helper.to_array(proto))
        if (array.dtype, array.shape) != (dtype, shape):
            raise FileError(f"'{name}' does not hold what its shape says", where=str(path), do=DO_AGAIN)
        return array


def _unpacked(proto: Any, blob: Blob, dtype: DType, path: Path) -> Array:
    import numpy as np

    onnx = need_onnx()
    raw = array_at(blob, 0, np.dtype("u1"), (blob.size,)).tobytes()
    plain = onnx.TensorProto(dims=proto.dims, data_type=proto.data_type, raw_data=raw)
    with reading(path, "an ONNX model"):
        return settled(np.asarray(onnx.numpy_helper.to_array(plain)).astype(dtype, copy=False))


def _blob(name: str, proto: Any, path: Path) -> Blob | None:
    """Where the numbers lie: in this file, in another one beside it, or (None) in the message."""
    if proto.data_location != proto.EXTERNAL:
        return None
    said = {entry.key: entry.value for entry in proto.external_data}
    if IN_PLACE in said:
        offset, size = (int(n) for n in said[IN_PLACE].split())
        if offset < 0 or size < 0 or offset + size > path.stat().st_size:
            raise FileError(f"'{name}' lies outside the file", where=str(path), do=DO_AGAIN)
        return replace(whole(path), offset=offset, size=size)
    place = _beside(name, said.get("location", ""), path)
    try:
        about = place.stat()
        size = about.st_size
        offset = int(said.get("offset") or 0)
        length = int(said.get("length") or size - offset)
    except (OSError, ValueError) as error:
        raise FileError(
            f"the external data of {shown(name)} is missing",
            where=[str(path), f"it should lie in {shown(said.get('location', ''))}"],
            why=str(error)[:300],
            do="put the data file beside the model",
        ) from error
    if not S_ISREG(about.st_mode) or about.st_nlink > 1:
        raise FileError(
            f"the external data of {shown(name)} is no file of the model's own",
            where=[str(path), str(place)],
            why="it is a device, a folder, or a second name (hard link) of a file that lies elsewhere",
            do="make a copy of it under that name",
        )
    if offset < 0 or length < 0 or offset + length > size:
        raise FileError(
            f"the external data of {shown(name)} is cut short",
            where=[str(path), str(place)],
            why=f"it goes from byte {offset} to {offset + length} of {size}",
            do=DO_AGAIN,
        )
    return Blob(place, offset, length, state=state_in(about))


def _beside(name: str, location: str, path: Path) -> Path:
    """The data file, links followed; never one outside the model's folder."""
    target = beside(path, location)
    if target is None:
        raise FileError(
            f"the external data of {shown(name)} lies outside the model's folder",
            where=[str(path), f"location {shown(location)}"],
            why="a model must not make layoutx read other files",
            do="put the data file beside the model",
        )
    return target
