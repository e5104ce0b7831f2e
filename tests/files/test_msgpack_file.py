"""flax msgpack: what flax writes is read, what layoutx writes flax reads, and damage is told as damage."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from layoutx.errors import FileError, LayoutxError, UsageError
from layoutx.files import msgpack_file
from layoutx.files.open import open_store
from layoutx.files.save import save

RNG = np.random.default_rng(7)
TREE = {
    "params": {
        "Dense_0": {"kernel": RNG.standard_normal((5, 7)).astype(np.float32), "bias": np.arange(7.0)},
        "half": {"w": RNG.standard_normal((3, 2)).astype(ml_dtypes.bfloat16), "empty": np.zeros((0, 3))},
    },
    "batch_stats": {"BatchNorm_0": {"mean": np.float32(3.5), "count": np.array(11, np.int64)}},
}


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": np.asarray(value)}
    return found


def same(found: Any, wanted: Any) -> bool:
    return (found.dtype, found.shape, found.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())


@pytest.mark.parametrize("chunk", [None, 64])
def test_what_flax_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int | None) -> None:
    serialization = pytest.importorskip("flax.serialization")
    if chunk:
        monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", chunk)
    path = tmp_path / "x.bin"  # the ending says nothing
    path.write_bytes(serialization.to_bytes({**TREE, "step": 3}))
    store = open_store(path)
    assert store.format == "msgpack"
    assert store.metadata == {"msgpack:skipped": "step (int)"}
    want = flat(TREE)
    assert list(store.tensors) == list(want)
    for name, tensor in store.tensors.items():
        assert same(tensor.read(), want[name]), name


@pytest.mark.parametrize("chunk", [1 << 30, 64])
def test_what_layoutx_writes_flax_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    serialization = pytest.importorskip("flax.serialization")
    monkeypatch.setattr(msgpack_file, "CHUNK", chunk)
    path = tmp_path / "x.msgpack"
    save(path, flat(TREE), {"layoutx": '{"a": 1}'})
    assert open_store(path).metadata == {"layoutx": '{"a": 1}'}
    back = serialization.msgpack_restore(path.read_bytes())
    own = back.pop("layoutx")
    assert own["json"].dtype == np.uint8
    found, want = flat(back), flat(TREE)
    assert found.keys() == want.keys()
    assert all(same(found[name], want[name]) for name in want)
    template = {"params": TREE["params"]}  # flax passes over what the target does not have
    assert serialization.from_bytes(template, path.read_bytes()).keys() == {"params"}


def test_the_own_collection_does_not_disturb_flax(tmp_path: Path) -> None:
    linen, jax = pytest.importorskip("flax.linen"), pytest.importorskip("jax")
    from flax import serialization

    path = tmp_path / "x.msgpack"
    arrays = {"params/kernel": np.ones((3, 2), np.float32), "params/bias": np.ones(2, np.float32)}
    save(path, arrays, {"layoutx": "{}"})
    variables = serialization.msgpack_restore(path.read_bytes())
    model = linen.Dense(2)
    assert np.array_equal(jax.jit(model.apply)(variables, np.ones((1, 3), np.float32)), [[4, 4]])


def test_a_name_inside_another_tensor_is_refused(tmp_path: Path) -> None:
    for names in (("a", "a/b"), ("a/b", "a")):
        with pytest.raises(UsageError):
            save(tmp_path / "x.msgpack", {name: np.ones(3) for name in names}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"\x81\xa1a\x03", "without arrays"),
        (b"\x81\xa1a\xc7\x0c\x01\x93\x91\x02\xa2f4\xc4\x04abcd", "do not fit"),  # 4 bytes of 8
        (b"\x81\xa1a\xc7\x08\x01\x93\x90\xa1O\xc4\x01a.", "dtype"),
        (b"\x82\xa1a\x03\xa1a\x03", "stands there twice"),
        (b"\x81\xa1a" + b"\x81\xa1a" * 500 + b"\x03", "deep"),
        (b"\x81\xa1a\x03\x03", "bytes at its end"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "truncated"),
    ],
)
def test_a_damaged_file_says_so(tmp_path: Path, raw: bytes, word: str) -> None:
    path = tmp_path / "x.msgpack"
    path.write_bytes(raw)
    with pytest.raises(FileError, match=word):
        open_store(path)


def test_fuzz_gives_file_errors_only(tmp_path: Path) -> None:
    path = tmp_path / "x.msgpack"
    save(path, flat(TREE), {"layoutx": "{}"})
    raw, rng, failed = path.read_bytes(), random.Random(0), 0
    for _ in range(600):
        damaged = bytearray(raw[: rng.randrange(1, len(raw))] if rng.random() < 0.3 else raw)
        for _ in range(rng.choice([1, 1, 3, 10])):
            damaged[rng.randrange(min(len(damaged), rng.choice([40, 10**9])))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            for tensor in open_store(path).tensors.values():
                found = tensor.read()
                assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        except FileError:
            failed += 1
        except LayoutxError as error:
            pytest.fail(f"{type(error).__name__}: {error}")
    assert failed > 100


def test_orbax_folders_are_read_one_tensor_at_a_time(tmp_path: Path) -> None:
    ocp = pytest.importorskip("orbax.checkpoint")
    tree = {"params": {"Dense_0": {"kernel": RNG.standard_normal((5, 7)).astype(np.float32)}}, "list": [np.arange(3.0)]}
    place = tmp_path / "step" / "default"
    ocp.PyTreeCheckpointer().save(place, tree)
    for folder in (place, place.parent):
        store = open_store(folder)
        assert store.format == "orbax"
        assert set(store.tensors) == {"params/Dense_0/kernel", "list/0"}
        assert same(store.tensors["params/Dense_0/kernel"].read(), tree["params"]["Dense_0"]["kernel"])
        assert same(store.tensors["list/0"].read(), tree["list"][0])
    (place / "_METADATA").write_text("{")
    with pytest.raises(FileError):
        open_store(place)
