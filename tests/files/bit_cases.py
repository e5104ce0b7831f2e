"""Every dtype with the bit patterns that careless copies change, written to every format in every way."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from layoutx.errors import LayoutxError, Problems, UsageError
from layoutx.files.atomic import replacing
from layoutx.files.laid.entry import Entry
from layoutx.files.laid.lay import lay
from layoutx.files.open import open_store
from layoutx.files.save import save
from layoutx.files.store import Store

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

PACKED = {"float6_e2m3fn": 6, "float6_e3m2fn": 6, "float4_e2m1fn": 4, "int4": 4, "uint4": 4, "int2": 2, "uint2": 2}
FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
RARE8 = ("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz")
CLASSES: dict[str, tuple[str, ...]] = {
    "float16, 32, 64": ("float16", "float32", "float64"),
    "bfloat16": ("bfloat16",),
    "float8 (five kinds of OCP and AMD)": FLOAT8,
    "float8 (e3m4, e4m3, e4m3b11fnuz)": RARE8,
    "float4, float6": ("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn"),
    "int8 to int64, uint8": ("int8", "int16", "int32", "int64", "uint8"),
    "uint16": ("uint16",),
    "uint32, uint64": ("uint32", "uint64"),
    "int2, int4, uint2, uint4": ("int2", "int4", "uint2", "uint4"),
    "bool": ("bool",),
    "complex64": ("complex64",),
    "complex128": ("complex128",),
    "long double": ("longdouble", "clongdouble"),
}
DTYPES = tuple(name for names in CLASSES.values() for name in names)
# ending, and whether its bytes are put into a file that was laid out before ("laid") or written at once
FORMATS = (
    *(".safetensors", ".safetensors laid", ".npz", ".pt", ".pth", ".dcp", ".msgpack", ".pdparams", ".orbax"),
    *(".keras", ".keras laid", ".weights.h5", ".weights.h5 laid", ".h5", ".h5 laid", ".onnx"),
)
NEEDS = {".pt": "torch", ".pth": "torch", ".dcp": "torch", ".orbax": "orbax.checkpoint", ".onnx": "onnx"}

# quiet and signalling NaNs with payloads, both zeros, both ends of the denormals, infinities; then 1.5
_F32 = (0x7FC12345, 0xFFC00001, 0x7F800001, 0xFFA00001, 0x80000000, 0, 1, 0x807FFFFF, 0x7F800000, 0xFF800000)
_F64 = (0x7FF8000000012345, 0xFFF8000000000001, 0x7FF0000000000001, 0xFFF40000DEADBEEF, 1 << 63, 0, 1,
        0x800FFFFFFFFFFFFF, 0x7FF << 52, 0xFFF << 52)  # fmt: skip


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, name))


def patterns(name: str) -> Array:
    """A flat array of a dtype: every bit pattern where there are at most 65536, else those that matter."""
    dtype = dtype_of(name)
    if name in PACKED:
        codes = np.arange(1 << PACKED[name])
        signed = name.startswith("int")
        values = (codes - (len(codes) >> 1)).astype(np.int8) if signed else codes.astype(np.uint8)
        return values.astype(dtype) if "int" in name else values.view(dtype)
    if name == "bool":
        return np.array([0, 1, 1, 0, 1, 0], np.uint8).view(bool)
    if dtype.itemsize <= 2:
        return np.arange(1 << 8 * dtype.itemsize, dtype=f"u{dtype.itemsize}").view(dtype)
    if name in ("float32", "complex64"):
        return np.array([*_F32, 0x3FC00000, 0x7FFFFFFF], np.uint32).view(dtype)
    if name in ("float64", "complex128"):
        return np.array([*_F64, 0x3FF8000000000000, 0x7FFFFFFFFFFFFFFF], np.uint64).view(dtype)
    if dtype.kind in "fc":
        return np.array([1.5, -0.0, np.nan, -np.inf], dtype)
    return np.random.default_rng(7).integers(0, 256, 11 * dtype.itemsize, np.uint8).view(dtype)


def arrays_of(name: str) -> Arrays:
    """Patterns in every shape that trips: flat, a scalar, turned, big-endian, and without elements."""
    flat = patterns(name)
    even = flat[: len(flat) // 2 * 2].reshape(2, -1)
    found = {"m/flat": flat, "m/scalar": flat[2].reshape(()), "m/turned": even.T, "m/fortran": np.asfortranarray(even)}
    found |= {"m/none": flat[:0], "m/none03": flat[:0].reshape(0, 3), "m/none30": flat[:0].reshape(3, 0)}
    if flat.dtype.isbuiltin == 1 and flat.dtype.itemsize > 1:
        found["m/swapped"] = flat.byteswap().view(flat.dtype.newbyteorder(">"))
    return found


def plain(array: Array) -> Array:
    """The same bits, native and C-contiguous, by integers alone."""
    swapped = array.dtype.isbuiltin != 2 and array.dtype != array.dtype.newbyteorder("=")
    native = array.byteswap().view(array.dtype.newbyteorder("=")) if swapped else array
    word = f"V{array.dtype.itemsize}"
    return np.array(native.view(word), order="C").view(native.dtype)


def check(store: Store, want: Arrays) -> None:
    """Raise unless a store gives back every bit."""
    assert set(store.tensors) == set(want)
    for name, array in want.items():
        tensor, exact = store.tensors[name], plain(array)
        got = tensor.read()
        assert (got.dtype, got.shape) == (exact.dtype, exact.shape) == (tensor.dtype, tensor.shape), name
        assert got.tobytes() == exact.tobytes(), f"{name}: bits changed"


def write(ending: str, folder: Path, arrays: Arrays) -> tuple[Path, Arrays]:
    """Write arrays in one of FORMATS; the file, and what it holds under the names that the format gives."""
    template, arrays = _template(ending.split()[0], folder, arrays)
    return _written(ending, folder, arrays, template), arrays


def _written(ending: str, folder: Path, arrays: Arrays, template: Store | None) -> Path:
    ending, _, laid = ending.partition(" ")
    path = folder / f"out{ending}"
    if laid:
        _lay(path, arrays, template)
    else:
        save(path, arrays, {"layoutx": "{}"}, template)
    return path


def outcome(ending: str, folder: Path, arrays: Arrays) -> str:
    """`bit-exact`, or `refused` by an error that names each tensor, before anything was written."""
    folder.mkdir(exist_ok=True)
    template, arrays = _template(ending.split()[0], folder, arrays)
    refusal: LayoutxError | None = None
    try:
        check(open_store(_written(ending, folder, arrays, template)), arrays)
    except LayoutxError as error:
        refusal = error
    if refusal is None:
        return "bit-exact"
    problems = refusal.problems if isinstance(refusal, Problems) else (refusal,)
    said = str(refusal)
    assert all(isinstance(problem, UsageError) for problem in problems), said
    assert len(problems) == len(arrays), said
    assert all(f"'{name}'" in said for name in arrays), said
    assert all("dtype" in " ".join(problem.where) for problem in problems), said
    assert not [name for name in os.listdir(folder) if "out" in name]
    return "refused"


def _lay(path: Path, arrays: Arrays, template: Store | None) -> None:
    ready = {name: plain(array) for name, array in arrays.items()}
    entries = [Entry(name, array.dtype, array.shape) for name, array in ready.items()]
    with replacing(path) as temporary:
        laid = lay(temporary, path, entries, 100, template)
        with temporary.open("rb+") as file:
            for name, array in ready.items():
                file.seek(laid.offsets[name])
                file.write(array.tobytes())
        laid.finish({"layoutx": "{}"}, 1)


def _template(ending: str, folder: Path, arrays: Arrays) -> tuple[Store | None, Arrays]:
    """A file for the formats that need one, which holds other numbers, of float32 where it may."""
    if ending in (".keras", ".weights.h5"):
        return _keras(folder, arrays, zipped=ending == ".keras")
    if ending == ".h5":
        return _legacy(folder, arrays)
    return (_onnx(folder, arrays), arrays) if ending == ".onnx" else (None, arrays)


def _keras(folder: Path, arrays: Arrays, zipped: bool) -> tuple[Store, Arrays]:
    import h5py

    path = folder / "like.weights.h5"
    names = [f"layers/dense/vars/{k}" for k in range(len(arrays))]
    with h5py.File(path, "w") as file:
        for name, array in zip(names, arrays.values(), strict=True):
            file.create_dataset(name, data=np.zeros(array.shape, np.float32))
    if zipped:
        with zipfile.ZipFile(folder / "like.keras", "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
            archive.write(path, "model.weights.h5")
        path = folder / "like.keras"
    return open_store(path), dict(zip(names, arrays.values(), strict=True))


def _legacy(folder: Path, arrays: Arrays) -> tuple[Store, Arrays]:
    import h5py

    path = folder / "like.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        group = file.create_group("dense")
        group.attrs["weight_names"] = [f"w{k}".encode() for k in range(len(arrays))]
        for k, array in enumerate(arrays.values()):
            group.create_dataset(f"w{k}", data=np.zeros(array.shape, np.float32))
    return open_store(path), {f"dense/w{k}": array for k, array in enumerate(arrays.values())}


def _onnx(folder: Path, arrays: Arrays) -> Store:
    from onnx import TensorProto, helper

    held = []
    for name, array in arrays.items():
        code = helper.np_dtype_to_tensor_dtype(plain(array).dtype)
        size = -(-array.size * PACKED.get(array.dtype.name, 8 * array.dtype.itemsize) // 8)
        held.append(TensorProto(name=name, dims=array.shape, data_type=code, raw_data=bytes(size)))
    path = folder / "like.onnx"
    path.write_bytes(helper.make_model(helper.make_graph([], "g", [], [], held)).SerializeToString())
    return open_store(path)
