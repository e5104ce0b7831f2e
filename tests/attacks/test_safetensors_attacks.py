"""Hostile safetensors files and shard indexes, each made by hand and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

F4 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def forged(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """A file of that header, as JSON or as the bytes given."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(**changed: Any) -> dict[str, Any]:
    return {"w": {**F4, **changed}}


def test_a_header_over_the_limit(refused: Any, tmp_path: Path) -> None:
    path = forged(tmp_path / "a.safetensors", entry(), bytes(8), length=(100 << 20) + 1)
    with path.open("r+b") as file:
        file.truncate(101 << 20)  # a hole: the bytes are there, and cost nothing
    refused(path, "the header has 104857601 bytes", "LAYOUTX_LIMIT_HEADER=104857601")


def test_a_limit_that_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from layoutx.errors import FileError
    from layoutx.files.open import open_store

    path = forged(tmp_path / "a.safetensors", entry(), bytes(8))
    monkeypatch.setenv("LAYOUTX_LIMIT_HEADER", "20")
    with pytest.raises(FileError, match="more than 20"):
        open_store(path)
    monkeypatch.setenv("LAYOUTX_LIMIT_HEADER", "200")
    assert list(open_store(path).tensors) == ["w"]


def test_a_header_longer_than_the_file(refused: Any, tmp_path: Path) -> None:
    refused(forged(tmp_path / "a.safetensors", entry(), bytes(8), length=90 << 20), "truncated", "94371840 bytes")


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 1 << 40])
def test_a_header_length_of_exabytes(refused: Any, tmp_path: Path, length: int) -> None:
    path = forged(tmp_path / "a.safetensors", entry(), bytes(8), length=length)
    refused(path)


OFFSETS = {
    "a hole before the first tensor": ([8, 16], bytes(16)),
    "an end behind the file": ([0, 8], bytes(4)),
    "an end far behind the file": ([0, 1 << 62], bytes(8)),
    "reversed offsets": ([8, 0], bytes(8)),
    "negative offsets": ([-8, 0], bytes(8)),
    "offsets that are floats": ([0.0, 8.0], bytes(8)),
    "offsets that are booleans": ([False, 8], bytes(8)),
    "offsets that are texts": (["0", "8"], bytes(8)),
    "offsets beyond 64 bits": ([0, 10**40], bytes(8)),
    "one offset": ([8], bytes(8)),
    "three offsets": ([0, 4, 8], bytes(8)),
    "offsets that are no list": (8, bytes(8)),
    "offsets that are null": (None, bytes(8)),
    "offsets in an object": ({"0": 0, "1": 8}, bytes(8)),
}


@pytest.mark.parametrize("attack", OFFSETS)
def test_forged_offsets(refused: Any, tmp_path: Path, attack: str) -> None:
    offsets, data = OFFSETS[attack]
    refused(forged(tmp_path / "a.safetensors", entry(data_offsets=offsets), data))


SHAPES = {
    "a product that wraps around 64 bits": [1 << 32, 1 << 32],
    "a product that wraps around to the bytes": [2, (1 << 63) + 1],
    "an element too many": [3],
    "an element too few": [1],
    "a negative axis": [-2],
    "two negative axes": [-1, -2],
    "an axis that is a float": [2.0],
    "an axis that is a boolean": [True, 2],
    "an axis that is a text": ["2"],
    "an axis of 4,000 digits": [10**4000],
    "a shape that is no list": 2,
    "a shape that is a text": "2",
    "a shape that is an object": {"2": 1},
    "a shape of null": None,
    "a nested shape": [[2]],
    "more axes than NumPy has": [2] + [1] * 64,
    "a million axes": [2] + [1] * 1_000_000,
    "a zero among overflowing axes": [0, 1 << 62, 1 << 62],
}


@pytest.mark.parametrize("attack", SHAPES)
def test_forged_shapes(refused: Any, tmp_path: Path, attack: str) -> None:
    zero = attack.startswith("a zero")
    header = entry(shape=SHAPES[attack], **({"data_offsets": [0, 0]} if zero else {}))
    said = refused(forged(tmp_path / "a.safetensors", header, b"" if zero else bytes(8)))
    assert len(said) < 2000


@pytest.mark.parametrize(
    "dtype", ["F31", "f32", "", "O", "object", "V4", "F4", "F6_E2M3", None, 7, ["F32"], {}, "F32\0"]
)
def test_an_unknown_dtype(refused: Any, tmp_path: Path, dtype: object) -> None:
    refused(forged(tmp_path / "a.safetensors", entry(dtype=dtype), bytes(8)), "dtype")


@pytest.mark.parametrize("part", ["dtype", "shape", "data_offsets"])
def test_an_entry_that_lacks_a_part(refused: Any, tmp_path: Path, part: str) -> None:
    header = {"w": {key: value for key, value in F4.items() if key != part}}
    refused(forged(tmp_path / "a.safetensors", header, bytes(8)), "lacks")


@pytest.mark.parametrize("value", [None, [], "F32", 7, True])
def test_an_entry_that_is_no_object(refused: Any, tmp_path: Path, value: object) -> None:
    refused(forged(tmp_path / "a.safetensors", {"w": value}, bytes(8)), "'w'")


