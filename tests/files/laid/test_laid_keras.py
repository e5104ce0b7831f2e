"""Keras files laid out in a template's structure: Keras, h5py and zipfile read what was put at the offsets."""

from __future__ import annotations

import errno
import os
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest
from filling import entries_of, fill, write
from tricky import same_bits

from layoutx.errors import FileError, Problems, UsageError
from layoutx.files import atomic
from layoutx.files.atomic import replacing
from layoutx.files.keras_write import weights_of
from layoutx.files.laid.lay import can_lay, lay
from layoutx.files.open import open_store
from layoutx.files.save import save

PAIRS = [
    ("m.keras", "n.keras"),
    ("m.keras", "n.weights.h5"),
    ("m.weights.h5", "n.weights.h5"),
    ("m.h5", "n.h5"),
    ("m.h5", "n.hdf5"),
    ("w.h5", "n.h5"),
]
CERTIFICATE = {"layoutx": "certificate ☃ " * 30_000}


def new_values(store, dtype=None):
    rng = np.random.default_rng(29)
    tensors = (store.tensors[name] for name in weights_of(store))
    return {t.name: rng.uniform(0.5, 2, t.shape).astype(dtype or t.dtype) for t in tensors}


def same_tensors(path, arrays):
    store = open_store(path)
    assert list(store.tensors) == list(arrays)
    for name, want in arrays.items():
        same_bits(store.tensors[name].read(), want)
    return store


@pytest.mark.parametrize("by", ["keras3", "keras2"])
@pytest.mark.parametrize(("like", "name"), PAIRS)
def test_keras_loads_what_was_laid(request, tmp_path, by, like, name):
    folder, model = request.getfixturevalue(by)
    if not (folder / like).exists():
        pytest.skip("this Keras does not write such a file")
    keras = pytest.importorskip("keras" if by == "keras3" else "tf_keras")
    template = open_store(folder / like)
    assert can_lay(tmp_path / name, template)
    arrays = new_values(template)
    write(tmp_path / name, arrays, CERTIFICATE, template)
    assert os.listdir(tmp_path) == [name]

    store = same_tensors(tmp_path / name, arrays)
    assert store.groups == template.groups
    assert store.config == (None if name == "n.weights.h5" else template.config)
    assert store.metadata["layoutx"] == CERTIFICATE["layoutx"]

    save(tmp_path / f"oracle.{name}", arrays, CERTIFICATE, template)
    if name == "n.keras":
        laid, plain = keras.models.load_model(tmp_path / name), keras.models.load_model(tmp_path / f"oracle.{name}")
    else:
        laid, plain = keras.models.clone_model(model), keras.models.clone_model(model)
        laid.load_weights(str(tmp_path / name))
        plain.load_weights(str(tmp_path / f"oracle.{name}"))
    for got, want, old in zip(laid.get_weights(), plain.get_weights(), model.get_weights(), strict=True):
        same_bits(np.asarray(got), np.asarray(want))
        assert not np.array_equal(got, old)


@pytest.mark.parametrize("like", ["m.weights.h5", "m.h5"])
def test_attributes_and_groups_are_the_plain_writers(keras3, tmp_path, like):
    template = open_store(keras3[0] / like)
    arrays = new_values(template)
    write(tmp_path / f"laid.{like}", arrays, {"layoutx": "c"}, template)
    save(tmp_path / f"plain.{like}", arrays, {"layoutx": "c"}, template)
    seen = []
    with h5py.File(tmp_path / f"laid.{like}") as laid, h5py.File(tmp_path / f"plain.{like}") as plain:

        def compare(name, found):
            seen.append(name)
            other = laid[name]
            assert type(other) is type(found)
            assert list(other.attrs) == list(found.attrs)
            for key in found.attrs:
                np.testing.assert_array_equal(other.attrs[key], found.attrs[key])
                assert other.attrs.get_id(key).dtype == found.attrs.get_id(key).dtype
            if isinstance(found, h5py.Dataset):
                assert other.dtype == found.dtype
                np.testing.assert_array_equal(other[()], found[()])

        plain.visititems(compare)
        assert dict(laid.attrs) == dict(plain.attrs)
        count = []
        laid.visit(count.append)
    assert sorted(count) == sorted(seen)
    assert len(seen) > 10


