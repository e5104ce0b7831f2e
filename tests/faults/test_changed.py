"""A source that becomes another one while it is read, and what is no file at all: refused, and nothing is written."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from harm import CHANGED, OLD, Reader, appended, overwritten, replaced
from safetensors.numpy import load_file, save_file
from scenes import record
from sources import command, copied

import layoutx as lx
from layoutx.errors import FileError, UsageError
from layoutx.files.guarded import SourceError
from layoutx.files.open import open_store

MAPPED, FILLED = "layoutx.files.blob:mapped", "layoutx.move.filled:flat_of"


def check(reader: Reader, task: dict, stop: tuple[str, int], harmed: Path, harm, folder: Path) -> None:
    """A conversion whose source is harmed at a stop ends with the error and the old output."""
    out = folder / "out.safetensors"
    out.write_text("old")
    before = {path.name for path in folder.iterdir()}
    found = reader.run({**task, "stop": stop}, lambda: harm(harmed))
    assert found.get("reached"), found
    assert found.get("status") == 1, found
    assert harmed.name in found["said"]
    assert "while it was read" in found["said"], found["said"]
    assert out.read_text() == "old"
    assert {path.name for path in folder.iterdir()} in (before, before - {harmed.name})
    record(f"a source that was {harm.__name__} while it was read", 1, 1)


@pytest.mark.parametrize("harm", CHANGED)
@pytest.mark.parametrize(("format", "stop"), [("safetensors", 1), ("safetensors", 6), ("weights.h5", 3), ("keras", 1)])
def test_a_source_that_changes(reader, sources, tmp_path, format, stop, harm):
    source = copied(sources[format], tmp_path)
    task = {"argv": command(source, tmp_path / "out.safetensors", "--verify", "bytes", "--jobs", "2")}
    check(reader, task, (FILLED, stop), source, harm, tmp_path)


@pytest.mark.parametrize("harm", CHANGED)
def test_between_the_proof_and_the_writing(reader, sources, tmp_path, harm):
    source = copied(sources["keras"], tmp_path)
    task = {"argv": command(source, tmp_path / "out.safetensors", "--verify", "bytes")}
    check(reader, task, ("layoutx.convert:deliver", 1), source, harm, tmp_path)


def test_what_is_saved_whole_is_looked_at_before_it_appears(reader, sources, tmp_path):
    source = copied(sources["safetensors"], tmp_path)
    out = tmp_path / "out.npz"
    out.write_text("old")
    task = {"argv": command(source, out, "--verify", "bytes"), "stop": ["layoutx.files.save:verify", 1]}
    found = reader.run(task, lambda: overwritten(source))
    assert found["status"] == 1, found
    assert "changed while it was read" in found["said"]
    assert out.read_text() == "old"


@pytest.fixture
def shards(sources, tmp_path) -> Path:
    """An index and two shards."""
    arrays = load_file(sources["safetensors"])
    names = sorted(arrays)
    places = {}
    for number, own in enumerate((names[:2], names[2:])):
        path = tmp_path / f"m-{number}.safetensors"
        save_file({name: arrays[name] for name in own}, path)
        os.utime(path, (OLD, OLD))
        places |= dict.fromkeys(own, path.name)
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    os.utime(index, (OLD, OLD))
    return index


@pytest.mark.parametrize("harmed", ["m-0.safetensors", "m-1.safetensors", "m.safetensors.index.json"])
@pytest.mark.parametrize("harm", [overwritten, replaced])
def test_every_file_of_a_sharded_source_counts(reader, shards, tmp_path, harmed, harm):
    task = {"argv": command(shards, tmp_path / "out.safetensors", "--verify", "bytes")}
    check(reader, task, (FILLED, 6), tmp_path / harmed, harm, tmp_path)


@pytest.mark.parametrize("harm", [overwritten, replaced])
def test_the_data_file_of_an_onnx_model_counts(reader, tmp_path, harm):
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(2)
    kept = [onnx.numpy_helper.from_array(rng.normal(size=(53, 59)).astype("f"), f"w{i}") for i in range(3)]
    nodes = [onnx.helper.make_node("MatMul", ["x", f"w{i}"], [f"y{i}"], name=f"n{i}") for i in range(3)]
    x = onnx.helper.make_tensor_value_info("x", 1, [1, 53])
    y = [onnx.helper.make_tensor_value_info(f"y{i}", 1, [1, 59]) for i in range(3)]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [x], y, kept))
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=1)
    os.utime(tmp_path / "m.data", (OLD, OLD))
    argv = ["convert", str(path), "--to", "torch", "-o", str(tmp_path / "out.safetensors"), "--verify", "bytes"]
    check(reader, {"argv": argv}, (FILLED, 2), tmp_path / "m.data", harm, tmp_path)


def test_the_template_of_a_keras_file_counts(reader, sources, tmp_path):
    source, like = copied(sources["safetensors"], tmp_path), copied(sources["keras"], tmp_path)
    out = tmp_path / "out.keras"
    argv = ["convert", str(source), "--to", "keras", "--from", "torch", "--like", str(like), "-o", str(out)]
    argv += ["--pair", "fc0=dense", "--pair", "fc1=dense_1", "--pair", "fc2=dense_2", "--verify", "bytes"]
    found = reader.run({"argv": argv, "stop": [FILLED, 3]}, lambda: appended(like))
    assert found["status"] == 1, found
    assert "m.keras changed while it was read" in found["said"]
    assert not out.exists()


def test_a_store_does_not_read_another_file_in_the_place_of_its_own(sources, tmp_path):
    source = copied(sources["safetensors"], tmp_path)
    store = open_store(source)
    first = store.tensors["fc0.weight"].read().copy()
    assert first.any()
    save_file({name: np.zeros_like(array) for name, array in load_file(source).items()}, tmp_path / "next")
    os.replace(tmp_path / "next", source)
    with pytest.raises(SourceError, match=r"m\.safetensors changed while it was read"):
        store.tensors["fc0.weight"].read()


def test_what_is_only_looked_at_does_not_matter(reader, sources, tmp_path):
    """Other times of a file than that of its last change: read, linked, its rights."""
    source = copied(sources["safetensors"], tmp_path)

    def touched() -> None:
        source.read_bytes()
        os.link(source, tmp_path / "linked")
        source.chmod(0o600)

    task = {"argv": command(source, tmp_path / "out.safetensors"), "stop": [FILLED, 4]}
    found = reader.run(task, touched)
    assert found == {"reached": True, **found, "status": 0}


@pytest.mark.parametrize("how", ["itself", "link", "other spelling", "hard link"])
def test_an_output_that_is_the_source(sources, tmp_path, how):
    source = copied(sources["safetensors"], tmp_path)
    kept, out = source.read_bytes(), tmp_path / "o.safetensors"
    if how == "link":
        out.symlink_to(source)
    elif how == "hard link":
        os.link(source, out)
    else:
        out = source if how == "itself" else tmp_path / "." / ".." / tmp_path.name / source.name
    if how == "hard link":  # the other name gets the new file, the source keeps its own
        lx.convert(source, out, to="flax", from_="torch", live=False)
        assert "params/fc0/kernel" in load_file(out)
    else:
        with pytest.raises(UsageError, match="the source itself"):
            lx.convert(source, out, to="flax", from_="torch", live=False)
    assert source.read_bytes() == kept


@pytest.mark.parametrize("size", [None, 10**6])
def test_an_output_that_is_a_part_of_the_source(shards, tmp_path, size):
    """One shard, and shards of the source's own names."""
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    arrays = len(json.loads(shards.read_text())["weight_map"])
    out = tmp_path / "m-1.safetensors"
    if size:
        renamed = {"m-0.safetensors": "m-00001-of-00004.safetensors", "m-1.safetensors": "m-00002-of-00004.safetensors"}
        for old, new in renamed.items():
            (tmp_path / old).rename(tmp_path / new)
        text = shards.read_text()
        for old, new in renamed.items():
            text = text.replace(old, new)
        shards.write_text(text)
        shards.rename(tmp_path / "given.index.json")
        shards = tmp_path / "given.index.json"
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        out = tmp_path / "m.safetensors"
    assert arrays == 6
    with pytest.raises(UsageError, match="of the source itself"):
        lx.convert(shards, out, to="flax", from_="torch", live=False, max_shard_size=size)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def special(kind: str, folder: Path) -> Path:
    path = folder / "strange.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        path = Path(os.path.relpath(path))
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to a pipe":
        os.mkfifo(folder / "pipe")
        path.symlink_to(folder / "pipe")
    else:
        path = Path(kind)
        if not path.exists():
            pytest.skip(f"there is no {kind} here")
    return path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize(
    "kind",
    [
        "pipe",
        "link to a pipe",
        "socket",
        "folder",
        "/dev/zero",
        "/dev/null",
        "/dev/tty",
        "/proc/self/maps",
        "/proc/kmsg",
    ],
)
def test_what_is_no_file_is_refused_at_once(reader, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = special(kind, tmp_path)
    code = f"import os; os.chdir({str(tmp_path)!r}); lx.convert({str(path)!r}, 'o.safetensors', to='flax')"
    found = reader.run({"code": code, "stop": [FILLED, 1]}, lambda: None)
    call = kind == "folder"  # a wrong call, the others are what no file holds
    assert found["status"] == 1 + call, found
    assert found["said"].startswith(f"{'UsageError' if call else 'FileError'}: {path.name} is ")


def test_the_standard_input_is_no_file(tmp_path):
    if not Path("/dev/stdin").exists():
        pytest.skip("there is no /dev/stdin here")
    command = [sys.executable, "-m", "layoutx", "inspect", "/dev/stdin"]
    found = subprocess.run(command, input=b"{}", capture_output=True, timeout=300, check=False)
    assert found.returncode == 1
    assert b"stdin is a pipe" in found.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipes_among_the_files_of_a_source(shards, tmp_path):
    (tmp_path / "m-1.safetensors").unlink()
    os.mkfifo(tmp_path / "m-1.safetensors")
    with pytest.raises(FileError, match="missing"):
        open_store(shards)


@pytest.mark.parametrize("format", ["safetensors", "keras", "npz"])
def test_a_read_that_fails_is_an_error_of_the_file(sources, tmp_path, monkeypatch, format):
    """As a disk gives it to the calls that read headers and directories of archives."""
    source = copied(sources[format], tmp_path)
    plain = Path.open

    def failing(path: Path, *how: str) -> object:
        file = plain(path, *how)
        if path == source:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return file

    monkeypatch.setattr(Path, "open", failing)
    monkeypatch.setattr(zipfile.ZipFile, "_RealGetContents", lambda _: failing(source))
    with pytest.raises(FileError, match=source.name) as caught:
        open_store(source)
    assert "Input/output error" in caught.value.why
