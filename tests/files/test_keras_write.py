"""New values in a Keras file's structure: the real frameworks load them."""

from __future__ import annotations

import os
import shutil
import zipfile

import h5py
import ml_dtypes
import numpy as np
import pytest
from tricky import same_bits

from layoutx.errors import FileError, Problems, UsageError
from layoutx.files.keras_write import weights_of
from layoutx.files.open import open_store
from layoutx.files.save import can_write, save

PAIRS = [
    ("m.keras", "n.keras"),
    ("m.keras", "n.weights.h5"),
    ("m.weights.h5", "n.weights.h5"),
    ("m.h5", "n.h5"),
    ("m.h5", "n.hdf5"),
    ("w.h5", "n.h5"),
]


def _new_values(store):
    rng = np.random.default_rng(23)
    return {
        name: rng.uniform(0.5, 2, store.tensors[name].shape).astype(store.tensors[name].dtype)
        for name in weights_of(store)
    }


def _layers_of(store, arrays, model):
    """The new arrays as get_weights() of each layer should give them."""
    if store.format == "h5":
        return {layer.name: [arrays[key] for key in store.groups[layer.name]] for layer in model.layers}
    groups = dict(
        zip(
            (layer.name for layer in model.layers if layer.get_weights()),
            ("lstm/cell", "batch_normalization", "dense", "dense_1"),
            strict=True,
        )
    )
    return {
        layer: [arrays[name] for name in sorted(arrays) if name.startswith(f"layers/{group}/vars/")]
        for layer, group in groups.items()
    }


@pytest.mark.parametrize("by", ["keras3", "keras2"])
@pytest.mark.parametrize(("like", "name"), PAIRS)
def test_keras_loads_the_new_values(request, tmp_path, by, like, name):
    folder, model = request.getfixturevalue(by)
    if not (folder / like).exists():
        pytest.skip("this Keras does not write such a file")
    keras = pytest.importorskip("keras" if by == "keras3" else "tf_keras")
    template = open_store(folder / like)
    arrays = _new_values(template)
    before = (folder / like).read_bytes()
    path = tmp_path / name
    save(path, arrays, {"layoutx": "certificate " * 30_000}, template)
    assert (folder / like).read_bytes() == before
    assert os.listdir(tmp_path) == [name]

    written = open_store(path)
    assert list(written.tensors) == list(arrays)
    assert written.groups == template.groups
    assert written.config == (None if name == "n.weights.h5" else template.config)
    assert written.metadata["layoutx"] == "certificate " * 30_000
    extra = [key for key in template.metadata if not key.startswith("name:optimizer")]
    assert {key: written.metadata[key] for key in extra} == {key: template.metadata[key] for key in extra}

    fresh = [keras.models.clone_model(model)]
    compiled = keras.models.clone_model(model)
    compiled.compile("adam", "mse")
    fresh.append(compiled)
    if name != "n.keras":
        for one in fresh:
            one.load_weights(str(path))
    if template.config is not None and name != "n.weights.h5":
        fresh = ([] if name == "n.keras" else fresh) + [keras.models.load_model(str(path))]
    for one in fresh:
        for layer, values in _layers_of(template, arrays, model).items():
            got = one.get_layer(layer).get_weights()
            assert len(got) == len(values)
            for array, want in zip(got, values, strict=True):
                same_bits(np.asarray(array), want)


def test_attributes_and_groups_are_the_templates(keras2, tmp_path):
    template = open_store(keras2[0] / "m.h5")
    save(tmp_path / "n.h5", _new_values(template), {}, template)
    with h5py.File(keras2[0] / "m.h5") as old, h5py.File(tmp_path / "n.h5") as new:
        assert "optimizer_weights" in old
        assert "optimizer_weights" not in new
        assert dict(new.attrs) == dict(old.attrs)
        seen = []

        def compare(name, found):
            seen.append(name)
            assert type(new[name]) is type(found)
            assert list(new[name].attrs) == list(found.attrs)
            for key in found.attrs:
                np.testing.assert_array_equal(new[name].attrs[key], found.attrs[key])
                assert new[name].attrs.get_id(key).dtype == found.attrs.get_id(key).dtype

        old["model_weights"].visititems(lambda name, found: compare(f"model_weights/{name}", found))
    assert len(seen) > 10


