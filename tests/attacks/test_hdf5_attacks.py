"""HDF5 files made to lead out of themselves, to unpack to more than there is, or to end the process that reads them.

libhdf5 runs in a process of its own, with little memory and time (`layoutx.files.isolated`); most of what is here is
refused before that matters.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

Refused = Callable[..., str]
VARS = "layers/dense/vars"
N = np.arange(35.0).reshape(5, 7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hostile.weights.h5"


def variables(path: Path, **more: Any) -> h5py.File:
    """A Keras 3 weights file with one sound tensor, open for more."""
    file = h5py.File(path, "w", **more)
    file.create_group(VARS)["0"] = N
    return file


def legacy(path: Path, layers: Any = (b"d",), weights: Any = (b"d/kernel:0",)) -> h5py.File:
    """A legacy file of one layer with one weight, open for more."""
    file = h5py.File(path, "w")
    file.attrs["layer_names"] = layers
    file.create_group("d").attrs["weight_names"] = weights
    file["d/d/kernel:0"] = N
    return file


def test_the_files_without_their_attack_are_read(refused: Refused, path: Path) -> None:
    variables(path).close()
    assert refused(path, fine=True) == "1 tensors"
    legacy(path).close()
    assert refused(path, fine=True) == "1 tensors"


# what leads out of the file


def test_an_external_link(refused: Refused, path: Path) -> None:
    """CVE-2022-36359's kind: a path in a file that the reader opens for it."""
    with variables(path) as file:
        file[f"{VARS}/1"] = h5py.ExternalLink("/etc/passwd", "/x")
    refused(path, "holds a link", f"/{VARS}/1")


def test_an_external_link_in_place_of_a_group(refused: Refused, path: Path) -> None:
    with variables(path) as file:
        file["layers/other"] = h5py.ExternalLink("other.h5", "/")
    refused(path, "holds a link", "layers/other")


def test_an_external_link_where_a_legacy_weight_should_be(refused: Refused, path: Path) -> None:
    with legacy(path) as file:
        del file["d/d/kernel:0"]
        file["d/d/kernel:0"] = h5py.ExternalLink("/etc/passwd", "/x")
    refused(path, "holds a link", "d/d/kernel:0")


def test_a_soft_link(refused: Refused, path: Path) -> None:
    with variables(path) as file:
        file[f"{VARS}/1"] = h5py.SoftLink(f"/{VARS}/0")
    refused(path, "holds a link")


def test_soft_links_that_lead_to_each_other(refused: Refused, path: Path) -> None:
    with variables(path) as file:
        file["layers/a"], file["layers/b"] = h5py.SoftLink("/layers/b"), h5py.SoftLink("/layers/a")
    refused(path, "holds a link", "layers/a")


def test_a_link_of_a_kind_that_the_file_defines(refused: Refused, path: Path) -> None:
    """User-defined links call code that somebody registered for their class."""
    with variables(path, libver="latest") as file:
        file[f"{VARS}/1"] = h5py.ExternalLink("other.h5", "/x")
    data = path.read_bytes()
    at = data.index(b"other.h5") - 4
    assert 64 in data[at - 8 : at]  # the class of external links
    place = data.rindex(b"\x40", 0, at + 4)
    path.write_bytes(data[:place] + b"\x55" + data[place + 1 :])
    refused(path)


def test_a_dataset_kept_in_another_file(refused: Refused, path: Path) -> None:
    with variables(path) as file:
        file.create_dataset(f"{VARS}/1", (3,), "f8", external=[("/etc/passwd", 0, 24)])
    refused(path, "no data of its own", "kept in another file")


def test_a_virtual_dataset(refused: Refused, path: Path) -> None:
    with variables(path) as file:
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3,))
        file[VARS].create_virtual_dataset("1", layout)
    refused(path, "no data of its own")


# what has no end


def test_a_group_inside_itself(refused: Refused, path: Path) -> None:
    """Each object is looked at once: odd, and harmless."""
    with variables(path) as file:
        file[f"{VARS}/up"] = file["layers"]
        file["layers/dense/self"] = file["layers/dense"]
    assert refused(path, fine=True) == "1 tensors"


