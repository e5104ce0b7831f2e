"""Zip archives (.keras, .npz, .pt, .pt2) that lie about what they hold, or hold what would take a machine down."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.errors import FileError, UsageError
from layoutx.files.open import open_store
from layoutx.files.save import save
from tests.attacks.zip_bytes import Entry, deflated, npy, packed, plain, written, zip_bytes

KERNEL = np.arange(35.0).reshape(5, 7)
GOOD = plain("kernel.npy", npy(KERNEL))
ENDINGS = ("npz", "keras", "pt", "pt2")


def entries(ending: str) -> list[Entry]:
    """A harmless archive of each format, but for its numbers."""
    return {
        "npz": [GOOD],
        "keras": [plain("metadata.json", b"{}"), plain("config.json", b"{}"), plain("model.weights.h5", b"\x89HDF")],
        "pt": [plain("x/data.pkl", b"\x80\2}."), plain("x/data/0", bytes(12))],
        "pt2": [plain("x/data/weights/m_weights_config.json", b'{"config": {}}'), plain("x/models/m.json", b"{}")],
    }[ending]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/etc/evil", "a\\evil", "C:/evil", "evil\0.npy", ".."],
    ids=["climbs", "climbs_inside", "absolute", "backslash", "drive", "nul", "parent"],
)
def test_a_member_whose_name_leaves_the_archive(refused: Any, tmp_path: Path, ending: str, name: str) -> None:
    refused(written(tmp_path / f"x.{ending}", zip_bytes([*entries(ending), plain(name)])), "member", "name")


@pytest.mark.parametrize("ending", ENDINGS)
def test_two_members_of_one_name(refused: Any, tmp_path: Path, ending: str) -> None:
    found = entries(ending)
    refused(written(tmp_path / f"x.{ending}", zip_bytes([*found, found[-1]])), "two members")


@pytest.mark.parametrize(("ending", "name"), [("keras", "Config.json"), ("pt", "X/DATA.PKL"), ("pt", "x/Data/0")])
def test_two_members_that_differ_in_case_only(refused: Any, tmp_path: Path, ending: str, name: str) -> None:
    """torch looks its members up without regard to case."""
    refused(written(tmp_path / f"x.{ending}", zip_bytes([*entries(ending), plain(name, b"{}")])), "two members")


def test_arrays_that_differ_in_case_only_are_two(refused: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "x.npz", zip_bytes([GOOD, plain("Kernel.npy", npy(KERNEL))]))
    assert refused(path, fine=True) == "2 tensors"


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("bit", [1, 0x40, 0x2000], ids=["encrypted", "strongly", "directory"])
def test_an_encrypted_member(refused: Any, tmp_path: Path, ending: str, bit: int) -> None:
    found = entries(ending)
    refused(written(tmp_path / f"x.{ending}", zip_bytes([*found[:-1], found[-1].both(flags=bit)])), "encrypted")


LIES: dict[str, Callable[[Entry], Entry]] = {
    "stored_in_fewer_bytes": lambda one: one.both(packed=len(one.data) - 1),
    "larger_than_it_is": lambda one: one.both(size=len(one.data) + 1),
    "smaller_than_it_is": lambda one: one.both(size=len(one.data) - 1),
    "past_the_end": lambda one: one.both(size=1 << 30, packed=1 << 30),
    "directory_size": lambda one: Entry(one.name, one.data, central={"size": 9, "packed": 9}),
    "header_size": lambda one: Entry(one.name, one.data, local={"size": 9, "packed": 9}),
    "header_name": lambda one: Entry(one.name, one.data, local={"name": b"z" + one.name[1:]}),
    "header_method": lambda one: Entry(one.name, one.data, local={"method": 8}),
    "header_encrypted": lambda one: Entry(one.name, one.data, local={"flags": 1}),
    "header_checksum": lambda one: Entry(one.name, one.data, local={"crc": 9}),
    "checksum": lambda one: one.both(crc=9),
    "no_header": lambda one: Entry(one.name, one.data, central={"offset": 7}),
    "header_outside": lambda one: Entry(one.name, one.data, central={"offset": 1 << 31}),
    "wide_without_field": lambda one: one.both(size=0xFFFFFFFF, packed=0xFFFFFFFF),
    "wide_field_cut_off": lambda one: one.both(size=0xFFFFFFFF, extra=b"\1\0\xff\0abc"),
    "wide_giant": lambda one: one.both(
        size=0xFFFFFFFF, packed=0xFFFFFFFF, extra=struct.pack("<2H2Q", 1, 16, 1 << 62, 1 << 62)
    ),
    "link": lambda one: Entry(one.name, one.data, central={"attr": 0o120777 << 16, "made": 3 << 8}),
    "bzip2": lambda one: one.both(method=12),
    "lzma": lambda one: one.both(method=14),
    "method_99": lambda one: one.both(method=99),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_member_that_is_not_what_it_says(refused: Any, tmp_path: Path, ending: str, lie: str) -> None:
    found = entries(ending)
    path = written(tmp_path / f"x.{ending}", zip_bytes([*found[:-1], LIES[lie](found[-1])]))
    refused(path, "member")


def end64(**said: int) -> bytes:
    """A good archive with a zip64 end, whose fields may be others."""
    whole = zip_bytes([GOOD])
    _, _, _, _, count, length, begin, _ = struct.unpack("<4s4H2LH", whole[-22:])
    field = {"count": count, "length": length, "begin": begin, "start": len(whole) - 22, "span": 44} | said
    wide = struct.pack(
        "<4sQ2H2L4Q",
        b"PK\6\6",
        field["span"],
        45,
        45,
        0,
        0,
        field["count"],
        field["count"],
        field["length"],
        field["begin"],
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, field["start"], 1)
    return whole[:-22] + wide + locator + whole[-22:]


def test_a_good_zip64_end(refused: Any, tmp_path: Path) -> None:
    assert refused(written(tmp_path / "x.npz", end64()), fine=True) == "1 tensors"


@pytest.mark.parametrize(
    "said",
    [
        {"count": 2},
        {"count": 1 << 40},
        {"begin": 0},
        {"length": 1 << 40},
        {"start": 3},
        {"start": 1 << 60},
        {"span": 1 << 60},
    ],
    ids=str,
)
def test_a_forged_zip64_end(refused: Any, tmp_path: Path, said: dict[str, int]) -> None:
    refused(written(tmp_path / "x.npz", end64(**said)), "forged")


@pytest.mark.parametrize(
    "said",
    [{"begin": 5}, {"begin": 1 << 31}, {"length": 10}, {"length": 0xFFFFFFF0}, {"count": 0}, {"count": 9}],
    ids=str,
)
def test_a_directory_that_lies_elsewhere(refused: Any, tmp_path: Path, said: dict[str, int]) -> None:
    refused(written(tmp_path / "x.npz", zip_bytes([GOOD], end=said)), "forged")


def test_something_before_the_archive(refused: Any, tmp_path: Path) -> None:
    """A polyglot: the first bytes are one archive, the directory lists another."""
    refused(written(tmp_path / "x.npz", zip_bytes([GOOD], before=zip_bytes([plain("a.npy")]))), "stands before it")
    inner = zip_bytes([GOOD])
    refused(written(tmp_path / "y.npz", b"PK\3\4#!/bin/sh\n" + inner), "forged")


def test_something_after_the_archive(refused: Any, tmp_path: Path) -> None:
    refused(written(tmp_path / "x.npz", zip_bytes([GOOD]) + b"<?php ?>"), "bytes follow its end")
    refused(written(tmp_path / "y.npz", zip_bytes([GOOD]) * 2), "forged")


def test_an_end_inside_the_comment(refused: Any, tmp_path: Path) -> None:
    other = zip_bytes([plain("other.npy", npy(KERNEL))])
    refused(written(tmp_path / "x.npz", zip_bytes([GOOD], comment=other)), "several ends")


def test_an_archive_without_its_end(refused: Any, tmp_path: Path) -> None:
    refused(written(tmp_path / "x.npz", zip_bytes([GOOD])[:-40]), "truncated")


def zeros(count: int) -> bytes:
    """Gibibytes of zeros, deflated a megabyte at a time."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(count)) + packer.flush()


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """300 MiB of zeros, a thousandth of it."""
    return zeros(300)


