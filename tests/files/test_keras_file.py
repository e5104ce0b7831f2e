"""Keras 3 files: every tensor as Keras has it, by its path in the file."""

from __future__ import annotations

import mmap
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest
from tricky import same_bits

from layoutx.errors import FileError
from layoutx.files.open import open_store


@pytest.mark.parametrize("name", ["m.keras", "m.weights.h5"])
@pytest.mark.parametrize("by", ["keras3", "keras2"])
def test_every_tensor_as_the_model_has_it(request, by, name):
    folder, model = request.getfixturevalue(by)
    store = open_store(folder / name)
    groups = {"lstm/cell": 0, "batch_normalization": 1, "dense": 3, "dense_1": 4}
    for group, index in groups.items():
        for i, want in enumerate(model.layers[index].get_weights()):
            same_bits(store.tensors[f"layers/{group}/vars/{i}"].read(), want)
    assert sum(len(layer.get_weights()) for layer in model.layers) == sum(
        n.startswith("layers/") for n in store.tensors
    )


def test_config_version_names_and_order(keras3):
    folder, model = keras3
    store = open_store(folder / "m.keras")
    layers = [layer["config"]["name"] for layer in store.config["config"]["layers"]]
    assert layers[1:] == [layer.name for layer in model.layers]  # the first is the input, numbered by the session
    assert store.version.startswith("3.")
    assert store.metadata["name:layers/dense/vars"] == "b_first"
    assert store.metadata["name:layers/dense_1/vars"] == "a_last"
    numbers = [int(n.rsplit("/", 1)[1]) for n in store.tensors if n.startswith("optimizer/vars/")]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 10


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_stored_members_are_mapped_and_compressed_ones_read(keras3, tmp_path, compression):
    path = tmp_path / "x.keras"
    with zipfile.ZipFile(keras3[0] / "m.keras") as old, zipfile.ZipFile(path, "w", compression) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info), compression)
    tensor = open_store(path).tensors["layers/dense/vars/0"]
    array = tensor.read()
    same_bits(array, keras3[1].layers[3].get_weights()[0])
    assert not array.flags.writeable
    base = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    held = base.obj if isinstance(base, memoryview) else base
    assert (isinstance(held, mmap.mmap)) == (compression == zipfile.ZIP_STORED) == tensor.mapped


def test_odd_datasets(tmp_path):
    """Compressed, chunked, big-endian, bfloat16, 0-d, empty, boolean and never written; plain and inside a zip."""
    rng = np.random.default_rng(5)
    want = {
        "packed": rng.normal(size=(30, 7)).astype(np.float32),
        "big": rng.normal(size=(3, 5)).astype(">f4"),
        "brain": rng.normal(size=(5,)).astype(ml_dtypes.bfloat16),
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
        "half": rng.normal(size=3).astype(np.float16),
    }
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        group = file.create_group("layers/odd/vars")
        for name, array in want.items():
            options = {"compression": "gzip", "chunks": (7, 7), "shuffle": True} if name == "packed" else {}
            plain = array.view("V2") if name == "brain" else array
            group.create_dataset(name, data=plain, **options)
        group["brain"].attrs["dtype"] = "bfloat16"
        group.create_dataset("unwritten", shape=(3,), dtype="f4", fillvalue=2.5)
    want["unwritten"] = np.full(3, 2.5, np.float32)
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("config.json", '{"a": NaN}')
        archive.write(tmp_path / "x.weights.h5", "model.weights.h5")
    for name in ("x.weights.h5", "x.keras"):
        store = open_store(tmp_path / name)
        assert {n.rsplit("/", 1)[1] for n in store.tensors} == set(want)
        for key, array in want.items():
            tensor = store.tensors[f"layers/odd/vars/{key}"]
            same_bits(tensor.read(), array)
            assert (tensor.dtype, tensor.shape) == (tensor.read().dtype, array.shape)


def test_bfloat16_as_keras_writes_it(tmp_path):
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(3, dtype="bfloat16")])
    model.save(tmp_path / "x.keras")
    tensor = open_store(tmp_path / "x.keras").tensors["layers/dense/vars/0"]
    assert tensor.dtype == ml_dtypes.bfloat16
    same_bits(tensor.read(), np.asarray(keras.ops.convert_to_numpy(model.layers[0].kernel)))


def test_old_and_foreign_paths_are_just_shown(tmp_path):
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        for n in (0, 1, 2, 10):
            file[f"_layer_checkpoint_dependencies/dense_{n}/vars/0"] = np.full(3, n)
    names = list(open_store(tmp_path / "x.weights.h5").tensors)
    assert names == [f"_layer_checkpoint_dependencies/dense_{n}/vars/0" for n in (0, 1, 2, 10)]


@pytest.mark.parametrize("kind", ["soft", "external", "object", "string", "void", "null", "virtual", "storage"])
def test_what_leads_out_of_the_file_or_is_no_number_is_refused(tmp_path, kind):
    path = tmp_path / "x.weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/dense/vars")
        if kind == "soft":
            group["0"] = h5py.SoftLink("/elsewhere")
        elif kind == "external":
            group["0"] = h5py.ExternalLink("other.h5", "/x")
        elif kind == "object":
            group.create_dataset("0", data=["a", "b"], dtype=h5py.string_dtype())
        elif kind == "string":
            group["0"] = np.array([b"abc"])
        elif kind == "void":
            group["0"] = np.zeros(3, "V2")
        elif kind == "null":
            group["0"] = h5py.Empty("f4")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((3,), "f4")
            layout[:] = h5py.VirtualSource("other.h5", "x", (3,))
            group.create_virtual_dataset("0", layout)
        else:
            group.create_dataset("0", (3,), "f4", external=[(str(tmp_path / "other.bin"), 0, 12)])
    with pytest.raises(FileError) as caught:
        open_store(path)
    assert any(word in str(caught.value) for word in ("link", "numbers", "no data of its own"))


def test_hard_link_back_up_does_not_loop(tmp_path):
    with h5py.File(tmp_path / "x.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = np.ones(3)
        file["layers/dense/up"] = file["layers"]
    assert list(open_store(tmp_path / "x.weights.h5").tensors) == ["layers/dense/vars/0"]


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"config.json": "{", "model.weights.h5": None}, "config.json is not valid JSON"),
        ({"config.json": "[1]", "model.weights.h5": None}, "config.json is not a JSON object"),
        ({"config.json": "{}"}, "no member model.weights.h5"),
        ({"config.json": "{}", "model.weights.npz": "x"}, "pickled .npz"),
        ({"config.json": "{}", "model.weights.json": "{}"}, "sharded inside the zip"),
        ({"config.json": "{}", "model.weights.h5": "no hdf5"}, "cannot read x.keras"),
    ],
)
def test_bad_members(keras3, tmp_path, members, text):
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, (keras3[0] / "m.weights.h5").read_bytes() if content is None else content)
    with pytest.raises(FileError, match=text):
        open_store(tmp_path / "x.keras")


def test_sharded_weights(keras3, tmp_path):
    folder, model = keras3
    model.save_weights(tmp_path / "s.weights.json", max_shard_size=2e-6)
    assert len(list(tmp_path.glob("*.weights.h5"))) > 1
    store, single = open_store(tmp_path / "s.weights.json"), open_store(folder / "m.weights.h5")
    assert set(store.tensors) == set(single.tensors)
    for name, tensor in single.tensors.items():
        same_bits(store.tensors[name].read(), tensor.read())
    next(tmp_path.glob("*.weights.h5")).unlink()
    with pytest.raises(FileError, match=r"shards of s\.weights\.json are missing"):
        open_store(tmp_path / "s.weights.json")