def test_groups_nested_a_thousand_deep(refused: Refused, path: Path) -> None:
    with variables(path) as file:
        file.create_group("/".join("a" * 1000))
    refused(path, "levels", "LAYOUTX_LIMIT_DEPTH")


def test_a_name_of_a_megabyte(refused: Refused, path: Path) -> None:
    with variables(path, libver="latest") as file:
        file[VARS].create_group("n" * 60_000)
    refused(path, "LAYOUTX_LIMIT_NAME")


# what unpacks to more than it is


def test_a_chunk_that_inflates(refused: Refused, path: Path) -> None:
    """One chunk that declares kilobytes to be 400 MB."""
    with variables(path) as file:
        made = file.create_dataset(f"{VARS}/1", (50_000_000,), "f8", chunks=(50_000_000,), compression="gzip")
        made.id.write_direct_chunk((0,), zlib.compress(bytes(1 << 20)))
    assert path.stat().st_size < 500_000
    refused(path, "grows when it is unpacked", "LAYOUTX_LIMIT_EXPANSION")


def test_a_giant_chunk_that_was_never_written(refused: Refused, path: Path) -> None:
    with variables(path) as file:
        file.create_dataset(f"{VARS}/1", (25_000_000,), "f8", chunks=(25_000_000,), compression="gzip")
    refused(path, "a chunk of", "LAYOUTX_LIMIT_EXPANSION")


def test_many_chunks_that_inflate(refused: Refused, path: Path) -> None:
    packed = zlib.compress(bytes(4_000_000))
    with variables(path) as file:
        for k in range(8):
            made = file.create_dataset(f"{VARS}/z{k}", (5000, 1000), "f8", chunks=(500, 1000), compression="gzip")
            for row in range(0, 5000, 500):
                made.id.write_direct_chunk((row, 0), packed)
    refused(path, "grows when it is unpacked", "LAYOUTX_LIMIT_EXPANSION")


def test_a_chunk_that_inflates_to_more_than_it_declares(refused: Refused, path: Path) -> None:
    """libhdf5 goes on inflating until the stream ends: only the memory of its own process stops it."""
    with variables(path) as file:
        made = file.create_dataset(f"{VARS}/1", (1000,), "f8", chunks=(1000,), compression="gzip")
        packer = zlib.compressobj(9)
        bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
        made.id.write_direct_chunk((0,), bomb)
    refused(path, "unpacks to 8001 bytes or more, not 8000")


@pytest.mark.parametrize("chunks", [None, (1000, 1000)], ids=["in one piece", "chunked"])
def test_a_shape_of_terabytes_that_was_never_written(refused: Refused, path: Path, chunks: Any) -> None:
    with variables(path) as file:
        file.create_dataset(f"{VARS}/1", (10**6, 10**6), "f4", chunks=chunks, fillvalue=1.5)
    refused(path, "grows when it is unpacked")


def test_a_shape_whose_product_overflows(refused: Refused, path: Path) -> None:
    with variables(path) as file:
        file.create_dataset(f"{VARS}/1", (2**31, 2**31), "f8", chunks=(1024, 1024))
        file.create_dataset(f"{VARS}/2", (3, 11), "f8")
    data = path.read_bytes()
    old = struct.pack("<QQ", 2**31, 2**31)
    assert old in data
    path.write_bytes(data.replace(old, struct.pack("<QQ", 2**63, 2**63 + 1)))
    refused(path)


def test_a_forged_shape_of_a_dataset_in_one_piece(refused: Refused, path: Path) -> None:
    variables(path).close()
    data = path.read_bytes()
    old = struct.pack("<QQ", 5, 7)
    assert old in data
    path.write_bytes(data.replace(old, struct.pack("<QQ", 5 << 30, 7)))
    refused(path)