@pytest.mark.parametrize(("ending", "name"), [("npz", "a.npy"), ("keras", "model.weights.h5"), ("pt", "x/data/1")])
def test_a_member_that_unpacks_to_a_thousand_times_its_size(
    refused: Any, tmp_path: Path, bomb: bytes, ending: str, name: str
) -> None:
    found = [one for one in entries(ending) if one.name != name.encode()]
    hostile = Entry(name.encode(), bomb, 8).both(size=300 << 20)
    path = written(tmp_path / f"x.{ending}", zip_bytes([*found, hostile]))
    refused(path, "grows when it is unpacked", "LAYOUTX_LIMIT_EXPANSION", name)


def test_a_hundred_members_that_are_bombs_together(refused: Any, tmp_path: Path) -> None:
    small = packed("x", bytes(8 << 20))
    many = [Entry(f"{i}.npy".encode(), small.data, 8, small.local, small.central) for i in range(100)]
    refused(written(tmp_path / "x.npz", zip_bytes(many)), "grows when it is unpacked", "LAYOUTX_LIMIT_EXPANSION")


@pytest.mark.parametrize(("ending", "name"), [("keras", "config.json"), ("pt", "x/data.pkl")])
def test_a_text_that_unpacks_to_a_thousand_times_its_size(refused: Any, tmp_path: Path, ending: str, name: str) -> None:
    found = [one for one in entries(ending) if one.name != name.encode()]
    path = written(tmp_path / f"x.{ending}", zip_bytes([*found, packed(name, b" " * (9 << 20))]))
    refused(path, "LAYOUTX_LIMIT_EXPANSION", name)


