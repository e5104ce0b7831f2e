"""Every bit of every dtype survives in every format that can hold it; the others refuse the tensor by its name."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bit_cases import DTYPES, FLOAT8, FORMATS, NEEDS, PACKED, RARE8, arrays_of, check, outcome, patterns, plain, write

import layoutx
from layoutx.errors import UsageError
from layoutx.files import spool
from layoutx.files.open import open_store
from layoutx.files.save import save

LONG = ("longdouble", "clongdouble")
TORCH = {*RARE8, *PACKED, *LONG}
REFUSED: dict[str, set[str]] = {
    ".safetensors": {*RARE8, *PACKED, *LONG, "complex128"},
    ".pt": TORCH,
    ".pth": TORCH,
    ".dcp": TORCH,
    ".pdparams": {*FLOAT8, *RARE8, *PACKED, *LONG, "uint16", "uint32", "uint64"},
    **{ending: {*LONG} for ending in (".npz", ".msgpack", ".keras", ".weights.h5", ".h5")},
    ".orbax": {"float8_e4m3", "float6_e2m3fn", "float6_e3m2fn", "uint4", "uint2", *LONG},
}
NO_WORD = {".onnx": {*RARE8, *LONG}}  # a template of that dtype cannot be made


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("name", DTYPES)
def test_every_bit_survives_or_the_tensor_is_refused(tmp_path: Path, ending: str, name: str) -> None:
    form = ending.split()[0]
    if form in NEEDS:
        pytest.importorskip(NEEDS[form])
    if name in NO_WORD.get(form, ()):
        pytest.skip("the format has no word for it")
    arrays = arrays_of(name)
    if form == ".orbax":
        arrays = {key: array for key, array in arrays.items() if array.size}
    assert outcome(ending, tmp_path, arrays) == ("refused" if name in REFUSED.get(form, ()) else "bit-exact")


@pytest.mark.parametrize("ending", FORMATS)
def test_a_bool_keeps_its_byte_even_where_it_is_neither_0_nor_1(tmp_path: Path, ending: str) -> None:
    form = ending.split()[0]
    if form in NEEDS:
        pytest.importorskip(NEEDS[form])
    odd = {"m/odd": np.array([0, 1, 2, 255, 128], np.uint8).view(bool)}
    assert outcome(ending, tmp_path, odd) == ("refused" if form in (".dcp", ".orbax") else "bit-exact")


def test_orbax_refuses_tensors_without_elements_by_name(tmp_path: Path) -> None:
    pytest.importorskip("orbax.checkpoint")
    empty = {key: array for key, array in arrays_of("float32").items() if not array.size}
    assert outcome(".orbax", tmp_path, empty) == "refused"


def test_the_comparison_sees_one_bit(tmp_path: Path) -> None:
    """The matrix can fail: a payload that a copy through float64 would change is told from the one that was written."""
    arrays = {"a": patterns("float32")}
    path, _ = write(".npz", tmp_path, arrays)
    quieted = arrays["a"].copy().view(np.uint32)
    quieted[2] |= 1 << 22  # what a processor does to a signalling NaN
    with pytest.raises(AssertionError, match="bits changed"):
        check(open_store(path), {"a": quieted.view(np.float32)})


@pytest.mark.parametrize("name", [n for n in DTYPES if n not in PACKED and n not in LONG])
def test_files_of_the_libraries_themselves_are_read_bit_for_bit(tmp_path: Path, name: str) -> None:
    """NumPy's and h5py's own writers, which keep big-endian and Fortran-ordered sources as they are."""
    import h5py

    arrays = {key.replace("/", "_"): array for key, array in arrays_of(name).items()}
    if plain(arrays["m_flat"]).dtype.isbuiltin == 1:
        for way in (np.savez, np.savez_compressed):
            way(tmp_path / "a.npz", **arrays)
            check(open_store(tmp_path / "a.npz"), arrays)
        with h5py.File(tmp_path / "a.weights.h5", "w") as file:
            for key, array in arrays.items():
                file.create_dataset(f"layers/d/vars/{key}", data=array)
                if array.size > 3 and array.ndim == 1:
                    file.create_dataset(
                        f"layers/d/vars/{key}z", data=array, chunks=(min(array.size, 1009),), compression="gzip"
                    )
        held = {f"layers/d/vars/{key}": array for key, array in arrays.items()}
        held |= {f"{key}z": array for key, array in held.items() if array.size > 3 and array.ndim == 1}
        check(open_store(tmp_path / "a.weights.h5"), held)
    if name not in REFUSED[".safetensors"]:
        from safetensors.numpy import save_file

        save_file({key: plain(array) for key, array in arrays.items()}, tmp_path / "a.safetensors")
        check(open_store(tmp_path / "a.safetensors"), arrays)


@pytest.mark.parametrize("name", ["float16", "float32", "bfloat16", *FLOAT8, "int8", "uint64", "bool", "complex64"])
def test_files_of_torch_flax_and_onnx_are_read_bit_for_bit(tmp_path: Path, name: str) -> None:
    torch, onnx = pytest.importorskip("torch"), pytest.importorskip("onnx")
    flax = pytest.importorskip("flax.serialization")
    arrays = {key: plain(array) for key, array in arrays_of(name).items()}
    ints = {key: torch.from_numpy(a.reshape(-1).view(f"i{a.itemsize}").copy()) for key, a in arrays.items()}
    state = {key: a.view(getattr(torch, name)).reshape(arrays[key].shape) for key, a in ints.items()}
    torch.save(state, tmp_path / "a.pt")
    check(open_store(tmp_path / "a.pt"), arrays)
    (tmp_path / "a.msgpack").write_bytes(flax.msgpack_serialize(arrays))
    check(open_store(tmp_path / "a.msgpack"), arrays)
    held = [onnx.numpy_helper.from_array(array, key) for key, array in arrays.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], held))
    onnx.save(model, tmp_path / "a.onnx")
    check(open_store(tmp_path / "a.onnx"), arrays)


@pytest.mark.parametrize("name", ["float32", "float64", "complex64", "int16"])
def test_what_is_unpacked_to_the_disk_keeps_its_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Large big-endian and turned tensors are settled in a temporary file, not in memory."""
    monkeypatch.setattr(spool, "LARGE", 0)
    arrays = {key.replace("/", "_"): array for key, array in arrays_of(name).items()}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    check(open_store(tmp_path / "a.npz"), arrays)