def test_thirty_three_axes(refused: Refused, path: Path) -> None:
    """HDF5 itself stops at 32; the message is forged to say more."""
    with variables(path) as file:
        file.create_dataset(f"{VARS}/1", (1,) * 32, "f8", data=np.zeros((1,) * 32))
    data = path.read_bytes()
    at = data.index(bytes([1, 32, 1]) + bytes(5) + struct.pack("<Q", 1))
    path.write_bytes(data[: at + 1] + bytes([33]) + data[at + 2 :])
    refused(path)


def test_two_datasets_in_the_same_bytes(refused: Refused, path: Path) -> None:
    with variables(path) as file:
        file[f"{VARS}/1"] = N + 100
        first, second = (file[f"{VARS}/{k}"].id.get_offset() for k in "01")
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<QQ", second, N.nbytes), struct.pack("<QQ", first + 8, N.nbytes)))
    refused(path, "two datasets lie in the same bytes")


def test_a_dataset_past_the_end(refused: Refused, path: Path) -> None:
    with variables(path) as file:
        first = file[f"{VARS}/0"].id.get_offset()
    data = path.read_bytes()
    path.write_bytes(data.replace(struct.pack("<QQ", first, N.nbytes), struct.pack("<QQ", len(data) - 8, N.nbytes)))
    refused(path)


# filters


def test_a_filter_that_nobody_has(refused: Refused, path: Path) -> None:
    """libhdf5 would look for a library of that number and load it; here it loads none."""
    with variables(path) as file:
        file.create_dataset(f"{VARS}/1", data=N, chunks=(5, 7), compression="gzip")
    data = path.read_bytes()
    old = struct.pack("<HHHH", 1, 8, 1, 1) + b"deflate\0"
    assert old in data
    path.write_bytes(data.replace(old, struct.pack("<HHHH", 32001, 8, 0, 1) + b"blosc\0\0\0"))
    refused(path, "cannot read")