@pytest.mark.parametrize(("ending", "name"), [("npz", "a.npy"), ("keras", "config.json"), ("pt", "x/data.pkl")])
@pytest.mark.parametrize("size", [100, 400 << 20], ids=["less", "more"])
def test_a_bomb_that_says_it_is_small(
    refused: Any, tmp_path: Path, bomb: bytes, ending: str, name: str, size: int
) -> None:
    """zipfile unpacks up to 2 GiB at once before it looks at the size."""
    found = [one for one in entries(ending) if one.name != name.encode()]
    data = b"\x93NUMPY\1\0v\0" + repr({"descr": "|u1", "fortran_order": False, "shape": (0,)}).ljust(118).encode()
    crc = zlib.crc32(bytes(100))
    hostile = Entry(name.encode(), deflated(data) if size > 100 else bomb, 8).both(size=size, crc=crc)
    refused(written(tmp_path / f"x.{ending}", zip_bytes([*found, hostile])), name.removesuffix(".npy"))


def test_an_array_that_unpacks_to_more_than_it_says(refused: Any, tmp_path: Path, bomb: bytes) -> None:
    """The header is good, the size and checksum are those of the good begin, and 300 MiB follow."""
    good = npy(KERNEL)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(good) + packer.flush(zlib.Z_FULL_FLUSH) + bomb
    hostile = Entry(b"a.npy", data, 8).both(size=len(good), crc=zlib.crc32(good))
    refused(written(tmp_path / "x.npz", zip_bytes([hostile])), "more, less or others")


