"""Hostile flax msgpack files: lengths that lie, chunks that do not fit, trees that are too deep or too wide."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

FLOATS = struct.pack("<2f", 1.5, -2.5)


def text(value: str) -> bytes:
    raw = value.encode()
    return b"\xdb" + struct.pack(">I", len(raw)) + raw


def mapping(*pairs: tuple[str, bytes]) -> bytes:
    return b"\xdf" + struct.pack(">I", len(pairs)) + b"".join(text(key) + value for key, value in pairs)


def listed(*values: bytes) -> bytes:
    return b"\xdd" + struct.pack(">I", len(values)) + b"".join(values)


def number(value: int) -> bytes:
    return b"\xcf" + struct.pack(">Q", value) if value >= 0 else b"\xd3" + struct.pack(">q", value)


def binary(raw: bytes) -> bytes:
    return b"\xc6" + struct.pack(">I", len(raw)) + raw


def ext(raw: bytes, code: int = 1) -> bytes:
    return b"\xc9" + struct.pack(">I", len(raw)) + bytes([code]) + raw


def array(*shape: Any, dtype: bytes = text("float32"), raw: bytes = FLOATS) -> bytes:
    """An array as flax packs it."""
    return ext(listed(listed(*(n if isinstance(n, bytes) else number(n) for n in shape)), dtype, binary(raw)))


def tree(path: Path, value: bytes) -> Path:
    """A file with one array, and something else first."""
    path.write_bytes(mapping(("a", value), ("w", array(2))))
    return path


def test_the_plain_file_of_these_tests(refused: Any, tmp_path: Path) -> None:
    refused(tree(tmp_path / "a.msgpack", array(2)), fine=True)


@pytest.mark.parametrize("code", ["c6", "c9", "db", "dd", "df"], ids=["bin32", "ext32", "str32", "array32", "map32"])
@pytest.mark.parametrize("rest", [0, 1_000], ids=["and nothing follows", "and little follows"])
def test_a_length_of_4_gigabytes(refused: Any, tmp_path: Path, code: str, rest: int) -> None:
    path = tmp_path / "a.msgpack"
    path.write_bytes(mapping(("w", array(2)))[:1] + struct.pack(">I", 2) + text("a") + bytes.fromhex(code + "ffffffff"))
    with path.open("ab") as file:
        file.write(bytes(rest))
    refused(path)


@pytest.mark.parametrize("code", ["dd", "df"])
def test_ten_million_values(refused: Any, tmp_path: Path, code: str) -> None:
    """A byte each in the file, eight and more in memory."""
    body = b"\xc0" * 10_000_000 if code == "dd" else b"\xa0\xc0"
    refused(tree(tmp_path / "a.msgpack", bytes.fromhex(code) + struct.pack(">I", 10_000_000) + body))


def test_a_text_of_200_megabytes(refused: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.msgpack"
    path.write_bytes(
        mapping(("w", array(2)))[:1] + struct.pack(">I", 1) + text("a") + b"\xdb" + struct.pack(">I", 200 << 20)
    )
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + (200 << 20))
    refused(path, "LAYOUTX_LIMIT_HEADER")


@pytest.mark.parametrize("depth", [65, 1_000, 1_000_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"], ids=["lists", "maps"])
def test_values_in_values(refused: Any, tmp_path: Path, depth: int, opening: bytes) -> None:
    refused(tree(tmp_path / "a.msgpack", opening * depth + b"\xc0"), "LAYOUTX_LIMIT_DEPTH")


DTYPES = {
    "objects": text("object"),
    "O": text("O"),
    "a structure": text("f4,f4"),
    "a subarray": text("(2,2)f4"),
    "texts": text("str"),
    "void": text("V8"),
    "dates": text("datetime64"),
    "another byte order": text(">f4"),
    "nothing": text(""),
    "a megabyte": text("f" * 1_000_000),
    "a million brackets": text("(" * 1_000_000),
    "a module's name": text("os.system"),
    "no text": number(4),
    "None": b"\xc0",
    "a list": listed(text("float32")),
    "bytes that are no text": binary(b"\xff\xfe"),
}


@pytest.mark.parametrize("attack", DTYPES)
def test_a_dtype_that_is_none(refused: Any, tmp_path: Path, attack: str) -> None:
    assert len(refused(tree(tmp_path / "a.msgpack", array(2, dtype=DTYPES[attack])))) < 2000


SHAPES: dict[str, tuple[Any, ...]] = {
    "an element too many": (3,),
    "an element too few": (1,),
    "a negative axis": (-2,),
    "two negative axes": (-1, -2),
    "a product that wraps around": (1 << 62, 4, 2),
    "a product that wraps around to nothing": (1 << 32, 1 << 32),
    "a zero among huge axes": (0, 1 << 62, 1 << 62),
    "an axis that is a text": (text("2"),),
    "an axis that is a boolean": (b"\xc3", 2),
    "an axis that is a float": (b"\xcb" + struct.pack(">d", 2.0),),
    "an axis that is None": (b"\xc0",),
    "an axis that is a list": (listed(number(2)),),
    "forty axes": (2, *[1] * 39),
    "a hundred thousand axes": (2, *[1] * 100_000),
}


@pytest.mark.parametrize("attack", SHAPES)
def test_forged_shapes(refused: Any, tmp_path: Path, attack: str) -> None:
    raw = b"" if attack.startswith("a zero") else FLOATS
    assert len(refused(tree(tmp_path / "a.msgpack", array(*SHAPES[attack], raw=raw)))) < 2000


ARRAYS = {
    "one part": ext(listed(listed(number(2)))),
    "four parts": ext(listed(listed(number(2)), text("float32"), binary(FLOATS), number(1))),
    "no list": ext(number(7)),
    "nothing": ext(b""),
    "a shape that is a number": ext(listed(number(2), text("float32"), binary(FLOATS))),
    "numbers that are a text": ext(listed(listed(number(2)), text("float32"), text("12345678"))),
    "numbers that are an ext": ext(listed(listed(number(2)), text("float32"), ext(FLOATS))),
    "bytes behind the array": ext(listed(listed(number(2)), text("float32"), binary(FLOATS)) + b"\xc0"),
    "bytes that reach out of the ext": ext(listed(listed(number(2)), text("float32"))[:-1] + b"\xc6\x00\x00\x00\x08"),
    "a scalar of two": ext(listed(listed(number(2)), text("float32"), binary(FLOATS[:4])), 3),
}


@pytest.mark.parametrize("attack", ARRAYS)
def test_an_array_that_is_none(refused: Any, tmp_path: Path, attack: str) -> None:
    refused(tree(tmp_path / "a.msgpack", ARRAYS[attack]))


def chunked(shape: bytes, *pieces: bytes, keys: list[str] | None = None) -> bytes:
    names = keys or [str(i) for i in range(len(pieces))]
    chunks = mapping(*zip(names, pieces, strict=True))
    return mapping(("__msgpack_chunked_array__", b"\xc3"), ("shape", shape), ("chunks", chunks))


def sizes(*shape: int) -> bytes:
    return mapping(*((str(i), number(n)) for i, n in enumerate(shape)))


CHUNKS = {
    "fewer numbers than the shape": chunked(sizes(5), array(2), array(2)),
    "more numbers than the shape": chunked(sizes(3), array(2), array(2)),
    "a shape of 10^18": chunked(sizes(10**9, 10**9), array(2), array(2)),
    "a shape that wraps around": chunked(sizes(1 << 32, 1 << 32, 1 << 2), array(2), array(2)),
    "a negative shape": chunked(sizes(-2, -2), array(2), array(2)),
    "no pieces": chunked(sizes(4)),
    "no pieces of nothing": chunked(sizes(0)),
    "pieces that are not flat": chunked(sizes(4), array(2, 1), array(2, 1)),
    "pieces of two dtypes": chunked(sizes(4), array(2), array(2, dtype=text("int32"))),
    "pieces with forged numbers": chunked(sizes(4), array(2), array(2), keys=["0", "7"]),
    "pieces that are no arrays": chunked(sizes(4), number(1), number(2)),
    "a shape that is a list": chunked(listed(number(4)), array(2), array(2)),
    "a shape of a hundred thousand axes": chunked(sizes(4, *[1] * 100_000), array(2), array(2)),
    "chunks in chunks": chunked(sizes(4), chunked(sizes(2), array(2)), array(2)),
    "no chunks": mapping(("__msgpack_chunked_array__", b"\xc3"), ("shape", sizes(2))),
    "no shape": mapping(("__msgpack_chunked_array__", b"\xc3"), ("chunks", mapping(("0", array(2))))),
}


@pytest.mark.parametrize("attack", CHUNKS)
def test_forged_chunks(refused: Any, tmp_path: Path, attack: str) -> None:
    assert len(refused(tree(tmp_path / "a.msgpack", CHUNKS[attack]))) < 2000


def test_a_million_chunks_of_nothing(refused: Any, tmp_path: Path) -> None:
    one = array(0, raw=b"")
    pieces = b"".join(b"\xa6%06d" % i + one for i in range(40_000))
    chunks = b"\xdf" + struct.pack(">I", 40_000) + pieces
    value = mapping(("__msgpack_chunked_array__", b"\xc3"), ("shape", sizes(2)), ("chunks", chunks))
    refused(tree(tmp_path / "a.msgpack", value))


KEYS = {
    "a number": b"\x07",
    "None": b"\xc0",
    "bytes": binary(b"a"),
    "a list": listed(text("a")),
    "a map": mapping(("a", b"\xc0")),
    "an array": array(2),
    "no text": b"\xa2\xff\xfe",
    "the same once more": text("w"),
    "a surrogate": b"\xa3\xed\xa0\x80",
}


@pytest.mark.parametrize("attack", KEYS)
def test_a_key_that_is_none(refused: Any, tmp_path: Path, attack: str) -> None:
    path = tmp_path / "a.msgpack"
    path.write_bytes(b"\xdf" + struct.pack(">I", 2) + text("w") + array(2) + KEYS[attack] + array(2))
    refused(path)


def test_bytes_behind_the_tree(refused: Any, tmp_path: Path) -> None:
    path = tree(tmp_path / "a.msgpack", array(2))
    path.write_bytes(path.read_bytes() + bytes(8))
    refused(path, "belong to nothing")


def test_a_byte_that_begins_no_value(refused: Any, tmp_path: Path) -> None:
    refused(tree(tmp_path / "a.msgpack", b"\xc1"))


def test_a_tree_without_arrays(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "a.msgpack").write_bytes(mapping(("a", number(1))))
    refused(tmp_path / "a.msgpack", "without arrays")


def test_two_ways_to_one_name(refused: Any, tmp_path: Path) -> None:
    """`a/b` as one key, and as a key in a map."""
    path = tmp_path / "a.msgpack"
    path.write_bytes(mapping(("a/b", array(2)), ("a", mapping(("b", array(2))))))
    refused(path, "a/b")