def test_training_state_is_kept_where_it_is_given(keras3, tmp_path):
    template = open_store(keras3[0] / "m.keras")
    arrays = {name: tensor.read() for name, tensor in template.tensors.items()}
    assert any(name.startswith("optimizer/") for name in arrays)
    save(tmp_path / "n.keras", arrays, {}, template)
    again = open_store(tmp_path / "n.keras")
    assert list(again.tensors) == list(template.tensors)
    with zipfile.ZipFile(tmp_path / "n.keras") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_the_given_dtype_is_kept(keras3, tmp_path):
    template = open_store(keras3[0] / "m.weights.h5")
    for dtype in (np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        arrays = {name: array.astype(dtype) for name, array in _new_values(template).items()}
        save(tmp_path / "n.weights.h5", arrays, {}, template)
        assert {tensor.dtype for tensor in open_store(tmp_path / "n.weights.h5").tensors.values()} == {np.dtype(dtype)}
    brain = {name: array.astype(ml_dtypes.bfloat16) for name, array in _new_values(template).items()}
    save(tmp_path / "b.weights.h5", brain, {}, template)
    again = open_store(tmp_path / "b.weights.h5")
    save(tmp_path / "c.weights.h5", _new_values(template), {}, again)
    same_bits(
        open_store(tmp_path / "c.weights.h5").tensors["layers/dense/vars/1"].read(),
        _new_values(template)["layers/dense/vars/1"],
    )


def test_wrong_names_and_shapes_are_named_together(keras3, tmp_path):
    template = open_store(keras3[0] / "m.h5")
    arrays = _new_values(template)
    lost, turned, *_ = [name for name, array in arrays.items() if array.ndim == 2]
    del arrays[lost]
    arrays[turned] = np.asfortranarray(arrays[turned].T)
    arrays["stranger"] = np.ones(2)
    with pytest.raises(Problems) as caught:
        save(tmp_path / "n.h5", arrays, {}, template)
    text = str(caught.value)
    assert f"no values for '{lost}'" in text
    assert f"'{turned}' has another shape in the template" in text
    assert "the template has no 'stranger'" in text
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("like", "name"),
    [
        ("m.keras", "n.h5"),
        ("m.h5", "n.weights.h5"),
        ("m.h5", "n.keras"),
        ("m.weights.h5", "n.keras"),
        ("m.weights.h5", "n.h5"),
    ],
)
def test_endings_that_keras_would_misread(keras3, tmp_path, like, name):
    with pytest.raises(UsageError, match=f"does not give {name}"):
        can_write(tmp_path / name, open_store(keras3[0] / like))


def test_templates_that_are_no_keras_file(tmp_path):
    save(tmp_path / "x.npz", {"w": np.ones(2)}, {})
    with pytest.raises(UsageError, match="cannot be a template"):
        can_write(tmp_path / "n.weights.h5", open_store(tmp_path / "x.npz"))


def test_a_template_that_vanished(keras3, tmp_path):
    shutil.copy(keras3[0] / "m.h5", tmp_path / "m.h5")
    template = open_store(tmp_path / "m.h5")
    arrays = _new_values(template)
    (tmp_path / "m.h5").unlink()
    with pytest.raises(FileError):
        save(tmp_path / "n.h5", arrays, {}, template)
    assert not os.listdir(tmp_path)


def test_output_over_its_own_template(keras3, tmp_path):
    for name in ("m.h5", "m.keras", "m.weights.h5"):
        path = tmp_path / name
        shutil.copy(keras3[0] / name, path)
        template = open_store(path)
        arrays = {key: template.tensors[key].read() for key in weights_of(template)}
        save(path, arrays, {}, template)
        for key in arrays:
            same_bits(open_store(path).tensors[key].read(), open_store(keras3[0] / name).tensors[key].read())


@pytest.mark.models
def test_real_files_are_written_again_the_same(models, tmp_path):
    done = 0
    for path in sorted(models.rglob("*.h5")):
        if "inputs_and_outputs" in path.name:
            continue
        template = open_store(path)
        arrays = {key: template.tensors[key].read() for key in weights_of(template)}
        save(tmp_path / "n.h5", arrays, {"layoutx": "c"}, template)
        again = open_store(tmp_path / "n.h5")
        assert (again.groups, again.config, again.version, again.backend) == (
            template.groups,
            template.config,
            template.version,
            template.backend,
        )
        done += 1
    assert done
