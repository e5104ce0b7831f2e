"""What cannot be mapped is unpacked on the disk: the same numbers, bounded memory, and the space given back."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

from layoutx.errors import FileError
from layoutx.files import spool
from layoutx.files.open import open_store

RNG = np.random.default_rng(23)
Array = np.ndarray[Any, Any]
VARS = "layers/dense/vars/"  # where a Keras file has its datasets


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything above a few hundred bytes counts as large."""
    monkeypatch.setattr(spool, "LARGE", 300)
    monkeypatch.setattr(spool, "SLAB", 1000)


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes were asked for on the disk, each time."""
    asked: list[int] = []
    plain = spool.room

    def room(nbytes: int, of: Path) -> Array:
        asked.append(nbytes)
        return plain(nbytes, of)

    monkeypatch.setattr(spool, "room", room)
    return asked


def bits(array: Array) -> bytes:
    return array.tobytes()


@pytest.mark.parametrize("how", [{"compression": "gzip"}, {"compression": "lzf", "shuffle": True}, {}], ids=str)
@pytest.mark.parametrize(
    ("shape", "chunks"),
    [((37, 23), (5, 7)), ((37, 23), (37, 1)), ((37, 23), (1, 23)), ((11, 3, 13, 2), (4, 2, 5, 1)), ((1013,), (97,))],
    ids=str,
)
@pytest.mark.usefixtures("small")
def test_chunked_datasets(
    tmp_path: Path, rooms: list[int], how: dict[str, Any], shape: tuple[int, ...], chunks: tuple[int, ...]
) -> None:
    path = tmp_path / "chunked.weights.h5"
    made = {
        "plain": RNG.standard_normal(shape).astype(np.float32),
        "swapped": RNG.standard_normal(shape).astype(">f8"),
        "whole": RNG.integers(-9, 9, shape, np.int16),
        "flags": RNG.random(shape) < 0.5,
        "odd": np.frombuffer(RNG.bytes(8 * int(np.prod(shape))), ">f8").reshape(shape),  # every kind of NaN
        "pair": RNG.standard_normal(shape) + 1j,
    }
    brain = RNG.standard_normal(shape).astype(ml_dtypes.bfloat16)
    with h5py.File(path, "w") as file:
        for name, array in made.items():
            file.create_dataset(VARS + name, data=array, chunks=chunks, **how)
        file.create_dataset(VARS + "brain", data=brain.view("V2"), chunks=chunks, **how).attrs["dtype"] = "bfloat16"
        file.create_dataset(VARS + "gaps", shape, np.float32, chunks=chunks, fillvalue=1.5, **how)[:3] = 2
    store = open_store(path)
    expected = {**made, "brain": brain, "gaps": np.full(shape, 1.5, np.float32)}
    expected["gaps"][:3] = 2
    for name, array in expected.items():
        tensor = store.tensors[VARS + name]
        read = tensor.read()
        assert read.dtype == tensor.dtype == array.dtype.newbyteorder("=")
        assert bits(read) == bits(array.astype(read.dtype) if name != "odd" else array.byteswap())
        assert read.flags.c_contiguous
        assert not tensor.mapped
    assert rooms == [array.nbytes for array in expected.values() if array.nbytes > 300]
    assert len(rooms) >= 6


@pytest.mark.usefixtures("small")
def test_a_dataset_in_one_piece_that_needs_conversion(tmp_path: Path, rooms: list[int]) -> None:
    """Not chunked, and not what NumPy has: integers of 24 bits in 32, in boxes of rows."""
    path = tmp_path / "coded.weights.h5"
    kind = h5py.h5t.STD_I32LE.copy()
    kind.set_precision(24)
    given = RNG.integers(-8_000_000, 8_000_000, (41, 19), np.int32)
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple(given.shape)
        h5py.h5d.create(file.create_group(VARS).id, b"coded", kind, space).write(h5py.h5s.ALL, h5py.h5s.ALL, given)
    assert np.array_equal(open_store(path).tensors[VARS + "coded"].read(), given)
    assert rooms == [given.nbytes]


def test_boxes_fill_a_shape_with_whole_chunks() -> None:
    for shape, chunks, most in [
        ((10, 9), (3, 4), 50),
        ((10, 9), (3, 4), 4),
        ((7,), (2,), 99),
        ((5, 6, 7), (2, 6, 3), 40),
    ]:
        seen = np.zeros(shape, int)
        for box in spool.boxes(shape, chunks, 1, most):
            seen[box] += 1
            assert all(part.start % chunk == 0 for part, chunk in zip(box, chunks, strict=True))
            assert all(p.stop % c == 0 or p.stop == n for p, c, n in zip(box, chunks, shape, strict=True))
            assert seen[box].size <= max(most, int(np.prod(chunks)))
        assert (seen == 1).all()
    wide = list(spool.boxes((4096, 4096), (64, 64), 4))
    assert len(wide) == 8, "boxes are as large as they may be, and reach over whole rows"


@pytest.mark.usefixtures("small")
def test_compressed_zip_members(tmp_path: Path, rooms: list[int]) -> None:
    made = {"a": RNG.standard_normal((19, 13)), "f": np.asfortranarray(RNG.standard_normal((17, 5))), "s": np.arange(3)}
    made["b"] = RNG.integers(0, 9, (23, 29)).astype(">i4")
    np.savez_compressed(tmp_path / "packed.npz", **made)
    store = open_store(tmp_path / "packed.npz")
    for name, array in made.items():
        read = store.tensors[name].read()
        assert np.array_equal(read, array)
        assert read.flags.c_contiguous
        assert read.dtype == array.dtype.newbyteorder("=")
        with pytest.raises(ValueError, match="read-only"):
            read[...] = 0
    assert len(rooms) == 5, "three members are large; two of those are turned or swapped, too"


@pytest.mark.usefixtures("small")
def test_arrays_that_lie_turned_or_swapped_are_set_right_on_the_disk(tmp_path: Path, rooms: list[int]) -> None:
    odd = np.frombuffer(RNG.bytes(4 * 7 * 31), ">f4").reshape(7, 31)
    turned = np.asfortranarray(RNG.standard_normal((29, 11, 3)))
    pair = np.asfortranarray(RNG.standard_normal((13, 7)) + 2j)
    np.savez(tmp_path / "plain.npz", odd=odd, turned=turned, pair=pair, straight=RNG.standard_normal((20, 20)))
    store = open_store(tmp_path / "plain.npz")
    assert bits(store.tensors["odd"].read()) == odd.byteswap().tobytes()
    assert np.array_equal(store.tensors["turned"].read(), turned)
    assert np.array_equal(store.tensors["pair"].read(), pair)
    store.tensors["straight"].read()
    assert rooms == [odd.nbytes, turned.nbytes, pair.nbytes]


@pytest.mark.usefixtures("small")
def test_a_compressed_keras_file(tmp_path: Path, rooms: list[int]) -> None:
    """Keras stores the member; whoever packs the file again may compress it."""
    inner = tmp_path / "model.weights.h5"
    kernel = RNG.standard_normal((17, 19)).astype(np.float32)
    with h5py.File(inner, "w") as file:
        file["layers/dense/vars/0"] = kernel
        file.create_dataset("layers/dense/vars/1", data=kernel, chunks=(4, 5), compression="gzip")
    with zipfile.ZipFile(tmp_path / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.15.1"}')
        archive.writestr("config.json", '{"class_name": "Sequential", "config": {"layers": []}}')
        archive.write(inner, inner.name)
    store = open_store(tmp_path / "model.keras")
    assert rooms == [inner.stat().st_size]
    for tensor in store.tensors.values():
        assert np.array_equal(tensor.read(), kernel)
        assert not tensor.mapped


def test_a_compressed_torch_file(tmp_path: Path) -> None:
    """torch itself unpacks it, in memory: it can map stored members only."""
    torch = pytest.importorskip("torch")
    kernel = RNG.standard_normal((17, 19)).astype(np.float32)
    torch.save({"w": torch.from_numpy(kernel)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    for name in ("plain.pt", "packed.pt"):
        assert np.array_equal(open_store(tmp_path / name).tensors["w"].read(), kernel)


def test_the_space_is_given_back_and_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    with spool.spooling(tmp_path):
        made = spool.room(5 << 20, tmp_path / "x")
    made[:] = 7
    part = made.view(np.float64)[10:20]
    assert list(tmp_path.iterdir()) == []
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not list open files")

    def held() -> list[str]:
        found = [
            os.readlink(f"/proc/self/fd/{n}")
            for n in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{n}")
        ]
        return [name for name in found if name.startswith(str(tmp_path))]

    assert len(held()) == 1
    del made
    assert len(held()) == 1, "a view keeps it"
    assert part[0] == np.frombuffer(bytes([7] * 8))[0]
    del part
    assert held() == []


def test_where_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    plain = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: (asked.append(dir), plain(dir=dir))[1])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("TMPDIR", raising=False)
    beside = tmp_path / "beside"
    beside.mkdir()
    spool.room(10, beside)
    with spool.spooling(beside):
        spool.room(10, beside)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        spool.room(10, beside)
    spool.room(10, beside)
    assert asked == [str(tmp_path), str(beside), str(tmp_path), str(tmp_path)]


@pytest.mark.usefixtures("small")
def test_what_goes_wrong_is_a_file_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "packed.npz"
    np.savez_compressed(path, a=RNG.standard_normal((50, 40)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    hurt = tmp_path / "hurt.npz"
    hurt.write_bytes(data)
    with pytest.raises(FileError, match="cannot read hurt"):
        open_store(hurt).tensors["a"].read()
    chunked = tmp_path / "chunked.weights.h5"
    with h5py.File(chunked, "w") as file:
        file.create_dataset(
            VARS + "a", data=RNG.standard_normal((50, 40)), chunks=(7, 7), compression="gzip", fletcher32=True
        )
        place = file[VARS + "a"].id.get_chunk_info(20)
    data = bytearray(chunked.read_bytes())
    data[place.byte_offset + place.size // 2] ^= 0xFF
    chunked.write_bytes(data)
    with pytest.raises(FileError, match="cannot read chunked"):
        open_store(chunked).tensors[VARS + "a"].read()

    def full(handle: int, nbytes: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool, "take_room", full)
    with pytest.raises(FileError, match="no room to unpack") as caught:
        open_store(path).tensors["a"].read()
    assert "TMPDIR" in str(caught.value)
    assert "No space left" in str(caught.value)


def test_a_forged_shape_is_refused_before_room_is_asked_for(tmp_path: Path, rooms: list[int]) -> None:
    """A few bytes that claim to be half an exabyte: who trusts them hears that no disk has so many."""
    path = tmp_path / "forged.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(VARS + "a", (1 << 28, 1 << 28), np.float64, chunks=(1024, 1024), compression="gzip")
    with pytest.raises(FileError, match="EXPANSION"):
        open_store(path)
    assert rooms == []


def test_a_trusted_shape_asks_for_room_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No disk has half an exabyte, and none is filled before that is known."""
    path = tmp_path / "forged.weights.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(VARS + "a", (1 << 28, 1 << 28), np.float64, chunks=(1024, 1024), compression="gzip")
    monkeypatch.setenv("LAYOUTX_LIMIT_EXPANSION", str(1 << 60))
    with pytest.raises(FileError, match="no room to unpack"):
        open_store(path).tensors[VARS + "a"].read()