@pytest.mark.parametrize("ending", ["npz", "keras"])
@pytest.mark.parametrize("change", ["truncated", "flipped", "followed"])
def test_damaged_packed_bytes(refused: Any, tmp_path: Path, ending: str, change: str) -> None:
    name, data = {"npz": ("a.npy", npy(KERNEL)), "keras": ("config.json", json.dumps(list(range(999))).encode())}[
        ending
    ]
    raw = deflated(data)
    half = len(raw) // 2
    hurt = {
        "truncated": raw[:-9],
        "flipped": raw[:half] + bytes([raw[half] ^ 255]) + raw[half + 1 :],
        "followed": raw + b"more",
    }[change]
    found = [one for one in entries(ending) if one.name.decode() not in (name, "kernel.npy")]
    member = Entry(name.encode(), hurt, 8).both(size=len(data), crc=zlib.crc32(data))
    refused(written(tmp_path / f"x.{ending}", zip_bytes([*found, member])), "cannot read")


def test_members_that_share_their_bytes(refused: Any, tmp_path: Path) -> None:
    """Many entries of the directory that are one run of bytes: a small file that unpacks to terabytes."""
    kernel = deflated(bytes(20 << 20))
    one = Entry(b"0.npy", kernel, 8).both(size=20 << 20, crc=zlib.crc32(bytes(20 << 20)))
    more = [Entry(b"0.npy", b"", 8).both(**{**one.central, "packed": len(kernel)}) for _ in range(9)]
    same = [
        Entry(f"{i}.npy".encode(), e.data, 8, e.local, {**e.central, "offset": 0}) for i, e in enumerate([one, *more])
    ]
    refused(written(tmp_path / "x.npz", zip_bytes(same)), "forged", "member")


def test_members_that_quote_the_next_ones_header(refused: Any, tmp_path: Path) -> None:
    """Each member begins with a deflate block that holds the header of the next: they overlap without sharing one."""
    inner = deflated(bytes(8 << 20))
    outer_header_length = 30 + len("1.npy")
    tail = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 33, zlib.crc32(bytes(8 << 20)), len(inner), 8 << 20, 5, 0)
    quoted = tail + b"1.npy"
    data = b"\0" + struct.pack("<2H", outer_header_length, outer_header_length ^ 0xFFFF) + quoted + inner
    content = quoted + bytes(8 << 20)
    first = Entry(b"0.npy", data, 8).both(size=len(content), crc=zlib.crc32(content))
    second = Entry(
        b"1.npy",
        b"",
        8,
        {},
        {"offset": 30 + 5 + 5, "size": 8 << 20, "packed": len(inner), "crc": zlib.crc32(bytes(8 << 20))},
    )
    raw = zip_bytes([first, second])
    cut = 30 + 5 + len(data)  # the second member has no header of its own
    raw = raw[:cut] + raw[cut + 35 : -22]
    count = raw.count(b"PK\1\2")
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(raw) - cut, cut, 0)
    refused(written(tmp_path / "x.npz", raw + end), "reaches into the next member")


def test_hundreds_of_thousands_of_members(refused: Any, tmp_path: Path) -> None:
    many = b"".join(
        struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0) + f"{i:06d}".encode()
        for i in range(300_000)
    )
    header = zip_bytes([plain("000000")])[:36]
    wide = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 300_000, 300_000, len(many), len(header))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(header) + len(many), 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, len(many), 0xFFFFFFFF, 0)
    refused(
        written(tmp_path / "x.npz", header + many + wide + locator + end), "300000 members", "LAYOUTX_LIMIT_MEMBERS"
    )


def test_more_members_than_the_directory_counts(refused: Any, tmp_path: Path) -> None:
    refused(written(tmp_path / "x.npz", zip_bytes([GOOD] * 9, end={"count": 1})), "other entries than the 1")


def test_a_name_of_sixty_thousand_letters(refused: Any, tmp_path: Path) -> None:
    refused(written(tmp_path / "x.npz", zip_bytes([plain("a" * 60_000 + ".npy", npy(KERNEL))])), "LAYOUTX_LIMIT_NAME")


