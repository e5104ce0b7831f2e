"""Hostile checkpoints of several files: TensorFlow's index, torch's metadata, orbax folders."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MAGIC = bytes.fromhex("57fb808b247547db")


def varint(value: int) -> bytes:
    out, value = bytearray(), value & ((1 << 64) - 1)
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def whole(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def block(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def entry(shape: tuple[int, ...] = (2,), dtype: int = 1, slices: Any = (), **said: int) -> bytes:
    """A BundleEntryProto; as torch-like defaults, two float32 at byte 0 of the first data file."""
    said = {"shard": 0, "offset": 0, "size": 0 if slices else 8, **said}
    dims = b"".join(block(2, whole(1, n)) for n in shape)
    boxes = b"".join(block(7, b"".join(block(1, whole(1, at) + whole(2, n)) for at, n in box)) for box in slices)
    numbers = whole(3, said["shard"]) + whole(4, said["offset"]) + whole(5, said["size"])
    return whole(1, dtype) + block(2, dims) + numbers + boxes


def table_block(*pairs: tuple[bytes, bytes], restarts: int = 1) -> bytes:
    """A block of a table: entries that share nothing, the offsets of whole keys, no compression, no checksum."""
    body = b"".join(b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in pairs)
    return body + bytes(4) + restarts.to_bytes(4, "little")


def index(path: Path, *entries: bytes, shards: int = 1, body: bytes | None = None, data: bytes = bytes(8)) -> Path:
    """The .index and .data of a checkpoint of entries `a`, `b`, ..."""
    pairs = [(b"", whole(1, shards)), *((bytes([97 + i]), value) for i, value in enumerate(entries))]
    inner = body if body is not None else table_block(*pairs)
    top = table_block((b"z", varint(0) + varint(len(inner))))
    handles = (varint(0) + varint(0) + varint(len(inner) + 5) + varint(len(top))).ljust(40, b"\0")
    path.write_bytes(inner + bytes(5) + top + bytes(5) + handles + MAGIC)
    (path.parent / f"{path.stem}.data-00000-of-00001").write_bytes(data)
    return path


ENTRIES: dict[str, bytes] = {
    "a shape that does not fit its bytes": entry((3,)),
    "a shape of 10^12": entry((10**6, 10**6)),
    "a shape that wraps around": entry((1 << 32, 1 << 32), size=8),
    "a negative axis": entry((-2,)),
    "two negative axes": entry((-1, -2)),
    "forty axes": entry((2, *[1] * 39)),
    "a negative place": entry(offset=-8),
    "a place behind the end": entry(offset=8),
    "a size behind the end": entry((4,), size=16),
    "a negative size": entry(size=-8),
    "a data file that is not there": entry(shard=1),
    "a data file of number 2^31": entry(shard=(1 << 31) - 1),
    "a negative data file": entry(shard=-1),
    "more texts than bytes": entry((10**9,), dtype=7),
    "slices that cross": entry((4,), slices=[[(0, 3)], [(1, 1)]]),
    "slices that leave a hole": entry((4,), slices=[[(0, 1)], [(2, 2)]]),
    "slices of the same place": entry((4,), slices=[[(0, 2)], [(0, 2)]]),
    "a slice outside": entry((4,), slices=[[(0, 2)], [(3, 2)]]),
    "a negative slice": entry((4,), slices=[[(-2, 2)], [(0, 4)]]),
    "a slice of other axes": entry((4,), slices=[[(0, 4), (0, 1)]]),
    "slices of a huge shape": entry((1 << 40,), slices=[[(0, 2)], [(2, 2)]]),
    "ten thousand slices side by side": entry((1, 10_000), slices=[[(0, 1), (0, 10_000)]] * 10_000),
    "no message": b"\xff\xff\xff",
    "a shape that ends nowhere": whole(1, 1) + b"\x12\x7f",
}


@pytest.mark.parametrize("attack", ENTRIES)
def test_forged_entries_of_a_tensorflow_index(refused: Any, tmp_path: Path, attack: str) -> None:
    """Refused before TensorFlow is asked, which allocates what the index claims."""
    refused(index(tmp_path / "m.index", ENTRIES[attack]))


BODIES: dict[str, bytes] = {
    "more restarts than bytes": table_block((b"", whole(1, 1)), restarts=1 << 31),
    "a shared beginning longer than the key": b"\x05\x01\x01ab" + bytes(4) + b"\1\0\0\0",
    "a key longer than the block": b"\0\x7f\x01ab" + bytes(4) + b"\1\0\0\0",
    "a value of 2^60": b"\0\x01" + varint(1 << 60) + b"a" + bytes(4) + b"\1\0\0\0",
    "a number without an end": b"\xff" * 20 + bytes(4) + b"\1\0\0\0",
    "keys out of order": table_block((b"b", entry()), (b"a", entry())),
    "a key twice": table_block((b"", whole(1, 1)), (b"a", entry()), (b"a", entry())),
    "an empty block": b"",
}


@pytest.mark.parametrize("attack", BODIES)
def test_forged_tables_of_a_tensorflow_index(refused: Any, tmp_path: Path, attack: str) -> None:
    refused(index(tmp_path / "m.index", body=BODIES[attack]))


def test_a_compressed_table(refused: Any, tmp_path: Path) -> None:
    """Snappy, which the format knows and no checkpoint uses: a few bytes would unpack to any length."""
    path = index(tmp_path / "m.index", entry())
    raw = bytearray(path.read_bytes())
    raw[len(table_block((b"", whole(1, 1)), (b"a", entry())))] = 1
    path.write_bytes(raw)
    refused(path, "compressed")


def test_a_block_behind_the_end(refused: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.index"
    index(path, entry())
    path.write_bytes(path.read_bytes()[:-48] + (varint(0) * 2 + varint(1 << 62) + varint(8)).ljust(40, b"\0") + MAGIC)
    refused(path, "a block goes from byte")


def test_two_thousand_million_data_files(refused: Any, tmp_path: Path) -> None:
    refused(index(tmp_path / "m.index", entry(), shards=(1 << 31) - 1), "misses a data file")


def test_a_data_file_that_is_a_link_elsewhere(refused: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = index(tmp_path / "in" / "m.index", entry())
    (tmp_path / "secret").write_bytes(bytes(8))
    data = tmp_path / "in" / "m.data-00000-of-00001"
    data.unlink()
    data.symlink_to(tmp_path / "secret")
    refused(path, "misses a data file")


def test_a_data_file_that_nobody_writes_to(refused: Any, tmp_path: Path) -> None:
    path = index(tmp_path / "m.index", entry())
    (tmp_path / "m.data-00000-of-00001").unlink()
    os.mkfifo(tmp_path / "m.data-00000-of-00001")
    refused(path, "misses a data file")


def test_an_index_of_200_megabytes(refused: Any, tmp_path: Path) -> None:
    path = index(tmp_path / "m.index", entry())
    raw = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate((200 << 20) - 48)
        file.seek(0, os.SEEK_END)
        file.write(raw[-48:])
    refused(path, "LAYOUTX_LIMIT_HEADER")


# --- torch distributed checkpoints ------------------------------------------------------------------------------------


def distributed(folder: Path, change: Any) -> Path:
    """A checkpoint as torch saves it, with its metadata changed."""
    torch = pytest.importorskip("torch")
    import warnings

    import torch.distributed.checkpoint as dcp

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"w": torch.arange(12.0).reshape(3, 4)}, checkpoint_id=folder, no_dist=True)
    about = pickle.loads((folder / ".metadata").read_bytes())
    change(about)
    (folder / ".metadata").write_bytes(pickle.dumps(about))
    return folder


def cut(*boxes: tuple[tuple[int, int], tuple[int, int]], shape: tuple[int, int] = (3, 4)) -> Any:
    """The metadata with these chunks (offsets, sizes), all of one place."""

    def change(about: Any) -> None:
        import torch
        from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

        tensor = about.state_dict_metadata["w"]
        (place,) = about.storage_data.values()
        tensor.size = torch.Size(shape)
        tensor.chunks = [ChunkStorageMetadata(torch.Size(at), torch.Size(n)) for at, n in boxes]
        about.storage_data = {MetadataIndex("w", torch.Size(at)): place for at, _ in boxes}

    return change


def placed(name: str) -> Any:
    def change(about: Any) -> None:
        for place in about.storage_data.values():
            place.relative_path = name

    return change


CHUNKS = {
    "chunks that cross": cut(((0, 0), (2, 4)), ((1, 0), (1, 4))),
    "chunks that leave a hole": cut(((0, 0), (1, 4)), ((2, 0), (1, 4))),
    "chunks that cross and fill the number": cut(((0, 0), (2, 4)), ((1, 0), (1, 4)), shape=(3, 4)),
    "a chunk outside of the shape": cut(((0, 0), (3, 5))),
    "a shape of 10^18": cut(((0, 0), (10**9, 10**9)), shape=(10**9, 10**9)),
    "no chunks": cut(),
    "a data file that climbs": placed("../secret"),
    "a data file by an absolute path": placed("/etc/passwd"),
    "a data file that is not there": placed("__9_9.distcp"),
}


@pytest.mark.parametrize("attack", CHUNKS)
def test_forged_chunks_of_a_distributed_checkpoint(refused: Any, tmp_path: Path, attack: str) -> None:
    (tmp_path / "secret").write_bytes(bytes(4096))
    refused(distributed(tmp_path / "c", CHUNKS[attack]))


def test_a_distributed_data_file_that_is_a_link_elsewhere(refused: Any, tmp_path: Path) -> None:
    folder = distributed(tmp_path / "c", lambda about: None)
    (folder / "__0_0.distcp").rename(tmp_path / "elsewhere")
    (folder / "__0_0.distcp").symlink_to(tmp_path / "elsewhere")
    refused(folder, "outside of the folder")


# --- orbax ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def orbax(tmp_path_factory: pytest.TempPathFactory, victim: Any) -> Path:
    """A checkpoint of one array a file (zarr), as orbax itself writes it."""
    ocp = pytest.importorskip("orbax.checkpoint")
    folder = tmp_path_factory.mktemp("orbax") / "c"
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
    ocp.Checkpointer(handler).save(folder, {"w": np.arange(12.0).reshape(3, 4)})
    assert victim.ask("open", str(folder))["kind"] == "fine"
    return folder


def copied(orbax: Path, folder: Path) -> Path:
    import shutil

    shutil.copytree(orbax, folder)
    return folder


def meta(folder: Path) -> Path:
    return next(folder.rglob(".zarray"))


ARRAYS: dict[str, dict[str, Any]] = {
    "a shape of 10^12": {"shape": [10**6, 10**6]},
    "a shape and chunks of 10^12": {"shape": [10**6, 10**6], "chunks": [10**6, 10**6]},
    "chunks of nothing": {"chunks": [0, 0]},
    "negative chunks": {"chunks": [-3, 4]},
    "negative shapes": {"shape": [-3, 4]},
    "a shape that wraps around": {"shape": [1 << 32, 1 << 32]},
    "a compressor that nobody knows": {"compressor": {"id": "evil"}},
    "objects": {"dtype": "|O"},
    "a filter": {"filters": [{"id": "pickle"}]},
    "another format": {"zarr_format": 99},
    "a dtype of a structure": {"dtype": [["a", "<f4"], ["b", "<f4"]]},
}


@pytest.mark.parametrize("attack", ARRAYS)
def test_forged_arrays_of_an_orbax_folder(refused: Any, tmp_path: Path, orbax: Path, attack: str) -> None:
    folder = copied(orbax, tmp_path / "c")
    about = {**json.loads(meta(folder).read_text()), **ARRAYS[attack]}
    meta(folder).write_text(json.dumps(about))
    refused(folder)


def test_an_orbax_name_that_climbs(refused: Any, tmp_path: Path, orbax: Path) -> None:
    folder = copied(orbax, tmp_path / "c")
    (tmp_path / "secret").mkdir()
    text = (folder / "_METADATA").read_text()
    assert '"key": "w"' in text
    (folder / "_METADATA").write_text(text.replace('"key": "w"', '"key": "../../secret"'))
    refused(folder, "outside")


def test_an_orbax_array_that_is_a_link_elsewhere(refused: Any, tmp_path: Path, orbax: Path) -> None:
    folder = copied(orbax, tmp_path / "c")
    (folder / "w").rename(tmp_path / "elsewhere")
    (folder / "w").symlink_to(tmp_path / "elsewhere")
    refused(folder, "leads out of it")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"tree_metadata": 7}', '{"a": ' + "[" * 100_000 + "}"])
def test_orbax_metadata_that_are_none(refused: Any, tmp_path: Path, orbax: Path, text: str) -> None:
    folder = copied(orbax, tmp_path / "c")
    (folder / "_METADATA").write_text(text)
    refused(folder)


def test_an_orbax_chunk_that_is_cut_short(refused: Any, tmp_path: Path, orbax: Path) -> None:
    folder = copied(orbax, tmp_path / "c")
    chunk = meta(folder).with_name("0.0")
    chunk.write_bytes(chunk.read_bytes()[:7])
    refused(folder)


def test_an_orbax_chunk_that_is_not_there(refused: Any, tmp_path: Path, orbax: Path) -> None:
    """Zarr fills what is missing with zeros: weights that nobody trained."""
    folder = copied(orbax, tmp_path / "c")
    meta(folder).with_name("0.0").unlink()
    refused(folder)
