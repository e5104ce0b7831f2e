"""Files made piece by piece: the same bytes as from the plain executor, bounded memory, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from keras_files import config_of, conv, dense, lstm, write_model
from safetensors.numpy import load_file

import layoutx as lx
from layoutx.errors import ConversionError, FileError, LayoutxError, UsageError, VerificationError
from layoutx.files.open import open_store
from layoutx.files.save import save
from layoutx.job import shards
from layoutx.job.jobs import Options
from layoutx.job.levels import computed
from layoutx.move import pieces, pool
from layoutx.move.pool import MANY

LAYERS = [conv("conv2d", 5, 7), conv("conv2d_1", 7, 11, (2, 3)), lstm("lstm", 11, 13), dense("dense", 13, 17)]


@pytest.fixture
def small_pieces(monkeypatch):
    """Everything in many pieces."""
    monkeypatch.setattr(pieces, "PIECE", 512)
    monkeypatch.setattr(pieces, "RUN", 16)
    monkeypatch.setattr(pieces, "SPAN", 16)
    monkeypatch.setattr(pieces.cut_of, "__defaults__", (512,))
    monkeypatch.setattr(pool, "BATCH", 256)


@pytest.fixture
def mixed(tmp_path):
    """A convolution, an LSTM and a Dense: axes permuted, gates moved, biases copied and zeros filled in."""
    layers = [lstm("lstm", 11, 13), dense("dense", 13, 17), dense("dense_1", 17, 17)]
    return write_model(tmp_path / "m.weights.h5", layers, [None, None, 11])


@pytest.fixture
def convs(tmp_path):
    return write_model(tmp_path / "c.weights.h5", LAYERS[:2], [None, None, None, 5])


def converted(path, out, **how):
    return lx.convert(path, out, to="torch", config=config_of(path), **how)


def arrays(path):
    return {name: tensor.read() for name, tensor in open_store(path).tensors.items()}


def plain(path, tmp_path):
    """What the plain way gives: everything in memory, written whole (as .npz is)."""
    out = tmp_path / "plain.npz"
    converted(path, out, verify="none")
    return arrays(out)


def same(a, b):
    assert a.keys() == b.keys()
    for name, array in a.items():
        assert (array.dtype, array.shape) == (b[name].dtype, b[name].shape), name
        assert array.tobytes() == b[name].tobytes(), name


@pytest.mark.parametrize("verify", ["layers", "bytes", "none"])
@pytest.mark.parametrize("model", ["mixed", "convs"])
def test_the_file_is_what_the_plain_way_gives(request, tmp_path, small_pieces, model, verify):
    path = request.getfixturevalue(model)
    out = tmp_path / "out.safetensors"
    converted(path, out, verify=verify, live=False)
    same(arrays(out), plain(path, tmp_path))
    assert load_file(out).keys() == arrays(out).keys()


def test_any_number_of_threads_gives_the_same_file(mixed, tmp_path, small_pieces):
    files = []
    for jobs in (1, 2, 5):
        out = tmp_path / "out.safetensors"
        converted(mixed, out, jobs=jobs, verify="bytes")
        files.append(out.read_bytes())
    assert files[0] == files[1] == files[2]


def test_chunked_and_compressed_sources_too(tmp_path, small_pieces):
    layers = [lstm("lstm", 11, 13), dense("dense", 13, 17)]
    path = write_model(tmp_path / "m.weights.h5", layers, [None, None, 11], compression="gzip", chunks=True)
    out = tmp_path / "out.safetensors"
    converted(path, out, jobs=3)
    same(arrays(out), plain(path, tmp_path))


def test_back_into_the_structure_of_a_keras_file(mixed, tmp_path, small_pieces):
    out, back = tmp_path / "out.safetensors", tmp_path / "back.weights.h5"
    converted(mixed, out)
    template = tmp_path / "t.keras"
    keras_zip(template, mixed)
    lx.convert(out, back, to="keras", like=template, jobs=2)
    same(arrays(back), arrays(mixed))
    lx.convert(out, tmp_path / "back.keras", to="keras", like=template)
    same(arrays(tmp_path / "back.keras"), arrays(mixed))


def keras_zip(path, weights):
    import zipfile

    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("config.json", config_of(weights).read_text())
        archive.write(weights, "model.weights.h5")


def test_another_dtype_is_one_rounding_and_is_told(mixed, tmp_path, small_pieces):
    out = tmp_path / "out.safetensors"
    report = converted(mixed, out, dtype="bf16", live=False)
    wide, narrow = plain(mixed, tmp_path), arrays(out)
    for name, array in wide.items():
        assert narrow[name].dtype == ml_dtypes.bfloat16
        assert narrow[name].tobytes() == array.astype(ml_dtypes.bfloat16).tobytes()
    assert report.exactness == "rounds"
    assert "numbers were rounded to bfloat16" in str(report)
    assert all(layer.proof.round_trip == "not reversible: rounded" for layer in report.layers)


def test_what_a_dtype_cannot_hold_is_refused_or_allowed(tmp_path):
    path = write_model(tmp_path / "m.weights.h5", [dense("dense", 5, 7)], [None, 5])
    import h5py

    with h5py.File(path, "r+") as file:
        file["layers/dense/vars/0"][2, 3] = 1e6
    out = tmp_path / "out.safetensors"
    with pytest.raises(ConversionError, match="infinite") as found:
        converted(path, out, dtype="f16", live=False)
    assert "dense.weight: 1 of 35 numbers, the largest 1e+06, as float16" in str(found.value)
    assert "--allow range" in str(found.value)
    assert list(tmp_path.glob("*out*")) == []
    report = converted(path, out, dtype="f16", live=False, allow=["range"])
    assert "1 became infinite" in str(report)
    assert np.isinf(arrays(out)["dense.weight"][3, 2])


def test_a_failed_write_leaves_the_old_file_and_nothing_else(mixed, tmp_path, small_pieces, monkeypatch):
    out = tmp_path / "out.safetensors"
    save(out, {"old": np.arange(3.0)}, {})
    before, files, count = out.read_bytes(), set(tmp_path.iterdir()), [0]
    write = os.pwrite

    def full(file, data, offset):
        count[0] += 1
        if count[0] == 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(FileError, match="No space left"):
        converted(mixed, out, jobs=2)
    assert out.read_bytes() == before
    assert set(tmp_path.iterdir()) == files


def test_a_byte_that_is_not_kept_is_noticed(mixed, tmp_path, small_pieces, monkeypatch):
    write = os.pwrite

    def lying(file, data, offset):
        data = bytearray(data)
        if offset > 2000:
            data[0] ^= 1
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", lying)
    out = tmp_path / "out.safetensors"
    with pytest.raises((VerificationError, LayoutxError), match="did not keep"):
        converted(mixed, out, verify="bytes")
    assert not out.exists()
    converted(mixed, out, verify="none")  # as asked for


def test_the_way_that_was_proved_is_the_way_that_was_written(mixed, tmp_path, monkeypatch):
    """The fast copy gives other bytes than the plain one: found before anything is put in place."""
    from layoutx.move import filled

    write = filled.write

    def wrong(array, *rest):
        write(array, *rest)
        array[:1] += 1

    monkeypatch.setattr(filled, "write", wrong)
    with pytest.raises(LayoutxError, match="was not written as it was proved"):
        converted(mixed, tmp_path / "out.safetensors", live=False)
    assert not (tmp_path / "out.safetensors").exists()


def stopped(path, out, monkeypatch):
    """A conversion that somebody stops at its third shard; the names of those that it made."""
    make, made = shards.make, []

    def stopping(part):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(part.path.name)
        return make(part)

    monkeypatch.setattr(shards, "make", stopping)
    with pytest.raises(KeyboardInterrupt):
        converted(path, out, max_shard_size=3000)
    return made


class TestShards:
    """Shards with an index, and what a stopped run leaves."""

    def test_they_hold_what_one_file_holds(self, mixed, tmp_path, small_pieces):
        whole, out = tmp_path / "whole.safetensors", tmp_path / "out.safetensors"
        converted(mixed, whole)
        report = converted(mixed, out, max_shard_size=3000)
        index = tmp_path / "out.safetensors.index.json"
        named = json.loads(index.read_text())["weight_map"]
        assert len(set(named.values())) > 2
        for file in set(named.values()):
            assert sum(t.nbytes for t in open_store(tmp_path / file).tensors.values()) <= 3000 or (
                len(open_store(tmp_path / file).tensors) == 1
            )
        same(arrays(index), arrays(whole))
        assert "layoutx" in open_store(index).metadata
        assert not out.exists()
        assert not list(tmp_path.glob(".*"))
        assert report.keys_written == len(named)

    def test_a_stopped_run_goes_on(self, mixed, tmp_path, monkeypatch):
        out, make = tmp_path / "out.safetensors", shards.make
        made = stopped(mixed, out, monkeypatch)
        assert not list(tmp_path.glob("out*"))
        first = tuple(made)
        (folder,) = (one for one in shards.work_folder(out).iterdir() if one.is_dir())
        (folder / first[1]).write_bytes((folder / first[1]).read_bytes()[:-1] + b"\x7f")  # not what it was
        monkeypatch.setattr(shards, "make", lambda part: made.append(part.path.name) or make(part))
        converted(mixed, out, max_shard_size=3000, resume=True)
        assert made.count(first[0]) == 1
        assert made.count(first[1]) == 2
        converted(mixed, tmp_path / "again.safetensors", max_shard_size=3000)
        same(arrays(tmp_path / "out.safetensors.index.json"), arrays(tmp_path / "again.safetensors.index.json"))

    def test_another_source_is_another_job(self, mixed, tmp_path, monkeypatch):
        out, make = tmp_path / "out.safetensors", shards.make
        stopped(mixed, out, monkeypatch)
        write_model(
            mixed, [lstm("lstm", 11, 13), dense("dense", 13, 17), dense("dense_1", 17, 17)], [None, None, 11], seed=9
        )
        monkeypatch.setattr(shards, "make", make)
        converted(mixed, out, max_shard_size=3000, resume=True)
        converted(mixed, tmp_path / "again.safetensors", max_shard_size=3000)
        same(arrays(tmp_path / "out.safetensors.index.json"), arrays(tmp_path / "again.safetensors.index.json"))

    def test_calls_that_mean_nothing(self, mixed, tmp_path):
        for how, why in [
            ({"max_shard_size": "5 apples"}, "no size"),
            ({"resume": True}, "nothing to resume"),
            ({"jobs": 0}, "0 threads"),
            ({"dtype": "int7"}, "no dtype"),
            ({"verify": "maybe"}, "no level"),
        ]:
            with pytest.raises(UsageError, match=why):
                converted(mixed, tmp_path / "out.safetensors", **how)
        with pytest.raises(UsageError, match="shards"):
            converted(mixed, tmp_path / "out.npz", max_shard_size="5GB")


def test_large_models_are_proved_by_their_smallest_layers(mixed, tmp_path, monkeypatch):
    monkeypatch.setattr("layoutx.job.levels.MOST_LAYERS", 2)
    report = converted(mixed, tmp_path / "out.safetensors", live=False)
    computed_ = {layer.name for layer in report.layers if layer.proof.method}
    assert computed_ == {"lstm", "dense"}
    other = next(layer for layer in report.layers if layer.name == "dense_1")
    assert other.proof.round_trip == "bit-exact by its plan"
    assert computed("bytes", None) == frozenset()
    assert Options().allow == frozenset()


CHILD = """
import sys, threading, time
import layoutx as lx
peak = [0]
def watch():
    while True:
        with open("/proc/self/status") as file:
            peak[0] = max(peak[0], *(int(line.split()[1]) for line in file if line.startswith("RssAnon")))
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
lx.convert(sys.argv[1], sys.argv[2], to="torch", config=sys.argv[3], jobs=int(sys.argv[4]))
print(peak[0] // 1024, "torch" in sys.modules, "tensorflow" in sys.modules)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from /proc")
@pytest.mark.parametrize("jobs", [2, MANY])
def test_memory_does_not_grow_with_the_model(tmp_path, jobs):
    """400 MB in and out, with the default verification, in less than 80 MB of memory of its own."""
    path = write_model(
        tmp_path / "m.weights.h5", [dense(f"dense_{k}" if k else "dense", 5003, 5003) for k in range(4)], [None, 5003]
    )
    out = tmp_path / "out.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(out), str(config_of(path)), str(jobs)],
        capture_output=True,
        text=True,
        check=True,
    )
    megabytes, torch, tensorflow = done.stdout.split()
    assert int(megabytes) < 80
    assert (torch, tensorflow) == ("False", "False")
    source, made = arrays(path), arrays(out)
    assert np.array_equal(source["layers/dense_3/vars/0"].T, made["dense_3.weight"])