def _weights(shape: tuple[int, ...], dtype: str, seed: int) -> Any:
    """Random bits, a third of them NaNs with payloads, a -0.0, a denormal."""
    width = np.dtype(dtype).itemsize
    found = np.random.default_rng(seed).integers(0, 256, int(np.prod(shape)) * width, np.uint8).view(f"u{width}").copy()
    exponent = {2: 0x7C00, 4: 0x7F800000, 8: 0x7FF << 52}[width]
    found[::3] |= exponent
    found[1], found[2] = 1 << (8 * width - 1), 1
    return found.view(dtype).reshape(shape)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".pt", "sharded"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_conversion_moves_payloads_as_they_are(tmp_path: Path, ending: str, dtype: str) -> None:
    """A convolution's permutation, a transpose, an identity; from a big-endian file, laid or written at once."""
    import h5py

    if ending == ".pt":
        pytest.importorskip("torch")
    kernel, bias = _weights((3, 2, 5, 7), dtype, 1), _weights((7,), dtype, 2)
    dense, square = _weights((11, 13), dtype, 3), _weights((13, 13), dtype, 4)
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        big = np.dtype(dtype).newbyteorder(">")
        for layer, held in (("conv2d", (kernel, bias)), ("dense", (dense,)), ("dense_1", (square,))):
            for k, array in enumerate(held):
                swapped = array.byteswap().view(big) if layer == "dense" else array
                file.create_dataset(f"layers/{layer}/vars/{k}", data=swapped)
    sharded = ending == "sharded"
    out = tmp_path / ("out.safetensors" if sharded else f"out{ending}")
    forms = {"conv2d": "keras.Conv2D", "dense": "keras.Dense", "dense_1": "keras.Dense"}
    shard = {"max_shard_size": "1KB"} if sharded else {}
    layoutx.convert(tmp_path / "m.weights.h5", out, to="torch", forms=forms, keep_order=True, live=False, **shard)
    store = open_store(tmp_path / "out.safetensors.index.json" if sharded else out)
    want = {"conv2d.weight": kernel.transpose(3, 2, 0, 1), "conv2d.bias": bias}
    want |= {"dense.weight": dense.T, "dense_1.weight": square.T}
    check(store, want)


def test_what_a_name_would_lose_is_refused_before_it_is_written(tmp_path: Path) -> None:
    one, two = np.ones(3), np.zeros(3)
    cases: dict[str, list[dict[str, Any]]] = {
        ".npz": [{"../up": one}, {"a/../../up": one}, {"/root": one}, {"a": one, "a.npy": two}],
        ".msgpack": [{"layoutx/json": one}, {"m/__msgpack_chunked_array__": one}, {"a": one, "a/b": two}],
        ".pdparams": [{"StructuredToParameterName@@": one}, {"note@@": one}],
        ".safetensors": [{"__metadata__": one}],
    }
    if find_spec("torch"):
        cases[".dcp"] = [{"optimizer.state.x": one}, {"trainer": one}]
    if find_spec("orbax"):
        deep = [{"../up": one}, {"/root": one}, {"a//b": one}, {".": one}]
        cases[".orbax"] = [{"a.b": one, "a/b": two}, {"a": one, "a/b": two}, *deep]
    for ending, refusals in cases.items():
        for arrays in refusals:
            with pytest.raises(UsageError, match=r"cannot hold|inside another"):
                save(tmp_path / f"x{ending}", arrays, {"k": "v"})
    assert not list(tmp_path.iterdir())


def test_names_of_every_language_and_sign_survive(tmp_path: Path) -> None:
    names = [
        "/conv1/Constant_output_0",
        "a:0",
        "a.b.c",
        "层/重量",
        "emoji 🙂",
        " spaced  ",
        "ﬁ",
        "naïve",
        "naïve",
        "<b>&",
    ]
    arrays = {name: np.full(3, k, np.float32) for k, name in enumerate(names)}
    for ending in (".safetensors", ".msgpack", ".pdparams"):
        save(tmp_path / f"x{ending}", arrays, {})
        check(open_store(tmp_path / f"x{ending}"), arrays)
    save(tmp_path / "x.npz", {name: array for name, array in arrays.items() if name[0] != "/"}, {})