def test_overlapping_tensors(refused: Any, tmp_path: Path) -> None:
    header = {"a": F4, "b": {**F4, "data_offsets": [4, 12]}}
    refused(forged(tmp_path / "a.safetensors", header, bytes(12)), "bytes 4 to 12")


def test_two_tensors_at_one_place(refused: Any, tmp_path: Path) -> None:
    refused(forged(tmp_path / "a.safetensors", {"a": F4, "b": F4}, bytes(8)), "bytes 0 to 8")


def test_a_hole_between_tensors(refused: Any, tmp_path: Path) -> None:
    header = {"a": F4, "b": {**F4, "data_offsets": [12, 20]}}
    refused(forged(tmp_path / "a.safetensors", header, bytes(20)), "bytes 12 to 20")


def test_bytes_behind_the_last_tensor(refused: Any, tmp_path: Path) -> None:
    refused(forged(tmp_path / "a.safetensors", entry(), bytes(8) + b"PK\x05\x06" + bytes(18)), "belong to no tensor")


def test_a_name_twice(refused: Any, tmp_path: Path) -> None:
    one = json.dumps(F4)
    refused(forged(tmp_path / "a.safetensors", f'{{"w": {one}, "w": {one}}}'.encode(), bytes(8)), "stands twice")


def test_a_key_twice_in_an_entry(refused: Any, tmp_path: Path) -> None:
    text = b'{"w": {"dtype": "F32", "shape": [2], "shape": [1], "data_offsets": [0, 8]}}'
    refused(forged(tmp_path / "a.safetensors", text, bytes(8)), "stands twice")


@pytest.mark.parametrize("value", [{"a": 1}, {"a": None}, {"a": ["b"]}, {"a": {"b": "c"}}, [], ["a"], "a", 7, True])
def test_metadata_that_are_no_texts(refused: Any, tmp_path: Path, value: object) -> None:
    fine = value == []  # what is empty says nothing
    refused(forged(tmp_path / "a.safetensors", {"__metadata__": value, **entry()}, bytes(8)), fine=fine)


HEADERS = {
    "not UTF-8": b'{"\xff\xfe": 1}',
    "a surrogate": b'{"\xed\xa0\x80": 1}',
    "an escaped lone surrogate": b'{"\\ud800": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
    "an array": b"[]",
    "a number": b"7",
    "a text": b'"w"',
    "nothing": b"",
    "blanks": b"        ",
    "a blank before the brace": b" {}     ",
    "zero bytes": bytes(64),
    "UTF-16": '{"w": 1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "NaN for a size": b'{"w": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 8]}}',
    "Infinity for a size": b'{"w": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 8]}}',
    "1e3 for a size": b'{"w": {"dtype": "F32", "shape": [1e3], "data_offsets": [0, 8]}}',
    "text behind the object": b'{} {"w": 1}',
    "a zero byte behind the object": b"{}\0",
    "a comment": b"{} // fine",
    "an object that does not end": b'{"w": {',
    "a number of a million digits": b'{"w": ' + b"9" * 1_000_000 + b"}",
    "100,000 lists in lists": b'{"w": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "100,000 objects in objects": b'{"w":' * 100_000 + b"1" + b"}" * 100_000,
}


@pytest.mark.parametrize("attack", HEADERS)
def test_a_header_that_is_none(refused: Any, tmp_path: Path, attack: str) -> None:
    refused(forged(tmp_path / "a.safetensors", HEADERS[attack], bytes(8)))