def zipped(path):
    """The names in a zip, after its checksums were tried."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        return archive.namelist()


def test_training_state_where_it_is_given(keras3, tmp_path):
    template = open_store(keras3[0] / "m.keras")
    arrays = {name: tensor.read() + 1 for name, tensor in template.tensors.items()}
    assert any(name.startswith("optimizer/") for name in arrays)
    write(tmp_path / "n.keras", arrays, {}, template)
    same_tensors(tmp_path / "n.keras", arrays)
    without = new_values(template)
    assert len(without) < len(arrays)
    laid = write(tmp_path / "n.keras", without, {}, template)
    same_tensors(tmp_path / "n.keras", without)
    assert {laid.offsets[name] % 4 for name in without} == {0}  # as HDF5 aligns them, wherever the zip begins them
    assert sorted(zipped(tmp_path / "n.keras")) == ["config.json", "metadata.json", "model.weights.h5"]


@pytest.mark.parametrize("jobs", [1, 5])
def test_the_checksum_of_the_zip_is_of_these_bytes(keras3, tmp_path, monkeypatch, jobs):
    monkeypatch.setattr("layoutx.files.laid.crc.PIECE", 1009)
    template = open_store(keras3[0] / "m.keras")
    arrays = new_values(template)
    path = tmp_path / "n.keras"
    laid = write(path, arrays, CERTIFICATE, template, jobs=jobs)
    zipped(path)
    with path.open("rb+") as file:
        file.seek(laid.offsets["layers/dense/vars/0"] + 1)
        file.write(b"\x55")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() == "model.weights.h5"


@pytest.mark.parametrize("metadata", [{}, CERTIFICATE])
def test_a_zip_of_more_than_four_gigabytes(keras3, tmp_path, monkeypatch, metadata):
    """The limit is lowered; a real file of that size takes the same way."""
    keras = pytest.importorskip("keras")
    template = open_store(keras3[0] / "m.keras")
    arrays = new_values(template)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    write(tmp_path / "n.keras", arrays, metadata, template)
    assert b"PK\x06\x06" in (tmp_path / "n.keras").read_bytes()  # the zip64 end of the directory
    zipped(tmp_path / "n.keras")
    same_tensors(tmp_path / "n.keras", arrays)
    values = {w.path: np.asarray(w) for w in keras.models.load_model(tmp_path / "n.keras").weights}
    same_bits(values["a_last/kernel"], arrays["layers/dense_1/vars/0"])


@pytest.mark.parametrize("name", ["n.keras", "n.weights.h5"])
def test_the_same_input_gives_the_same_bytes(keras3, tmp_path, name):
    template = open_store(keras3[0] / "m.keras")
    arrays = new_values(template)
    for seed in (1, 2):
        write(tmp_path / f"{seed}.{name}", arrays, {"layoutx": "c"}, template, seed=seed, jobs=seed)
    assert (tmp_path / f"1.{name}").read_bytes() == (tmp_path / f"2.{name}").read_bytes()


@pytest.mark.parametrize("room", [0, 200_000])
def test_metadata_may_need_more_than_was_said(keras3, tmp_path, room):
    template = open_store(keras3[0] / "m.keras")
    arrays = new_values(template)
    for name in ("n.keras", "n.weights.h5"):
        with replacing(tmp_path / name) as temporary:
            laid = lay(temporary, tmp_path / name, entries_of(arrays), room, template)
            fill(laid, arrays)
            laid.finish(CERTIFICATE, 1)
        assert same_tensors(tmp_path / name, arrays).metadata["layoutx"] == CERTIFICATE["layoutx"]
    zipped(tmp_path / "n.keras")


@pytest.fixture
def odd(tmp_path):
    """A template of odd tensors: no dimension, no element, one byte, a name beyond ASCII, every width, deep groups."""
    rng = np.random.default_rng(31)
    arrays = {
        "layers/a/vars/0": np.array(1.5, np.float32),
        "layers/a/vars/1": np.zeros((0, 7), np.float16),
        "layers/a/vars/2": np.array([True, False, True]),
        "layers/größe ☃/vars/0": rng.normal(size=(3, 5)),
        "layers/b/inner/cell/vars/0": rng.normal(size=(7, 2, 3)).astype(np.complex64),
        "layers/b/vars/0": np.arange(11, dtype=np.int64),
        "layers/b/vars/1": np.arange(5, dtype=np.uint8),
        "layers/c/vars/0": rng.normal(size=(13, 2)).astype(np.float16),
    }
    path = tmp_path / "odd.weights.h5"
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = np.zeros_like(array)
        file["layers/a/vars"].attrs["name"] = "größe"
        file["layers/a/vars"].attrs["many"] = np.array([["a", "ß"]], dtype=object)
        file["layers/a/vars"].attrs["bytes"] = np.array([b"ab", b"c"])
        file["layers/a/vars"].attrs["none"] = h5py.Empty("f")
        file["layers/a/vars"].attrs["flag"] = True
        file["layers/a/vars"].attrs["numbers"] = np.arange(6).reshape(2, 3)
        file.create_group("layers/input_layer/vars")
    return path, arrays


def test_odd_tensors(odd, tmp_path):
    path, arrays = odd
    write(tmp_path / "n.weights.h5", arrays, {}, open_store(path))
    store = open_store(tmp_path / "n.weights.h5")
    assert set(store.tensors) == set(arrays)
    for name, want in arrays.items():
        same_bits(store.tensors[name].read(), want)
    with h5py.File(path) as old, h5py.File(tmp_path / "n.weights.h5") as new:
        assert list(new["layers"]) == list(old["layers"])
        wanted, got = old["layers/a/vars"].attrs, new["layers/a/vars"].attrs
        assert list(got) == list(wanted)
        for key in wanted:
            assert np.array_equal(got[key], wanted[key]) or key == "none"
            assert type(got[key]) is type(wanted[key])
            assert got.get_id(key).get_type().equal(wanted.get_id(key).get_type())
        assert got["none"].dtype == np.float32
        for name, want in arrays.items():
            assert new[name].id.get_space_status() == h5py.h5d.SPACE_STATUS_ALLOCATED or not want.size
            np.testing.assert_array_equal(new[name][()], want)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_the_entries_dtype_counts(keras3, tmp_path, dtype):
    template = open_store(keras3[0] / "m.keras")
    arrays = new_values(template, dtype)
    for name in ("n.keras", "n.weights.h5"):
        write(tmp_path / name, arrays, {}, template)
        same_tensors(tmp_path / name, arrays)
    again = open_store(tmp_path / "n.keras")  # a template whose own label must not stay
    write(tmp_path / "o.keras", new_values(template), {}, again)
    same_tensors(tmp_path / "o.keras", new_values(template))


def test_keras_reads_bfloat16(tmp_path):
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.layers.Input((5,)), keras.layers.Dense(3, dtype="bfloat16")])
    model.save(tmp_path / "m.keras")
    template = open_store(tmp_path / "m.keras")
    arrays = new_values(template, ml_dtypes.bfloat16)
    write(tmp_path / "n.keras", arrays, {}, template)
    kernel = keras.models.load_model(tmp_path / "n.keras").weights[0]
    same_bits(np.asarray(kernel).astype(ml_dtypes.bfloat16), arrays["layers/dense/vars/0"])


def test_wrong_entries_are_named_together(keras3, tmp_path):
    template = open_store(keras3[0] / "m.h5")
    arrays = new_values(template)
    lost, turned, *_ = [name for name, array in arrays.items() if array.ndim == 2]
    del arrays[lost]
    arrays[turned] = arrays[turned].T.copy()
    arrays["stranger"] = np.ones(2)
    with pytest.raises(Problems) as caught:
        write(tmp_path / "n.h5", arrays, {}, template)
    text = str(caught.value)
    assert f"no values for '{lost}'" in text
    assert f"'{turned}' has another shape in the template" in text
    assert "the template has no 'stranger'" in text
    with pytest.raises(UsageError, match=r"does not give n\.keras"):
        write(tmp_path / "n.keras", new_values(template), {}, template)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["n.keras", "n.weights.h5"])
def test_a_full_disk_leaves_nothing(keras3, tmp_path, monkeypatch, name):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    template = open_store(keras3[0] / "m.keras")
    monkeypatch.setattr(atomic.os, "posix_fallocate", full)
    with pytest.raises(FileError, match="cannot write n") as caught:
        write(tmp_path / name, new_values(template), {}, template)
    assert "No space left" in str(caught.value)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["n.keras", "n.weights.h5"])
def test_an_unfinished_file_is_no_file(keras3, tmp_path, name):
    template = open_store(keras3[0] / "m.keras")
    arrays = new_values(template)
    laid = lay(tmp_path / name, tmp_path / name, entries_of(arrays), 100, template)
    fill(laid, arrays)
    with pytest.raises(FileError):
        open_store(tmp_path / name)


def test_a_template_that_vanished(keras3, tmp_path):
    (tmp_path / "m.keras").write_bytes((keras3[0] / "m.keras").read_bytes())
    template = open_store(tmp_path / "m.keras")
    arrays = new_values(template)
    (tmp_path / "m.keras").unlink()
    with pytest.raises(FileError):
        write(tmp_path / "n.keras", arrays, {}, template)
    assert not os.listdir(tmp_path)


@pytest.mark.models
def test_real_files_are_laid_again_the_same(models, tmp_path):
    done = 0
    for path in sorted(models.rglob("*.h5")):
        if "inputs_and_outputs" in path.name or path.stat().st_size > 50_000_000:
            continue
        template = open_store(path)
        arrays = {key: template.tensors[key].read() for key in weights_of(template)}
        with replacing(tmp_path / "n.h5") as temporary:
            laid = lay(temporary, tmp_path / "n.h5", entries_of(arrays), 1000, template)
            with temporary.open("rb+") as file:
                for name, array in arrays.items():
                    file.seek(laid.offsets[name])
                    file.write(array.tobytes())
            laid.finish({"layoutx": "c"}, 2)
        again = same_tensors(tmp_path / "n.h5", arrays)
        assert (again.groups, again.config, again.version) == (template.groups, template.config, template.version)
        done += 1
    assert done