def test_no_library_is_loaded_for_a_filter(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that lies where the environment says that filters are: strace would show it, its trace does here."""
    from layoutx.errors import FileError
    from layoutx.files import isolated
    from layoutx.files.open import open_store

    source = tmp_path / "evil.c"
    trace = tmp_path / "loaded"
    source.write_text(f'#include <stdio.h>\n__attribute__((constructor)) void f(void) {{ fopen("{trace}", "w"); }}\n')
    import shutil
    import subprocess

    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "plugins").mkdir()
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / "plugins" / "evil.so", source], check=True)
    with variables(path) as file:
        file.create_dataset(f"{VARS}/1", data=N, chunks=(5, 7), compression="gzip")
    data = path.read_bytes()
    old = struct.pack("<HHHH", 1, 8, 1, 1) + b"deflate\0"
    path.write_bytes(data.replace(old, struct.pack("<HHHH", 32001, 8, 0, 1) + b"blosc\0\0\0"))
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(tmp_path / "plugins"))
    isolated.close()
    try:
        with pytest.raises(FileError, match="cannot read"):
            open_store(path).tensors[f"{VARS}/1"].read()
    finally:
        isolated.close()
    assert not trace.exists()


def test_a_filter_whose_output_has_another_size(refused: Refused, path: Path) -> None:
    """libhdf5 1.14 reads on behind the 13 bytes, whatever is in its memory there."""
    with variables(path) as file:
        made = file.create_dataset(f"{VARS}/1", (5, 7), "f8", chunks=(5, 7), compression="gzip", shuffle=True)
        made.id.write_direct_chunk((0, 0), zlib.compress(bytes(13)))
    refused(path, "unpacks to 13 bytes, not 280")


def test_a_filter_pipeline_a_hundred_long(refused: Refused, path: Path) -> None:
    with variables(path) as file:
        file.create_dataset(f"{VARS}/1", data=N, chunks=(5, 7), compression="gzip", shuffle=True, fletcher32=True)
    data = path.read_bytes()
    at = data.index(b"\x01\x03" + bytes(6) + struct.pack("<H", 2))
    path.write_bytes(data[: at + 1] + b"\x64" + data[at + 2 :])
    refused(path)


# what holds no numbers


@pytest.mark.parametrize("kind", ["region", "object", "texts", "arrays", "record", "empty", "time"])
def test_datasets_without_numbers(refused: Refused, path: Path, kind: str) -> None:
    """References, what is of any length, records and empty ones."""
    with variables(path) as file:
        if kind == "region":
            made = file.create_dataset(f"{VARS}/1", (3,), dtype=h5py.regionref_dtype)
            made[0] = file[f"{VARS}/0"].regionref[1:3]
        elif kind == "object":
            made = file.create_dataset(f"{VARS}/1", (3,), dtype=h5py.ref_dtype)
            made[0] = file["layers"].ref
        elif kind == "texts":
            file.create_dataset(f"{VARS}/1", data=["a", "b"], dtype=h5py.string_dtype())
        elif kind == "arrays":
            file.create_dataset(f"{VARS}/1", (3,), dtype=h5py.vlen_dtype("f4"))
        elif kind == "record":
            file[f"{VARS}/1"] = np.zeros(3, [("a", "f4"), ("b", "i8")])
        elif kind == "empty":
            file[f"{VARS}/1"] = h5py.Empty("f4")
        else:
            space = h5py.h5s.create_simple((3,))
            h5py.h5d.create(file[VARS].id, b"1", h5py.h5t.UNIX_D32LE, space)
    refused(path)


def test_a_type_in_place_of_a_dataset(refused: Refused, path: Path) -> None:
    """A committed datatype under the name of a legacy weight."""
    with legacy(path) as file:
        del file["d/d/kernel:0"]
        file["d/d/kernel:0"] = np.dtype("f8")
    refused(path, "d/kernel:0")


def test_committed_types_by_themselves(refused: Refused, path: Path) -> None:
    with variables(path) as file:
        file[f"{VARS}/type"] = np.dtype("f4")
        file.create_dataset(f"{VARS}/1", data=N, dtype=file[f"{VARS}/type"])
    assert refused(path, fine=True) == "2 tensors"


# attributes


def test_a_hundred_thousand_attributes(refused: Refused, path: Path) -> None:
    """Only those that layoutx knows are looked for: harmless."""
    with variables(path, libver="latest") as file:
        space, kind = h5py.h5s.create(h5py.h5s.SCALAR), h5py.h5t.STD_U8LE
        for k in range(20_000):
            h5py.h5a.create(file[VARS].id, b"a%d" % k, kind, space)
    assert refused(path, fine=True) == "1 tensors"


def test_an_attribute_of_hundreds_of_megabytes(refused: Refused, path: Path) -> None:
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(1 << 20)
    with h5py.File(path, "w", libver="latest") as file:
        h5py.h5a.create(file.id, b"layer_names", kind, h5py.h5s.create_simple((200,)))
    refused(path, "LAYOUTX_LIMIT_")


def test_a_model_config_of_more_than_a_hundred_megabytes(refused: Refused, path: Path) -> None:
    with legacy(path) as file:
        file.attrs["model_config"] = '{"x": "' + "y" * 120_000_000 + '"}'
    refused(path, "LAYOUTX_LIMIT_")


def test_a_million_layer_names(refused: Refused, path: Path) -> None:
    names = np.array([b"l%d" % k for k in range(1_000_000)])
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["layer_names"] = names
        file.create_group("l0").attrs["weight_names"] = [b"w"]
        file["l0/w"] = N
    refused(path)


def test_a_layer_that_is_named_twice(refused: Refused, path: Path) -> None:
    legacy(path, layers=[b"d", b"d"]).close()
    refused(path, "names 'd' twice")


def test_a_weight_that_is_named_twice(refused: Refused, path: Path) -> None:
    legacy(path, weights=[b"d/kernel:0", b"d/kernel:0"]).close()
    refused(path, "twice")


@pytest.mark.parametrize("count", [-1, 10**9, 2**62])
def test_a_forged_number_of_layers(refused: Refused, path: Path, count: int) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["nb_layers"] = count
        file.create_group("layer_0").attrs["nb_params"] = 0
    refused(path)


def test_layer_names_that_are_references(refused: Refused, path: Path) -> None:
    with legacy(path) as file:
        del file.attrs["layer_names"]
        file.attrs.create("layer_names", [file["d"].ref], dtype=h5py.ref_dtype)
        file.attrs["model_config"] = "{}"
    text = refused(path, fine=True)
    assert text == "0 tensors"


@pytest.mark.parametrize("name", [b"../d", b"/etc/passwd", b"d/../d", b"", b"\xff\xfe", b"x\x1b[31m"])
def test_layer_names_that_are_no_groups(refused: Refused, path: Path, name: bytes) -> None:
    legacy(path, layers=[name + b"!"]).close()
    refused(path)


def test_a_link_name_that_is_no_utf8(refused: Refused, path: Path) -> None:
    with variables(path) as file:
        h5py.h5g.create(file[VARS].id, b"\xff\xfe\x80")
    refused(path, "no text")


# files that are cut or shifted


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_file_cut_anywhere(refused: Refused, path: Path, libver: str) -> None:
    """At every structure: signature, superblock, object headers, heaps, trees, symbol tables, data."""
    with variables(path, libver=libver) as file:
        file.create_dataset(f"{VARS}/1", data=N, chunks=(2, 3), compression="gzip")
    data = path.read_bytes()
    for size in (4, 8, 9, 24, 48, 90, 97, 200, 544, 700, len(data) // 3, len(data) // 2, len(data) - 8, len(data) - 1):
        path.write_bytes(data[:size])
        refused(path)


def test_a_user_block_before_the_file(refused: Refused, path: Path) -> None:
    """Offsets count from the file's true beginning: read as it should be."""
    with h5py.File(path, "w", userblock_size=2048) as file:
        file.create_group(VARS)["0"] = N
    path.write_bytes(b"PK?".ljust(8) + path.read_bytes()[8:])
    refused(path)
    path.write_bytes(b"#!/bin/sh\n".ljust(16) + path.read_bytes()[16:])
    assert refused(path, fine=True) == "1 tensors"
    from layoutx.files.open import open_store

    np.testing.assert_array_equal(open_store(path).tensors[f"{VARS}/0"].read(), N)


def test_a_signature_where_no_file_follows(refused: Refused, path: Path) -> None:
    path.write_bytes(bytes(512) + b"\x89HDF\r\n\x1a\n" + bytes(600))
    refused(path, "cannot read")


# what libhdf5 does not survive


def test_a_list_of_free_space_that_leads_to_itself(refused: Refused, path: Path) -> None:
    """libhdf5 1.14 follows it for ever; found by the fuzzer."""
    variables(path).close()
    data = bytearray(path.read_bytes())
    heap = data.index(b"HEAP")
    free, segment = struct.unpack("<QQ", data[heap + 16 : heap + 32])
    data[segment + free : segment + free + 8] = struct.pack("<Q", free)
    path.write_bytes(data)
    refused(path, "cannot read")


def test_a_filter_that_reads_behind_its_memory(refused: Refused, path: Path) -> None:
    """scaleoffset is told that its chunk of millions of numbers has one: libhdf5 1.14.6 ends by SIGSEGV."""
    count = 1 << 23  # 32 MB are read behind a few bytes: no heap of this process goes on for so long
    with variables(path) as file:
        made = file.create_dataset(f"{VARS}/1", (count,), "i4", chunks=(count,), scaleoffset=5)
        made.id.write_direct_chunk((0,), struct.pack("<IB", 5, 8) + bytes(80))
    data = path.read_bytes()
    old = struct.pack("<II", 5, count)
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, struct.pack("<II", 5, 1)))
    refused(path, "crashed", "SIGSEGV")


def test_a_filter_that_is_told_another_size(refused: Refused, path: Path) -> None:
    """The same by h5py's own lzf."""
    with variables(path) as file:
        file.create_dataset(f"{VARS}/1", data=N, chunks=(5, 7), compression="lzf")
    data = path.read_bytes()
    old = struct.pack("<I", N.nbytes) + bytes(4)
    at = data.index(old, data.index(b"lzf"))
    path.write_bytes(data[:at] + struct.pack("<I", 8) + data[at + 4 :])
    refused(path, "another size")
