"""HDF5 files listed without libhdf5: exactly what libhdf5 lists, and nothing where a file is odd."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from layoutx.errors import LayoutxError
from layoutx.files import hdf5
from layoutx.files.blob import Blob, member, whole
from layoutx.files.hdf5_plain import plain_listing, plain_skeleton
from layoutx.files.keras_file import weights_blob
from scripts.fuzzing.bytewise import mutated

ROOT = Path(__file__).resolve().parents[2]
REAL = sorted(path for name in ("corpus", "../examples") for path in (ROOT / "tests" / name).rglob("a*.h5"))
REAL += sorted((ROOT / "examples").glob("*.h5")) + sorted((ROOT / "tests/corpus").rglob("*.keras"))
REAL += sorted((ROOT / "examples").glob("*.keras"))
N = np.arange(6.0).reshape(2, 3)
CODES = ("?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", ">u2", ">i4", ">f2", ">f4", ">f8")
TEXTS = ["", "a", "dë", "漢字", "x" * 3000]


def orders(found: hdf5.Listing) -> list[list[str]]:
    return [list(some) for some in (found.groups, found.datasets, found.links, found.again)]


def same(blob: Blob) -> bool:
    """Whether a file is listed without libhdf5; if so, as by it."""
    found = plain_listing(blob)
    if found is not None:
        wanted = hdf5._asked(blob)
        assert found == wanted
        assert orders(found) == orders(wanted)
        kinds = [(type(one), type(one.offset), one.dtype and one.dtype.str) for one in found.datasets.values()]
        assert kinds == [(type(one), type(one.offset), one.dtype and one.dtype.str) for one in wanted.datasets.values()]
    rows = plain_skeleton(blob)
    if rows is not None:
        assert found is not None
        assert [list(row) for row in rows] == [list(row) for row in hdf5._asked_skeleton(blob)]
    return found is not None


def of_dtypes(file: h5py.File) -> None:
    for code in CODES:
        file[code.replace(">", "big")] = np.zeros((2, 3), code)
    for size in (1, 2, 4):
        file.create_dataset(f"raw{size}", data=np.zeros(3, f"V{size}")).attrs["dtype"] = "bfloat16"
    file.create_dataset("unnamed", data=np.zeros(3, "V2"))
    file.create_dataset("numbered", data=np.zeros(3, "V2")).attrs["dtype"] = 3


def of_shapes(file: h5py.File) -> None:
    for shape in ((), (1,), (0,), (0, 3), (3, 0, 2), (2,) * 12):
        file["x".join(map(str, shape)) or "one"] = np.zeros(shape, "f4")
    file.create_dataset("unwritten", (3, 4), "f4")
    file.create_dataset("dated", data=N, track_times=True)
    bounded = h5py.h5s.create_simple((2, 3), (2, 3))
    h5py.h5d.create(file.id, b"bounded", h5py.h5t.IEEE_F32LE, bounded)


def of_groups(file: h5py.File) -> None:
    for count in (0, 1, 8, 9, 300, 1500):
        own = file.create_group(f"many{count}")
        for k in range(count):
            own.create_group(f"layer_{k}")
    file.create_group("/".join("abcdefgh" * 4))["x"] = N
    for name in ("n" * 900, "with space", "a01", "a1", "a001", "..", "a:0", "1", "10", "9"):
        file["names/" + name] = N
    for name in ("b", "c", "d"):  # names that come and go leave holes in the heap
        file["gone/" + name * 20] = N
    del file["gone/" + "c" * 20]
    file["gone/e"] = N


def of_links(file: h5py.File) -> None:
    file["layers/dense_2/vars/0"] = N
    file["layers/again"] = file["layers/dense_2"]
    file["layers/dense_2/up"] = file["layers"]
    file["same"] = file["layers/dense_2/vars/0"]
    file["root"] = file["/"]


def of_notes(file: h5py.File) -> None:
    for number, text in enumerate(TEXTS):
        own = file.create_group(f"g{number}")
        own.attrs["name"] = text
        own.attrs["other"] = [text, "b"]
    numbers = (3, -1, 2**63, np.int8(-3), np.uint16(7), 1.5, True, [1, 2], np.array([[1]], ">i2"))
    texts = (np.bytes_(b"abc"), b"raw", ["a", "é"], [b"a", b"bc"], np.array([["a", "b"]], "O"), np.array([], "S3"))
    for number, value in enumerate((*numbers, *texts)):
        file.create_group(f"h{number}").attrs["name"] = value
    file.create_group("none").attrs["name"] = np.array([], "f8")
    utf8 = h5py.string_dtype("utf-8", 5)
    file.create_group("fixed").attrs.create("name", np.array(["é".encode(), b"abcde"]), dtype=utf8)
    file.create_group("plain").attrs["é"] = "é"
    for number in range(30):
        file.attrs[f"a{number}"] = "x" * number
    for number in range(0, 30, 2):
        del file.attrs[f"a{number}"]


def of_legacy(file: h5py.File) -> None:
    file.attrs["model_config"] = '{"x": "' + "y" * 200_000 + '"}'
    file.attrs["keras_version"], file.attrs["nb_layers"], file.attrs["layoutx"] = b"2.2.4", 2, '{"a": "b"}'
    own = file.create_group("model_weights")
    own.attrs["layer_names0"], own.attrs["layer_names1"] = [b"a", b"bb"], [b"c"]
    own.attrs["weight_names0"] = np.bytes_(b"one")
    below = own.create_group("a")
    below.attrs["weight_names"] = np.array([b"a/kernel:0", b"a/b:0"])
    below["a/kernel:0"], below["a/b:0"] = N, N
    below.attrs["nb_params"], below.attrs["name"] = np.int64(2), "not looked at"


PLAIN: dict[str, Callable[[h5py.File], None]] = {
    name.removeprefix("of_"): made for name, made in list(globals().items()) if name.startswith("of_")
}


def made_by(path: Path, make: Callable[[h5py.File], Any], **more: Any) -> Blob:
    with h5py.File(path, "w", **more) as file:
        make(file)
    return whole(path)


@pytest.mark.parametrize("name", PLAIN)
def test_what_h5py_writes_is_listed_as_by_libhdf5(name: str, tmp_path: Path) -> None:
    blob = made_by(tmp_path / "x.h5", PLAIN[name])
    assert same(blob)
    assert plain_skeleton(blob) is not None


@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parent.parent.name}/{path.parent.name}/{path.name}")
def test_real_files_are_listed_as_by_libhdf5(path: Path) -> None:
    blob = weights_blob(path, "keras" if path.suffix == ".keras" else "h5")
    assert same(blob)
    assert plain_skeleton(blob) is not None


def linked(link: Any) -> Callable[[h5py.File], None]:
    def make(file: h5py.File) -> None:
        file["a/b"], file["a/c"] = N, link

    return make


def dataset(**more: Any) -> Callable[[h5py.File], Any]:
    return lambda file: file.create_dataset("a/b", **{"shape": (5, 7), "dtype": "f4", **more})


def virtual(file: h5py.File) -> None:
    file.create_virtual_dataset("v", h5py.VirtualLayout((3,), "f8"))


def compact(file: h5py.File) -> None:
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_layout(h5py.h5d.COMPACT)
    h5py.h5d.create(file.id, b"c", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((3,)), how)


def at_odd_types(file: h5py.File) -> None:
    file["type"] = np.dtype("f4")
    file.create_dataset("committed", (3,), file["type"])


ODD: dict[str, tuple[Callable[[h5py.File], Any], dict[str, Any]]] = {
    "soft": (linked(h5py.SoftLink("/a/b")), {}),
    "external": (linked(h5py.ExternalLink("other.h5", "/x")), {}),
    "chunked": (dataset(chunks=(2, 3)), {}),
    "compressed": (dataset(compression="gzip", data=np.zeros((5, 7))), {}),
    "growing": (dataset(maxshape=(None, 7)), {}),
    "filled": (dataset(fillvalue=3), {}),
    "elsewhere": (dataset(external=[("other.raw", 0, 140)]), {}),
    "compact": (compact, {}),
    "virtual": (virtual, {}),
    "texts": (lambda file: file.__setitem__("t", ["a", "b"]), {}),
    "fixed": (lambda file: file.__setitem__("t", np.array([b"a", b"bc"])), {}),
    "complex": (dataset(dtype="c8"), {}),
    "record": (dataset(dtype=[("a", "f4")]), {}),
    "long": (dataset(dtype="f16"), {}),
    "empty": (lambda file: file.__setitem__("e", h5py.Empty("f4")), {}),
    "nothing": (lambda file: file.attrs.__setitem__("name", h5py.Empty("f4")), {}),
    "reference": (lambda file: file.attrs.__setitem__("name", file.ref), {}),
    "type": (at_odd_types, {}),
    "latest": (of_dtypes, {"libver": "latest"}),
    "ordered": (of_links, {"track_order": True}),
    "user block": (of_links, {"userblock_size": 512}),
    "paged": (of_links, {"fs_strategy": "page"}),
    "no text": (lambda file: h5py.h5g.create(file.id, b"\xff\xfe"), {}),
    "beyond ASCII": (lambda file: file.create_group("漢字"), {}),
    "deep": (lambda file: file.create_group("/".join("a" * 100)), {}),
    "no utf-8": (lambda file: file.attrs.create("backend", np.bytes_(b"\xff")), {}),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_left_to_libhdf5(name: str, tmp_path: Path) -> None:
    make, more = ODD[name]
    blob = made_by(tmp_path / "x.h5", make, **more)
    assert plain_listing(blob) is None
    assert plain_skeleton(blob) is None


@pytest.mark.parametrize("limit", ["TENSORS", "NAME", "DEPTH", "HEADER", "MEMORY"])
def test_what_passes_a_limit_is_left_to_it(limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(file: h5py.File) -> None:
        of_groups(file)
        of_legacy(file)

    blob = made_by(tmp_path / "x.h5", make)
    assert plain_listing(blob) is not None
    lowered = {"TENSORS": 20, "NAME": 800, "DEPTH": 20, "HEADER": 100_000, "MEMORY": 1_000_000}
    monkeypatch.setenv(f"LAYOUTX_LIMIT_{limit}", str(lowered[limit]))
    assert plain_listing(blob) is None


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_inside_an_archive_it_is_listed_alike(tmp_path: Path, compression: int) -> None:
    made_by(tmp_path / "x.h5", of_legacy)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", compression) as archive:
        archive.writestr("before", b"odd")
        archive.write(tmp_path / "x.h5", "x.h5")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        blob = member(archive.getinfo("x.h5"), tmp_path / "x.zip")
    assert (blob.packed is None) == (compression == zipfile.ZIP_STORED)
    assert same(blob)


@pytest.mark.skipif(sys.platform == "win32", reason="libhdf5 locks nothing there")
def test_a_file_that_is_being_written_is_left_to_libhdf5(tmp_path: Path) -> None:
    """Half of it may still be in the writer's memory; libhdf5 sees the lock, and refuses."""
    path = tmp_path / "x.h5"
    made_by(path, of_links)
    assert plain_listing(whole(path)) is not None
    with h5py.File(path, "a"):
        assert plain_listing(whole(path)) is None
    import fcntl

    with path.open("rb") as file:  # what an older libhdf5 leaves in the file does not tell it
        fcntl.flock(file, fcntl.LOCK_EX)
        assert plain_listing(whole(path)) is None
    assert plain_listing(whole(path)) is not None