def test_a_file_of_eight_bytes(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(bytes(8))
    refused(tmp_path / "a.safetensors")


def test_a_million_tensors_without_numbers(refused: Any, tmp_path: Path) -> None:
    text = b'"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},' * 1_000_000
    refused(forged(tmp_path / "a.safetensors", b"{" + text[:-1] + b"}"), "LAYOUTX_LIMIT_TENSORS=1000000")


def test_five_million_metadata(refused: Any, tmp_path: Path) -> None:
    text = b'"":"",' * 5_000_000
    refused(forged(tmp_path / "a.safetensors", b'{"__metadata__":{' + text + b'"":""}}'), "LAYOUTX_LIMIT_ITEMS")


def test_a_header_of_empty_lists(refused: Any, tmp_path: Path) -> None:
    """A byte and a half each in the file, sixty when it is parsed."""
    refused(forged(tmp_path / "a.safetensors", b'{"w": [' + b"[]," * 5_000_000 + b"[]]}"), "LAYOUTX_LIMIT_ITEMS")


def sharded(folder: Path, weight_map: object, **shards: list[str]) -> Path:
    """An index with that weight map, and shards of so named tensors."""
    for file, names in shards.items():
        header = {name: {**F4, "data_offsets": [8 * i, 8 * i + 8]} for i, name in enumerate(names)}
        forged(folder / f"{file}.safetensors", header, bytes(8 * len(names)))
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


@pytest.mark.parametrize(
    "name",
    ["../a.safetensors", "/etc/passwd", "..", ".", "", "b/../../a.safetensors", "a\0.safetensors", "~/a", "b/a", 7],
)
def test_a_shard_outside_the_folder(refused: Any, tmp_path: Path, name: object) -> None:
    (tmp_path / "in").mkdir()
    forged(tmp_path / "a.safetensors", entry(), bytes(8))
    refused(sharded(tmp_path / "in", {"w": name}))


def test_a_shard_that_is_a_link_out_of_the_folder(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    forged(tmp_path / "secret.safetensors", entry(), bytes(8))
    (tmp_path / "in" / "a.safetensors").symlink_to(tmp_path / "secret.safetensors")
    refused(sharded(tmp_path / "in", {"w": "a.safetensors"}), "outside its folder")


def test_shards_and_index_as_links_of_one_download_cache(tmp_path: Path) -> None:
    """The Hugging Face cache: every file of a snapshot is a link into `blobs` beside it. It must go on working."""
    from layoutx.files.open import open_store

    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    real = sharded(blobs, {"w": "a.safetensors"}, a=["w"])
    (snapshot / "a.safetensors").symlink_to("../../blobs/a.safetensors")
    (snapshot / real.name).symlink_to(f"../../blobs/{real.name}")
    assert list(open_store(snapshot / real.name).tensors) == ["w"]


@pytest.mark.parametrize("kind", ["folder", "fifo", "device"])
def test_a_shard_that_is_no_file(refused: Any, tmp_path: Path, kind: str) -> None:
    import os

    shard = tmp_path / "a.safetensors"
    if kind == "folder":
        shard.mkdir()
    elif kind == "fifo":
        os.mkfifo(shard)
    else:
        shard.symlink_to("/dev/zero")
    refused(sharded(tmp_path, {"w": "a.safetensors"}))


def test_an_index_that_names_itself(refused: Any, tmp_path: Path) -> None:
    refused(sharded(tmp_path, {"w": "model.safetensors.index.json"}), ".json files")


def test_a_shard_that_is_an_index(refused: Any, tmp_path: Path) -> None:
    path = sharded(tmp_path, {"w": "a.safetensors"})
    (tmp_path / "a.safetensors").write_bytes(path.read_bytes())
    refused(path)


def test_a_tensor_that_no_shard_has(refused: Any, tmp_path: Path) -> None:
    refused(sharded(tmp_path, {"w": "a.safetensors", "v": "a.safetensors"}, a=["w"]), "in the index only: v")


def test_a_tensor_that_the_index_does_not_name(refused: Any, tmp_path: Path) -> None:
    refused(sharded(tmp_path, {"w": "a.safetensors"}, a=["w", "v"]), "in the shards only: v")


def test_two_shards_with_one_tensor(refused: Any, tmp_path: Path) -> None:
    path = sharded(tmp_path, {"w": "a.safetensors", "v": "b.safetensors"}, a=["w"], b=["v", "w"])
    refused(path, "in another shard than the index says: w")


def test_a_tensor_in_another_shard(refused: Any, tmp_path: Path) -> None:
    path = sharded(tmp_path, {"u": "b.safetensors", "v": "a.safetensors"}, a=["w"], b=["u", "v"])
    text = refused(path, "in another shard than the index says: v", "in the shards only: w")
    assert "in the index only" not in text


def test_a_million_names_that_no_shard_has(refused: Any, tmp_path: Path) -> None:
    path = sharded(tmp_path, {str(i): "a.safetensors" for i in range(100_000)}, a=["w"])
    assert len(refused(path, "in the index only")) < 10_000


@pytest.mark.parametrize("value", [None, [], "a.safetensors", 7, {}, {"w": None}, {"w": []}, {"w": {}}, {"w": [["a"]]}])
def test_a_weight_map_that_is_none(refused: Any, tmp_path: Path, value: object) -> None:
    refused(sharded(tmp_path, value, a=["w"]))


def test_a_name_twice_in_an_index(refused: Any, tmp_path: Path) -> None:
    path = sharded(tmp_path, {"w": "a.safetensors"}, a=["w"], b=["w"])
    path.write_text('{"weight_map": {"w": "a.safetensors", "w": "b.safetensors"}}')
    refused(path, "stands twice")


def test_an_index_of_200_megabytes(refused: Any, tmp_path: Path) -> None:
    path = sharded(tmp_path, {"w": "a.safetensors"}, a=["w"])
    with path.open("r+b") as file:
        file.truncate(200 << 20)
    refused(path, "LAYOUTX_LIMIT_HEADER")


def test_an_index_of_lists_in_lists(refused: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": ' + "[" * 100_000 + "]" * 100_000 + "}")
    refused(path, "JSON")


@pytest.mark.parametrize("metadata", [[], "x", 7, {"total_size": 1e400}, {"a": {"b": []}}, None])
def test_odd_metadata_of_an_index_are_passed_over(refused: Any, tmp_path: Path, metadata: object) -> None:
    path = sharded(tmp_path, {"w": "a.safetensors"}, a=["w"])
    path.write_text(json.dumps({"metadata": metadata, "weight_map": {"w": "a.safetensors"}}))
    refused(path, fine=True)
