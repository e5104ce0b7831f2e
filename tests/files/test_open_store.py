"""What a file is shows in its bytes; everything else is refused with a FileError."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file
from tricky import tricky_arrays

import layoutx as lx
from layoutx.errors import FileError, UsageError
from layoutx.files.open import open_store
from layoutx.files.save import save

ENDINGS = (".safetensors", ".npz", ".pt")


@pytest.mark.parametrize(("name", "format"), [("m.keras", "keras"), ("m.weights.h5", "weights.h5"), ("m.h5", "h5")])
def test_content_decides_and_not_the_ending(keras3, tmp_path, name, format):
    folder, _ = keras3
    shutil.copy(folder / name, tmp_path / "what.bin")
    assert open_store(tmp_path / "what.bin").format == format


@pytest.mark.parametrize("ending", ENDINGS)
def test_written_formats_are_known_without_their_ending(tmp_path, ending):
    if ending == ".pt":
        pytest.importorskip("torch")
    save(tmp_path / f"x{ending}", {"w": np.ones(3)}, {})
    (tmp_path / f"x{ending}").rename(tmp_path / "what.h5")
    assert open_store(tmp_path / "what.h5").format == {".pt": "torch"}.get(ending, ending[1:])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "x.bin is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"hello, world", "none of the formats"),
        (b"\n<!DOCTYPE html><title>404", "x.bin is a web page, or XML"),
        (b"\x80\x04]q\x00.", "a bare pickle, which can run code"),
        (b"\x01", "none of the formats"),
        (b'{"a": 1}', "no object 'weight_map'"),
        (b'{"weight_map": ', "not valid JSON"),
        (b'{"weight_map": {"w": "../x.safetensors"}}', "outside its folder"),
        (b'{"weight_map": {"w": "y.safetensors"}}', "missing: y.safetensors"),
        (b"PK\x03\x04rest", "is truncated"),
        (b"\x89HDF\r\n\x1a\n", "cannot read x.bin as HDF5"),
        ((9).to_bytes(8, "little") + b'{"a":1}  ', "lacks dtype, shape or data_offsets"),
    ],
)
def test_anything_else_is_refused(tmp_path, content, text):
    path = tmp_path / "x.bin"
    path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        open_store(path)
    assert text in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file no\.keras"):
        open_store(tmp_path / "no.keras")
    (tmp_path / "not.keras").touch()
    with pytest.raises(UsageError, match=r"there is no file no\.keras(.|\n)*near it is not\.keras"):
        open_store(tmp_path / "no.keras")
    with pytest.raises(UsageError, match="there is no folder"):
        open_store(tmp_path / "none" / "no.keras")
    with pytest.raises(UsageError, match="is a folder"):
        open_store(tmp_path)


def test_a_folder_means_the_one_index_or_file_in_it(tmp_path):
    save_file({"w": np.arange(7.0)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"v": np.arange(5.0)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(UsageError, match=r"name a file in it: model-00001-of-00002\.safetensors, model-00002"):
        open_store(tmp_path)
    places = {"w": "model-00001-of-00002.safetensors", "v": "model-00002-of-00002.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    (tmp_path / "config.json").write_text("{}")
    store = open_store(tmp_path)
    assert (store.path, list(store.tensors)) == (index, ["w", "v"])
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    with pytest.raises(UsageError, match=r"name a file in it: model\.safetensors\.index\.json, pytorch_model\.bin"):
        open_store(tmp_path)
    (tmp_path / "one").mkdir()
    save_file({"w": np.arange(7.0)}, tmp_path / "one" / "model.safetensors")
    assert open_store(tmp_path / "one").path == tmp_path / "one" / "model.safetensors"


def test_a_checkpoint_in_shards_is_as_large_as_its_files(tmp_path):
    save_file({"fc.weight": np.ones((11, 700))}, tmp_path / "a.safetensors")
    save_file({"fc.bias": np.ones(11)}, tmp_path / "b.safetensors")
    places = {"fc.weight": "a.safetensors", "fc.bias": "b.safetensors"}
    (tmp_path / "m.index.json").write_text(json.dumps({"weight_map": places}))
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size > 701 * 11 * 8
    assert lx.inspect(tmp_path).bytes == size
    assert lx.convert(tmp_path, to="flax", from_="torch").source["bytes"] == size


def test_zip_and_hdf5_without_weights(tmp_path):
    import h5py

    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(FileError, match="zip file without weights"):
        open_store(tmp_path / "x.zip")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["inputs"] = np.ones(3)
    with pytest.raises(FileError, match="HDF5, but no Keras file"):
        open_store(tmp_path / "x.h5")


@pytest.mark.parametrize("length", [123, 19280, 0x4B50 + (3 << 16), 0x20])
def test_safetensors_whose_length_looks_like_another_format(tmp_path, length):
    header = b'{"w":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}' if length > 60 else b"{}"
    data = b"abc" if length > 60 else b""
    (tmp_path / "x").write_bytes(length.to_bytes(8, "little") + header.ljust(length) + data)
    store = open_store(tmp_path / "x")
    assert [tensor.read().tobytes() for tensor in store.tensors.values()] == ([b"abc"] if data else [])


def _read_all(path):
    for tensor in open_store(path).tensors.values():
        tensor.read()


@pytest.mark.parametrize(
    "which", ["keras3:m.keras", "keras3:m.weights.h5", "keras3:m.h5", "keras2:w.h5", *ENDINGS, "old.pt"]
)
def test_truncated_files(request, tmp_path, which):
    """Cut each kind of file at many places: always a FileError, and never anything else."""
    if ":" in which:
        fixture, name = which.split(":")
        source = request.getfixturevalue(fixture)[0] / name
    elif which == "old.pt":
        torch = pytest.importorskip("torch")
        source = tmp_path / "old.pt"
        torch.save({"w": torch.arange(35.0).reshape(5, 7)}, source, _use_new_zipfile_serialization=False)
    else:
        if which == ".pt":
            pytest.importorskip("torch")
        source = tmp_path / f"x{which}"
        save(source, tricky_arrays(), {"layoutx": "c" * 300})
    data = source.read_bytes()
    _read_all(source)
    cut = tmp_path / "cut"
    for n in sorted({1, 4, 7, 8, 9, 40, 97, len(data) // 3, len(data) // 2, len(data) - 40, len(data) - 1}):
        cut.write_bytes(data[:n])
        with pytest.raises(FileError):
            _read_all(cut)


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.weights.h5", *ENDINGS])
def test_damaged_bytes_raise_nothing_but_layoutx_errors(keras3, tmp_path, name):
    if name == ".pt":
        pytest.importorskip("torch")
    source = tmp_path / f"whole{name}" if name in ENDINGS else keras3[0] / name
    if name in ENDINGS:
        save(source, tricky_arrays(), {"layoutx": "c"})
    data = source.read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(80):
        hurt = bytearray(data)
        at = int(rng.integers(0, len(data) - 8))
        hurt[at : at + 8] = rng.integers(0, 256, 8, dtype=np.uint8).tobytes()
        (tmp_path / "x").write_bytes(hurt)
        try:
            _read_all(tmp_path / "x")
        except FileError:
            refused += 1
    assert refused


def test_file_that_shrinks_after_opening(tmp_path):
    path = tmp_path / "x.safetensors"
    save(path, {"w": np.arange(1000.0)}, {})
    tensor = open_store(path).tensors["w"]
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(FileError):
        tensor.read()


def test_no_framework_is_imported_to_read_keras(keras3):
    code = (
        "import sys; from layoutx.files.open import open_store; s = open_store(sys.argv[1]);"
        "[t.read() for t in s.tensors.values()];"
        "print(sorted({'torch', 'tensorflow', 'keras', 'tf_keras', 'jax', 'onnx'} & set(sys.modules)))"
    )
    for name in ("m.keras", "m.weights.h5", "m.h5"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(keras3[0] / name)], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"


def test_store_module_is_light():
    code = (
        "import layoutx.files.store, sys; print(sorted({'h5py', 'ml_dtypes', 'zipfile', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "h5py" not in done.stdout
    assert "torch" not in done.stdout


@pytest.mark.models
def test_real_files(models):
    """Each real file opens as what it is, or is refused by a FileError with a reason."""
    opened = 0
    for path in sorted(models.rglob("*.h5")):
        if "inputs_and_outputs" in path.name:
            with pytest.raises(FileError, match="no Keras file"):
                open_store(path)
            continue
        store = open_store(path)
        assert store.format == "h5"
        assert store.config is not None
        assert json.dumps(store.config)
        in_groups = [key for keys in store.groups.values() for key in keys]
        assert in_groups
        assert {key for key in store.tensors if not key.startswith("optimizer_weights/")} == set(in_groups)
        for tensor in store.tensors.values():
            array = tensor.read()
            assert (array.dtype, array.shape) == (tensor.dtype, tensor.shape)
        opened += 1
    assert opened


def test_a_program_that_is_not_there_is_no_other_file_of_its_folder(tmp_path):
    """The one safetensors file of the folder was opened in its place."""
    save(tmp_path / "other.safetensors", {"w": np.ones(3)}, {})
    with pytest.raises(UsageError, match=r"there is no file saved_model\.pb"):
        open_store(tmp_path / "saved_model.pb")
    assert open_store(tmp_path).format == "safetensors"
    (tmp_path / "saved_model.pb").write_bytes(b"")
    (tmp_path / "_CHECKPOINT_METADATA").write_text("{}")  # of orbax
    with pytest.raises(FileError, match="is a SavedModel without variables"):
        open_store(tmp_path / "saved_model.pb")