def replaced(path: Path, *changes: tuple[int, bytes]) -> Blob:
    data = bytearray(path.read_bytes())
    for at, new in changes:
        data[at : at + len(new)] = new
    path.write_bytes(data)
    return whole(path)


def test_structures_that_lead_to_themselves_have_an_end(tmp_path: Path) -> None:
    """A tree below itself, a header that goes on in itself, a list of free space in a ring, names without an end."""
    path = tmp_path / "x.h5"
    made_by(path, of_groups)
    data = path.read_bytes()
    tree, heap = struct.unpack_from("<QQ", data, 80)
    free, names = struct.unpack_from("<QQ", data, heap + 16)
    root = struct.unpack_from("<Q", data, 64)[0]
    forged = {
        "tree": (tree + 32, struct.pack("<Q", tree)),
        "deep tree": (tree + 5, b"\1"),
        "neighbour": (tree + 8, struct.pack("<Q", tree)),
        "header": (root + 16, struct.pack("<HHIQQ", 16, 16, 0, root + 16, 24)),
        "ring": (names + free, struct.pack("<Q", free)),
        "names": (names + 8, b"a" * 64 * 1024),
        "heap": (heap + 8, struct.pack("<Q", 1 << 63)),
        "far": (tree + 32, struct.pack("<Q", (1 << 64) - 16)),
    }
    for name, change in forged.items():
        path.write_bytes(data)
        began = time.process_time()
        assert plain_listing(replaced(path, change)) is None, name
        assert time.process_time() - began < 1, name


