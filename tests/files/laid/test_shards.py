"""Shards: their sizes, their names, and an index that layoutx and the safetensors library's users can read."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from filling import entries_of, write
from hypothesis import given
from hypothesis import strategies as st
from tricky import same_bits

from layoutx.errors import UsageError
from layoutx.files.laid.entry import Entry
from layoutx.files.laid.shards import index_name, index_text, partition, shard_names, size_of
from layoutx.files.open import open_store


def entries(*sizes):
    return [Entry(f"w{k}", np.dtype(np.uint8), (size,)) for k, size in enumerate(sizes)]


def sizes(runs):
    return [[entry.nbytes for entry in run] for run in runs]


def test_runs_are_as_long_as_they_may_be():
    assert sizes(partition(entries(6, 6, 2, 6, 2, 2), 10)) == [[6], [6, 2], [6, 2, 2]]
    assert sizes(partition(entries(4, 6, 11, 1, 9, 0), 10)) == [[4, 6], [11], [1, 9, 0]]
    assert sizes(partition(entries(11, 0, 3), 10)) == [[11], [0, 3]]
    assert partition([], 10) == ()


@given(st.lists(st.integers(0, 30)), st.integers(1, 40))
def test_order_and_bound(of, most):
    given_entries = entries(*of)
    runs = partition(given_entries, most)
    assert [entry for run in runs for entry in run] == given_entries
    assert all(run for run in runs)
    for run in runs:
        assert sum(entry.nbytes for entry in run) <= most or len(run) == 1
    for run, after in pairwise(runs):
        assert sum(entry.nbytes for entry in run) + after[0].nbytes > most


def test_names_as_the_hub_has_them():
    assert shard_names("model.safetensors", 3) == (
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    )
    assert shard_names("x.y.safetensors", 1) == ("x.y.safetensors",)
    assert index_name("model.safetensors") == "model.safetensors.index.json"
    for call in (lambda: shard_names("m.keras", 2), lambda: index_name("m.keras")):
        with pytest.raises(UsageError, match=r"m\.keras cannot be written in shards"):
            call()


def test_shards_and_index_are_one_store(tmp_path):
    rng = np.random.default_rng(3)
    arrays = {f"layer.{k}.größe": rng.normal(size=(k + 2, 5)).astype(np.float32) for k in (7, 3, 11, 2, 5)}
    runs = partition(entries_of(arrays), 300)
    names = shard_names("model.safetensors", len(runs))
    for name, run in zip(names, runs, strict=True):
        write(tmp_path / name, {entry.name: arrays[entry.name] for entry in run}, {})
    text = index_text(dict(zip(names, runs, strict=True)), {"layoutx": "certificate", "total_size": "no"})
    (tmp_path / index_name("model.safetensors")).write_text(text, encoding="utf-8")
    store = open_store(tmp_path / "model.safetensors.index.json")
    assert list(store.tensors) == list(arrays)
    for name, want in arrays.items():
        same_bits(store.tensors[name].read(), want)
    assert store.metadata["layoutx"] == "certificate"
    index = json.loads(text)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in arrays.values())
    assert len(set(index["weight_map"].values())) == len(names) == 3


def test_the_hub_agrees(tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    torch = pytest.importorskip("torch")
    state = {f"w{k}": torch.zeros(size) for k, size in enumerate((6, 6, 2, 6, 2, 2))}
    split = hub.split_torch_state_dict_into_shards(state, max_shard_size=40)
    runs = partition([Entry(name, np.dtype(np.float32), tuple(t.shape)) for name, t in state.items()], 40)
    assert [[entry.name for entry in run] for run in runs] == list(split.filename_to_tensors.values())
    assert list(shard_names("model.safetensors", len(runs))) == list(split.filename_to_tensors)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5GB", 5_000_000_000),
        ("5 gb", 5_000_000_000),
        (" 1.5GiB ", 3 << 29),
        ("200MB", 200_000_000),
        ("0.5KB", 500),
        ("1KiB", 1024),
        ("3MiB", 3 << 20),
        ("2TB", 2 * 10**12),
        ("1.000000001GB", 1_000_000_001),
    ],
)
def test_sizes(text, size):
    assert size_of(text) == size


NO_SIZES = ["", "5", "5B", "GB", "5 G", "-5GB", "5,5GB", "0GB", "0.0001KB", "1e3KB", "5GB5", "٣GB", "5 XB"]


@pytest.mark.parametrize("text", NO_SIZES)
def test_no_sizes(text):
    with pytest.raises(UsageError, match="is no size") as caught:
        size_of(text)
    assert "a unit of KB, KiB, MB" in str(caught.value)
