"""safetensors, npz and torch files made by their own libraries, and by nobody's."""

from __future__ import annotations

import json
import os
import sys

import ml_dtypes
import numpy as np
import pytest
from tricky import same_bits

from layoutx.errors import FileError, UsageError
from layoutx.files import torch_file
from layoutx.files.open import open_store
from layoutx.files.safetensors import DTYPES
from layoutx.files.save import save

RNG = np.random.default_rng(11)


def test_safetensors_of_the_library_every_dtype(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    kinds = [*DTYPES.values()]
    raw = {kind: torch.arange(1, 8, dtype=torch.float32).to(getattr(torch, kind)) for kind in kinds}
    save_file(raw, tmp_path / "x.safetensors", {"k": "v"})
    store = open_store(tmp_path / "x.safetensors")
    assert dict(store.metadata) == {"k": "v"}
    for kind, value in raw.items():
        got = store.tensors[kind].read()
        assert got.dtype.name == kind
        assert got.tobytes() == bytes(value.untyped_storage())
        assert not got.flags.writeable


def test_sharded_safetensors(tmp_path):
    from safetensors.numpy import save_file

    one, two = {"b": RNG.normal(size=3)}, {"a": RNG.normal(size=(5, 7)), "c": np.ones(2)}
    save_file(one, tmp_path / "m-1.safetensors", {"format": "pt"})
    save_file(two, tmp_path / "m-2.safetensors")
    places = {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 320, "note": "n"}, "weight_map": places}))
    store = open_store(index)
    assert (store.format, list(store.tensors), dict(store.metadata)) == (
        "safetensors",
        ["a", "b", "c"],
        {"format": "pt", "note": "n"},
    )
    for name, want in (one | two).items():
        same_bits(store.tensors[name].read(), want)
    del places["c"]
    index.write_text(json.dumps({"weight_map": places | {"d": "m-1.safetensors"}}))
    with pytest.raises(FileError) as caught:
        open_store(index)
    assert "in the index only: d" in str(caught.value)
    assert "in the shards only: c" in str(caught.value)
    index.write_text(json.dumps({"weight_map": {"a": "model.gguf"}}))
    (tmp_path / "model.gguf").write_bytes(b"x")
    with pytest.raises(FileError, match=r"is an index of \.gguf files"):
        open_store(index)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"dtype": "F4", "shape": [2], "data_offsets": [0, 8]}, "'F4'"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "do not fit a float32"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "no sizes"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}, "do not fit"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "belong to no tensor"),
        ({"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 8]}, "do not fit"),
        ({"dtype": "F32", "shape": [True, 2], "data_offsets": [0, 8]}, "no sizes"),
        ({"dtype": "F32", "shape": 2, "data_offsets": [0, 8]}, "cannot read|no sizes"),
        ([], "lacks dtype"),
    ],
)
def test_forged_safetensors_headers(tmp_path, entry, text):
    header = json.dumps({"w": entry}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(FileError, match=text):
        open_store(tmp_path / "x")


def test_a_name_twice_in_a_safetensors_header(tmp_path):
    one = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    header = f'{{"w":{one},"w":{one}}}'.encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(FileError, match="a name stands twice"):
        open_store(tmp_path / "x")


@pytest.mark.parametrize("writer", [np.savez, np.savez_compressed])
def test_npz_of_numpy(tmp_path, writer):
    want = {
        "a": RNG.normal(size=(5, 7)),
        "f/g.h": np.asfortranarray(RNG.normal(size=(2, 3, 5))),
        "big": RNG.normal(size=3).astype(">f4"),
        "zero": np.array(4, np.int8),
        "none": np.zeros((0, 3)),
    }
    writer(tmp_path / "x.npz", **want)
    store = open_store(tmp_path / "x.npz")
    assert list(store.tensors) == list(want)
    for name, array in want.items():
        assert store.tensors[name].dtype == store.tensors[name].read().dtype
        same_bits(store.tensors[name].read(), array)


@pytest.mark.parametrize("bad", [np.array([None, 1]), np.array(["text"]), np.zeros(3, "V2"), np.zeros(2, "i4,f4")])
def test_npz_is_never_unpickled(tmp_path, bad):
    np.savez(tmp_path / "x.npz", good=np.ones(2), bad=bad)
    with pytest.raises(FileError, match="'bad' does not hold plain numbers"):
        open_store(tmp_path / "x.npz")


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_strides_shared_storage_and_dtypes(torch, tmp_path, zipped):
    base = torch.arange(35, dtype=torch.float32).reshape(5, 7)
    state = {
        "turned": base.t(),
        "part": base[1:3, ::2],
        "same": base,
        "scalar": torch.tensor(2.5),
        "count": torch.tensor(3),
        "brain": torch.linspace(0, 1, 11, dtype=torch.bfloat16),
        "none": torch.empty(0, 3),
        "conj": torch.tensor([1 + 2j]).conj(),
        "grad": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    store = open_store(tmp_path / "x.pt")
    assert list(store.tensors) == list(state)
    for name, value in state.items():
        if name != "brain":
            same_bits(store.tensors[name].read(), value.detach().resolve_conj().numpy())
    brain = store.tensors["brain"].read()
    assert brain.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(brain.view(np.int16), state["brain"].view(torch.int16).numpy())


def test_torch_nested_state_and_other_entries(torch, tmp_path):
    state = {"w": torch.ones(3), "extra": None}
    torch.save({"epoch": 3, "optimizer": {0: 1}, "state_dict": state}, tmp_path / "x.pth")
    store = open_store(tmp_path / "x.pth")
    assert list(store.tensors) == ["w"]
    assert dict(store.metadata) == {"torch:state": "state_dict", "torch:skipped": "extra (NoneType)"}
    torch.save({"model": {"v": torch.ones(2)}}, tmp_path / "y.pth")
    assert open_store(tmp_path / "y.pth").metadata["torch:state"] == "model"


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_modules_are_refused_and_run_nothing(torch, tmp_path, zipped):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileError) as caught:
        open_store(tmp_path / "x.pt")
    assert "holds more than weights" in str(caught.value)
    assert "torch.nn.modules.linear.Linear" in str(caught.value)
    assert "save model.state_dict()" in str(caught.value)
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    torch.save({"w": Evil()}, tmp_path / "e.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileError):
        open_store(tmp_path / "e.pt")
    assert not marker.exists()


def test_torch_other_contents_are_refused(torch, tmp_path):
    for what, text in (
        ([torch.ones(2)], "a list"),
        ({"a": {"b": {"c": torch.ones(2)}}}, "it holds: a"),
        ({"a": 1}, "no state dict"),
        ({"w": torch.eye(3).to_sparse()}, "plain numbers"),
        ({"w": torch.empty(2, device="meta")}, "plain numbers"),
    ):
        torch.save(what, tmp_path / "x.pt")
        with pytest.raises(FileError, match=text):
            open_store(tmp_path / "x.pt")
    torch.jit.script(torch.nn.Linear(2, 3)).save(tmp_path / "s.pt")
    with pytest.raises(FileError, match="TorchScript"):
        open_store(tmp_path / "s.pt")


def test_torch_missing_or_too_old(torch, tmp_path, monkeypatch):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pt")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(UsageError) as caught:
        open_store(tmp_path / "x.pt")
    assert "CVE-2025-32434" in str(caught.value)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError) as caught:
        torch_file.need_torch()
    assert "pip install layoutx[torch]" in str(caught.value)


def test_written_safetensors_are_aligned_in_the_order_given(tmp_path):
    """Three bytes before a float64 would leave it misaligned; the header still keeps the caller's order."""
    arrays = {
        "a": np.arange(3, dtype=np.uint8),
        "b": RNG.normal(size=5),
        "c": np.ones(3, np.float16),
        "d": np.ones(3, np.float32),
    }
    save(tmp_path / "x.safetensors", arrays, {})
    data = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert list(header) == list(arrays)
    assert length % 8 == 0
    assert [header[name]["data_offsets"][0] % array.itemsize for name, array in arrays.items()] == [0] * 4