def test_a_name_that_is_no_text(refused: Any, tmp_path: Path) -> None:
    one = Entry(b"\xff\xfe.npy", npy(KERNEL)).both(flags=0x800)
    refused(written(tmp_path / "x.npz", zip_bytes([one])), "cannot read")


def test_an_archive_in_an_archive_is_not_opened(refused: Any, tmp_path: Path, bomb: bytes) -> None:
    inner = zip_bytes([Entry(b"a.npy", bomb, 8).both(size=300 << 20)])
    refused(written(tmp_path / "x.npz", zip_bytes([plain("inner.zip", inner)])), "without weights")
    refused(written(tmp_path / "x.keras", zip_bytes([plain("config.json", b"{}"), plain("model.weights.h5", inner)])))


def test_a_config_that_nests_a_hundred_thousand_deep(refused: Any, tmp_path: Path) -> None:
    deep = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    found = [plain("config.json", deep), plain("model.weights.h5", b"\x89HDF")]
    refused(written(tmp_path / "x.keras", zip_bytes(found)), "config.json")


HEADERS = {
    "code": b"{'descr': __import__('os').system('false'), 'fortran_order': False, 'shape': (1,)}",
    "call": b"(lambda: 1)()",
    "nested": b"(" * 4000 + b")" * 4000,
    "negations": b"-" * 9000 + b"1",
    "power": b"{'descr': '<f8', 'fortran_order': False, 'shape': (9**9**9,)}",
    "objects": b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    "records": b"{'descr': [('a', '<f8'), ('b', '|O')], 'fortran_order': False, 'shape': (1,)}",
    "subarray": b"{'descr': '(1000000000,1000000000)f8', 'fortran_order': False, 'shape': (1,)}",
    "many_fields": b"{'descr': '" + b"f8," * 3000 + b"f8', 'fortran_order': False, 'shape': (1,)}",
    "overflow": b"{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296)}",
    "overflow_to_what_is_there": b"{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 4294967296, 0, 8)}",
    "negative": b"{'descr': '|u1', 'fortran_order': False, 'shape': (-2, -4)}",
    "many_axes": b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"1, " * 60 + b"8)}",
    "text": b"{'descr': '<U2', 'fortran_order': False, 'shape': (1,)}",
    "dates": b"{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,)}",
    "bytes_of_no_type": b"{'descr': '|V8', 'fortran_order': False, 'shape': (1,)}",
    "shape_of_floats": b"{'descr': '<f8', 'fortran_order': False, 'shape': (1.0,)}",
    "other_keys": b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'evil': 1}",
    "not_text": b"\xff" * 100,
}


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "packed"])
@pytest.mark.parametrize("header", HEADERS)
def test_a_forged_header_of_an_array(refused: Any, tmp_path: Path, header: str, stored: bool) -> None:
    data = npy(header=HEADERS[header], data=bytes(8))
    path = written(tmp_path / "x.npz", zip_bytes([plain("a.npy", data) if stored else packed("a.npy", data)]))
    if header == "overflow_to_what_is_there":
        data = npy(header=HEADERS[header])
        path = written(path, zip_bytes([plain("a.npy", data) if stored else packed("a.npy", data)]))
    refused(path, "'a'" if header != "overflow_to_what_is_there" else "")


@pytest.mark.parametrize("begin", [b"\x93NUMPY\1", b"\x93NUMPY\4\0v\0\0\0", b"\x93NUMPX\1\0v\0", b"\x80\4\x95", b""])
def test_a_member_that_is_no_array(refused: Any, tmp_path: Path, begin: bytes) -> None:
    """The bytes of a pickle under the name of an array are never unpickled."""
    refused(written(tmp_path / "x.npz", zip_bytes([plain("a.npy", begin)])), "'a'")


