"""safetensors laid out: every reader gives back what was put at the offsets."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest
from filling import entries_of, fill, write
from tricky import same_bits, tricky_arrays

from layoutx.errors import FileError, UsageError
from layoutx.files import atomic
from layoutx.files.atomic import replacing
from layoutx.files.dtypes import settled
from layoutx.files.laid.lay import can_lay, lay
from layoutx.files.open import open_store
from layoutx.files.safetensors import HEADER_LIMIT, header_text, write_safetensors


@pytest.mark.parametrize("metadata", [{}, {"layoutx": '{"source": "snö ☃"}' + "x" * 100_000, "author": "näme"}])
def test_every_bit_comes_back_in_order(tmp_path, metadata):
    arrays = tricky_arrays()
    path = tmp_path / "x.safetensors"
    laid = write(path, arrays, metadata)
    assert path.stat().st_size == laid.end
    store = open_store(path)
    assert list(store.tensors) == list(arrays)
    for name, want in arrays.items():
        same_bits(store.tensors[name].read(), want)
    assert dict(store.metadata) == metadata
    assert os.listdir(tmp_path) == [path.name]


def test_the_library_reads_it(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors import safe_open
    from safetensors.torch import load_file

    arrays = {name: a for name, a in tricky_arrays().items() if a.dtype.isbuiltin != 2 or a.dtype.name == "bfloat16"}
    path = tmp_path / "x.safetensors"
    write(path, arrays, {"layoutx": "c"})
    state = load_file(path)
    assert set(state) == set(arrays)
    for name, want in arrays.items():
        assert tuple(state[name].shape) == want.shape
        got = state[name].reshape(-1).view(torch.uint8).numpy()
        assert got.tobytes() == settled(want).tobytes()
    with safe_open(path, "np") as view:
        assert view.metadata() == {"layoutx": "c"}
        for name in (name for name, array in arrays.items() if array.dtype.isbuiltin != 2):
            np.testing.assert_array_equal(view.get_tensor(name), arrays[name])


def test_wide_dtypes_are_aligned(tmp_path):
    arrays = tricky_arrays()
    laid = write(tmp_path / "x.safetensors", arrays, {}, room=1013)
    assert all(laid.offsets[name] % array.dtype.itemsize == 0 for name, array in arrays.items() if array.size)


def test_the_header_is_the_plain_writers_but_for_spaces(tmp_path):
    arrays = {name: np.asarray(a, order="C") for name, a in tricky_arrays().items() if name != "big"}
    write(tmp_path / "laid.safetensors", arrays, {"layoutx": "c"}, room=991)
    write_safetensors(tmp_path / "plain.safetensors", arrays, {"layoutx": "c"})

    def parts(name):
        data = (tmp_path / name).read_bytes()
        length = int.from_bytes(data[:8], "little")
        return data[8 : 8 + length].rstrip(b" "), length, data[8 + length :]

    (text, length, data), (text2, length2, data2) = parts("laid.safetensors"), parts("plain.safetensors")
    assert (text, data) == (text2, data2)
    assert length % 8 == 0
    assert length > length2


def test_the_same_input_gives_the_same_bytes(tmp_path):
    arrays = tricky_arrays()
    for seed in (1, 2):
        write(tmp_path / f"{seed}.safetensors", arrays, {"layoutx": "c"}, seed=seed, jobs=seed)
    assert (tmp_path / "1.safetensors").read_bytes() == (tmp_path / "2.safetensors").read_bytes()


def test_the_room_is_enough_to_the_last_byte(tmp_path):
    arrays = {"w": np.arange(7.0)}
    metadata = {"layoutx": "snö" * 41}
    room = len(json.dumps(metadata, separators=(",", ":"), ensure_ascii=False).encode())
    write(tmp_path / "x.safetensors", arrays, metadata, room=room)
    with pytest.raises(FileError, match=r"the metadata does not fit into y\.safetensors"):
        write(tmp_path / "y.safetensors", arrays, {"layoutx": metadata["layoutx"] + "12345678"}, room=room)
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_an_unfinished_file_is_no_file(tmp_path):
    arrays = tricky_arrays()
    path = tmp_path / "x.safetensors"
    laid = lay(path, path, entries_of(arrays), 100)
    fill(laid, arrays)
    with pytest.raises(FileError):
        open_store(path)


def test_an_old_output_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")

    def stopped():
        with replacing(path) as temporary:
            lay(temporary, path, entries_of(tricky_arrays()), 100)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.safetensors"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_system_that_cannot_reserve(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(atomic.os, "posix_fallocate", refuse)
    arrays = tricky_arrays()
    write(tmp_path / "x.safetensors", arrays, {"layoutx": "c"})
    same_bits(open_store(tmp_path / "x.safetensors").tensors["sliced"].read(), arrays["sliced"])


def test_a_full_disk_is_said_before_a_number_is_written(tmp_path, monkeypatch):
    asked = []

    def full(_handle, _begin, nbytes):
        asked.append(nbytes)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "posix_fallocate", full)
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileError, match=r"cannot write x\.safetensors") as caught, replacing(path) as temporary:
        lay(temporary, path, entries_of({"w": np.ones((1009, 13))}), 100)
    assert "No space left" in str(caught.value)
    assert asked[0] > 1009 * 13 * 8
    assert not os.listdir(tmp_path)


def test_what_the_format_cannot_hold(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(UsageError, match="safetensors cannot hold 'c'"):
        lay(path, path, entries_of({"c": np.ones(2, np.complex128)}), 100)
    with pytest.raises(UsageError, match="safetensors cannot hold '__metadata__'"):
        lay(path, path, entries_of({"__metadata__": np.ones(2)}), 100)
    with pytest.raises(UsageError, match="'w' would stand twice"):
        lay(path, path, entries_of({"w": np.ones(2)}) * 2, 100)
    with pytest.raises(UsageError, match="too long") as caught:
        lay(path, path, entries_of({"w": np.ones(2)}), HEADER_LIMIT)
    assert "--max-shard-size" in str(caught.value)
    assert len(header_text(b"", {}, HEADER_LIMIT - 8)) <= HEADER_LIMIT
    assert not path.exists()


def test_which_outputs_can_be_laid(tmp_path):
    assert can_lay(tmp_path / "x.safetensors", None)
    for name in ("x.npz", "x.pt", "x.onnx", "x.msgpack", "x.keras", "x.weights.h5", "x.h5", "x.hdf5"):
        assert not can_lay(tmp_path / name, None)
    with pytest.raises(UsageError, match=r"x\.npz cannot be laid out"):
        lay(tmp_path / "x.npz", tmp_path / "x.npz", [], 0)


def test_nothing_but_empty_tensors(tmp_path):
    for arrays in ({}, {"empty": np.zeros((0, 3), np.float32)}):
        write(tmp_path / "x.safetensors", arrays, {"layoutx": "c"})
        store = open_store(tmp_path / "x.safetensors")
        assert {name: tensor.shape for name, tensor in store.tensors.items()} == {k: a.shape for k, a in arrays.items()}
