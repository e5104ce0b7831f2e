"""Recordings in files: bit-exact round trips, damaged and foreign files refused, nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import FileError, ModelError, UsageError
from layoutx.files.safetensors import read_safetensors, write_safetensors
from layoutx.verify.recording import Call, Recording
from layoutx.verify.running import opened
from layoutx.verify.running.inputs_file import inputs_of
from layoutx.verify.running.recorded import KEY, read_recording, write_recording

Array = np.ndarray[Any, Any]


def example() -> Recording:
    """Many dtypes, a scalar, an empty array, a transposed one, NaNs, an array that two calls share."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 3, 5))
    odd = np.array([np.nan, np.inf, -0.0])
    y = x.transpose(2, 0, 1)
    calls = (
        Call("a/b", "Dense", (x, np.array([[True, False]])), (y,), ("", "mask"), 0),
        Call("a/b", "Dense", (y,), (odd, np.zeros((0, 3), "float32")), ("",), 1),
        Call("", "Größe", (), (np.float64(3.5) * np.ones(()), np.arange(7, dtype="int32")), (), 0),
    )
    return Recording("torch", "2.13", "float64", (x,), (odd,), calls, {"model": "m.pt"}, "a note")


def same(left: tuple[Array, ...], right: tuple[Array, ...]) -> bool:
    alike = [(a.shape, a.dtype, np.asarray(a, order="C").tobytes()) for a in left]
    return alike == [(a.shape, a.dtype, np.asarray(a, order="C").tobytes()) for a in right]


def test_round_trip_is_bit_exact(tmp_path: Path) -> None:
    found, path = example(), tmp_path / "acts.safetensors"
    write_recording(found, path)
    again = read_recording(path)
    for name in ("framework", "version", "dtype", "about", "note"):
        assert getattr(again, name) == getattr(found, name)
    assert same(again.inputs, found.inputs)
    assert same(again.outputs, found.outputs)
    for call, other in zip(found.calls, again.calls, strict=True):
        assert (call.layer, call.class_name, call.names, call.number) == (
            other.layer, other.class_name, other.names, other.number)  # fmt: skip
        assert same(call.inputs, other.inputs)
        assert same(call.outputs, other.outputs)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["acts.safetensors"]


def test_an_array_of_two_calls_is_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "acts.safetensors"
    write_recording(example(), path)
    assert sorted(read_safetensors(path).tensors) == [
        "calls/0/in/1", "calls/0/out/0", "calls/1/out/0", "calls/1/out/1", "calls/2/out/0", "calls/2/out/1", "inputs/0",
    ]  # fmt: skip


def test_a_recording_gives_what_it_holds_and_runs_nothing(tmp_path: Path) -> None:
    found, path = example(), tmp_path / "acts.safetensors"
    write_recording(found, path)
    runner = opened(path)
    assert runner.framework == "torch"
    assert runner.layers() == {"a/b": "Dense", "": "Größe"}
    assert same(runner.record(found.inputs).outputs, found.outputs)
    assert same(runner.layer("a/b", found.calls[1].inputs), found.calls[1].outputs)
    assert runner.repeat(found.inputs) is None
    with pytest.raises(UsageError, match="other inputs"):
        runner.record(found.inputs[0] + 1)
    with pytest.raises(ModelError, match="its model is a recording"):
        runner.layer("a/b", [np.ones(3)])


def broken(path: Path, change: str) -> None:
    """A recording with one thing wrong."""
    write_recording(example(), path)
    store = read_safetensors(path)
    arrays = {name: np.array(tensor.read()) for name, tensor in store.tensors.items()}
    said = json.loads(store.metadata[KEY])
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-9])
        return
    if change == "tensor":
        del arrays["calls/1/out/0"]
    elif change == "names":
        said["calls"][0]["names"] = ["", "", "x"]
    elif change == "newer":
        said["format"] = 99
    elif change == "list":
        said = [said]
    text = "{" if change == "json" else json.dumps(said)
    write_safetensors(path, arrays, {KEY: text})


@pytest.mark.parametrize("change", ["cut", "tensor", "names", "newer", "list", "json"])
def test_a_damaged_recording_is_refused(change: str, tmp_path: Path) -> None:
    path = tmp_path / "acts.safetensors"
    broken(path, change)
    with pytest.raises(FileError):
        read_recording(path)


def test_weights_alone_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, {"fc.weight": np.ones((3, 5))}, {})
    with pytest.raises(UsageError, match="holds weights, not a model") as caught:
        opened(str(path))
    assert "package.module:callable" in str(caught.value)
    np.savez(tmp_path / "w.npz", w=np.ones(3))
    with pytest.raises(UsageError, match="holds weights, not a model"):
        opened(tmp_path / "w.npz")
    with pytest.raises(UsageError, match="there is no file"):
        opened(tmp_path / "none.keras")
    with pytest.raises(UsageError, match=r"saved_model\.pb"):
        opened(tmp_path)


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    x = np.ones((2, 3), "complex128")
    with pytest.raises(UsageError):
        write_recording(Recording("torch", "", "", (x,), (x,)), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_inputs_from_files(tmp_path: Path) -> None:
    a, b = np.ones((2, 3)), np.arange(5)
    np.save(tmp_path / "a.npy", a)
    np.savez(tmp_path / "plain.npz", a, b)
    np.savez(tmp_path / "named.npz", image=a, aux=b)
    write_recording(example(), tmp_path / "r.safetensors")
    assert np.array_equal(inputs_of(tmp_path / "a.npy"), a)
    plain = inputs_of(str(tmp_path / "plain.npz"))
    assert isinstance(plain, list)
    assert np.array_equal(plain[1], b)
    assert list(inputs_of(tmp_path / "named.npz")) == ["image", "aux"]
    assert same(tuple(inputs_of(tmp_path / "r.safetensors")), example().inputs)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FileError):
        inputs_of(tmp_path / "objects.npy")
    with pytest.raises(UsageError):
        inputs_of(tmp_path / "absent.npy")
    (tmp_path / "a.txt").write_text("1")
    with pytest.raises(UsageError):
        inputs_of(tmp_path / "a.txt")


def test_record_writes_what_it_gives(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh())
    path = tmp_path / "acts.safetensors"
    found = lx.record(model, np.ones((2, 3)), path=path)
    again = read_recording(path)
    assert again.about["model"] == "Sequential"
    assert same(again.calls[0].outputs, found.calls[0].outputs)
    with pytest.raises(UsageError, match="does not know the shapes"):
        lx.record(model, path=path)
    assert same(read_recording(path).outputs, found.outputs), "a failed run left the old file"