@pytest.mark.parametrize("length", [10_001, 0xFFFFFFFF])
def test_a_header_of_gigabytes(refused: Any, tmp_path: Path, length: int) -> None:
    data = b"\x93NUMPY\2\0" + length.to_bytes(4, "little") + b" " * 20_000
    refused(written(tmp_path / "x.npz", zip_bytes([plain("a.npy", data)])), f"{length} bytes", "a.npy")


def test_array_whose_bytes_are_fewer_than_its_shape(refused: Any, tmp_path: Path) -> None:
    refused(written(tmp_path / "x.npz", zip_bytes([plain("a.npy", npy(KERNEL)[:-1])])), "size of its shape")


@pytest.mark.parametrize("version", [b"\1\0", b"\2\0", b"\3\0"], ids=["1", "2", "3"])
@pytest.mark.parametrize("pack", [plain, packed], ids=["stored", "packed"])
def test_odd_and_harmless_arrays_are_read_bit_for_bit(tmp_path: Path, version: bytes, pack: Any) -> None:
    """Fortran order, the other byte order, NaN payloads, -0.0, denormals, no elements, no axes."""
    bits = np.array([0x7FF8DEADBEEF0001, 0xFFF0000000000001, 1 << 63, 1, 0], np.uint64).view(np.float64)
    arrays = {
        "fortran": np.asfortranarray(KERNEL),
        "big": KERNEL.astype(">f8"),
        "both": np.asfortranarray(KERNEL.astype(">f4")),
        "bits": bits,
        "big_bits": bits.byteswap().view(">f8"),
        "empty": np.empty((0, 3)),
        "scalar": np.float32(-0.0),
    }
    made = {}
    for name, array in arrays.items():
        file = io.BytesIO()
        np.lib.format.write_array(file, np.asanyarray(array), (version[0], 0))
        made[name] = file.getvalue()
    path = written(tmp_path / "x.npz", zip_bytes([pack(f"{name}.npy", data) for name, data in made.items()]))
    found = {name: tensor.read() for name, tensor in open_store(path).tensors.items()}
    for name, array in arrays.items():
        wanted = np.asanyarray(array)
        wanted = (
            wanted.astype(wanted.dtype)
            if wanted.dtype.isnative
            else wanted.byteswap().view(wanted.dtype.newbyteorder())
        )
        assert found[name].dtype.isnative
        assert found[name].shape == wanted.shape
        assert found[name].tobytes() == np.ascontiguousarray(wanted).tobytes(), name


def test_what_would_be_refused_is_not_written(tmp_path: Path) -> None:
    for name in ("/kernel", "../kernel", "a\\b", "a\0b"):
        with pytest.raises((UsageError, FileError)):
            save(tmp_path / "x.npz", {name: KERNEL}, {})
    assert not list(tmp_path.iterdir())


def test_archives_of_other_writers_pass(refused: Any, tmp_path: Path) -> None:
    """Streamed (sizes after the data), with folders, forced to zip64, with a comment."""

    class Streamed(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: Any) -> int:
            raise io.UnsupportedOperation

        def tell(self) -> int:
            raise io.UnsupportedOperation

    for force, stream in ((True, False), (False, True), (True, True)):
        file: Any = Streamed() if stream else io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("folder")
            with archive.open("folder/a.npy", "w", force_zip64=force) as member:
                member.write(npy(KERNEL))
            archive.comment = b"by hand"
        path = written(tmp_path / "x.npz", file.getvalue())
        assert np.array_equal(open_store(path).tensors["folder/a"].read(), KERNEL)


def test_an_archive_that_is_replaced_is_looked_at_again(tmp_path: Path) -> None:
    path = written(tmp_path / "x.npz", zip_bytes([GOOD]))
    open_store(path)
    written(path, zip_bytes([GOOD, GOOD]))
    with pytest.raises(FileError, match="forged"):
        open_store(path)