CHILD = """
import re, sys, threading, time, zlib
from pathlib import Path
import numpy as np
from layoutx.files.open import open_store

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) >> 10

store = open_store(Path(sys.argv[1]))
(tensor,) = store.tensors.values()
before = peak = anonymous()
done = threading.Event()

def watch():
    global peak
    while not done.wait(0.002):
        peak = max(peak, anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
array = tensor.read()
done.set()
watcher.join()
peak = max(peak, anonymous())
print(peak - before, array.nbytes, zlib.crc32(array))
"""


def grown(path: Path) -> tuple[int, int, int]:
    """How many MB of its own a process takes to read a file's only tensor, the tensor's bytes, and their crc32."""
    done = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    growth, nbytes, crc = map(int, done.stdout.split())
    return growth, nbytes, crc


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", ["h5", "h5 columns", "npz"])
def test_memory_is_bounded(tmp_path: Path, kind: str) -> None:
    import zlib

    given = np.repeat(RNG.integers(0, 255, 52_000, np.uint8), 4_000).view(np.float32).reshape(4_000, 13_000)  # 208 MB
    if kind == "npz":
        path = tmp_path / "large.npz"
        np.savez_compressed(path, a=given)
    else:
        path = tmp_path / "large.weights.h5"
        chunks = (4_000, 11) if kind == "h5 columns" else (257, 263)
        with h5py.File(path, "w") as file:
            file.create_dataset(
                VARS + "a", data=given, chunks=chunks, compression="gzip", compression_opts=1, shuffle=True
            )
    assert path.stat().st_size < given.nbytes / 3
    growth, nbytes, crc = grown(path)
    assert (nbytes, crc) == (given.nbytes, zlib.crc32(given))
    assert growth < 60, f"{growth} MB of anonymous memory for a tensor of {nbytes >> 20} MB"


def test_a_plain_reading_would_take_the_whole_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: below LARGE everything is unpacked in memory."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("memory is read from /proc")
    given = np.zeros((4_000, 20_000), np.float32)
    path = tmp_path / "large.npz"
    np.savez_compressed(path, a=given)
    small = "from layoutx.files import spool; spool.LARGE = 1 << 40\nstore ="
    monkeypatch.setattr(sys.modules[__name__], "CHILD", CHILD.replace("store =", small))
    monkeypatch.setenv("LAYOUTX_LIMIT_EXPANSION", "9999")
    growth, _, _ = grown(path)
    assert growth > 250


def test_two_threads_unpack_each_while_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that began first ends first: what is left is the other's folder, and at the end none."""
    monkeypatch.delenv("TMPDIR", raising=False)
    first, second = (spool.spooling(tmp_path / name) for name in ("first", "second"))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert spool._folders == [tmp_path / "second"]
    second.__exit__(None, None, None)
    assert spool._folders == []
    assert not spool.room(11, tmp_path).any()