@pytest.mark.parametrize(
    "forged",
    [
        {0: 4},
        {1: 0},
        {1: 2},
        {2: 0},
        {2: 1 << 20},
        {2: (1 << 64) - 8},
        {3: 40},
        {3: 56},
    ],
)
def test_a_dataset_that_lies_oddly_is_left_to_libhdf5(forged: dict[int, int], tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    made_by(path, lambda file: file.create_dataset("n", data=N))
    with h5py.File(path) as file:
        layout = [3, 1, file["n"].id.get_offset(), N.nbytes]
    at = path.read_bytes().index(struct.pack("<BBQQ", *layout))
    new = [forged.get(number, one) for number, one in enumerate(layout)]
    assert plain_listing(replaced(path, (at, struct.pack("<BBQQ", *new)))) is None


def test_a_file_cut_anywhere_is_left_to_libhdf5(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    made_by(path, of_notes)
    data = path.read_bytes()
    for size in range(0, len(data), 97):
        path.write_bytes(data[:size])
        assert plain_listing(whole(path)) is None


@pytest.mark.parametrize("name", ["notes", "dtypes", "links", "legacy"])
def test_a_file_with_other_bytes_is_listed_as_by_libhdf5_or_left_to_it(name: str, tmp_path: Path) -> None:
    """Where libhdf5 refuses what was listed here, a look at it is due: none is known."""
    rng, path = random.Random(name), tmp_path / "x.h5"
    made_by(path, PLAIN[name])
    data = path.read_bytes()
    held = [at for at in range(len(data)) if any(data[max(at - 8, 0) : at + 8])]
    outcomes = {True: 0, False: 0}
    for turn in range(200):
        new = bytearray(data)
        for _ in range(rng.choice((1, 1, 3))):
            new[rng.choice(held)] = rng.choice((0, 1, 2, 8, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        path.write_bytes(mutated(rng, data) if turn % 5 == 0 else new)
        try:
            outcomes[same(whole(path))] += 1
        except LayoutxError as error:
            pytest.fail(f"libhdf5 refuses what was listed: {error}")
    assert min(outcomes.values()) > 10, outcomes


def test_neither_libhdf5_nor_another_process_is_needed(tmp_path: Path) -> None:
    script = """
import sys, os
from layoutx.files import isolated
from layoutx.files.open import open_store
for path in sys.argv[1:]:
    for tensor in open_store(path).tensors.values():
        tensor.read()
print(isolated._kept, "h5py" in sys.modules)
"""
    files = [str(ROOT / "examples" / "digits.keras"), str(ROOT / "examples" / "rows.h5")]
    for switch in ("0", "1"):
        call = [sys.executable, "-c", script, *files]
        done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, env={"LAYOUTX_ISOLATE": switch})
        assert done.stdout.split() == ["None", "False"], done.stderr
