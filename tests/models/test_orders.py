"""Orders that a user meets: vectors made into maps, maps that get lost on the way, layers read backwards."""

from __future__ import annotations

import numpy as np
import pytest

from layoutx.convert import convert
from layoutx.errors import LayoutxError
from layoutx.files.open import open_store

keras = pytest.importorskip("keras")
L = keras.layers


def converted(model, folder, **options):
    model.save(folder / "m.keras")
    report = convert(folder / "m.keras", folder / "o.safetensors", to="torch", live=False, **options)
    return {n: t.read() for n, t in open_store(folder / "o.safetensors").tensors.items()}, str(report)


def test_a_vector_made_into_a_map_stays_a_vector_for_others(tmp_path):
    x = keras.Input((48,))
    flat = L.Flatten()(L.Conv2D(5, 3)(L.Reshape((4, 4, 3))(x)))
    model = keras.Model(x, L.Dense(7, name="d")(L.Concatenate()([flat, x])))
    kernel = model.get_layer("d").get_weights()[0]
    arrays, _ = converted(model, tmp_path)
    np.testing.assert_array_equal(arrays["d.weight"][:, 20:], kernel[20:].T)
    np.testing.assert_array_equal(
        arrays["d.weight"][:, :20], kernel[:20].reshape(2, 2, 5, 7).transpose(2, 0, 1, 3).reshape(20, 7).T
    )


def sliced():
    x = keras.Input((7, 7, 3))
    return keras.Model(x, L.Dense(4, name="lost")(L.Flatten()(L.Conv2D(8, 3)(x)[..., :3])))


def sorted_():
    x = keras.Input((7, 7, 3))
    return keras.Model(x, L.Dense(4, name="lost")(L.Flatten()(keras.ops.sort(L.Conv2D(8, 3)(x), -1))))


def joined():
    x = keras.Input((7, 7, 3))
    both = keras.ops.concatenate([L.Conv2D(8, 3)(x), L.Conv2D(3, 3)(x)], -1)
    return keras.Model(x, L.Dense(4, name="lost")(L.Flatten()(both)))


def placed():
    x = keras.Input((7, 7, 3))
    return keras.Model(x, L.Dense(4, name="lost")(L.Flatten()(keras.ops.argsort(L.Conv2D(8, 3)(x), -1))))


def normed():
    x = keras.Input((5, 5, 3))
    return keras.Model(x, L.BatchNormalization(name="lost")(L.Flatten()(keras.ops.sort(L.Conv2D(6, 3)(x), -1))))


def read():
    steps = [L.Conv2D(5, 3, padding="same"), L.Reshape((8, 30)), L.LSTM(5, name="lost")]
    return keras.Sequential([keras.Input((8, 6, 3)), *steps])


@pytest.mark.parametrize("build", [sorted_, placed, normed, read])
def test_a_lost_order_is_refused_and_kept_on_request(build, tmp_path):
    with pytest.raises(LayoutxError, match=r"of lost is not known") as caught:
        converted(build(), tmp_path)
    assert "--keep-order lost" in str(caught.value)
    assert not (tmp_path / "o.safetensors").exists()
    arrays, _ = converted(build(), tmp_path, keep_order=["lost"])
    assert any(name.startswith("lost.") for name in arrays)


def test_maps_joined_by_an_operation_are_followed(tmp_path):
    kernel = (model := joined()).get_layer("lost").get_weights()[0]
    arrays, _ = converted(model, tmp_path)
    expected = kernel.reshape(5, 5, 11, 4).transpose(2, 0, 1, 3).reshape(275, 4).T
    np.testing.assert_array_equal(arrays["lost.weight"], expected)


def test_a_part_of_the_channels_is_followed(tmp_path):
    kernel = (model := sliced()).get_layer("lost").get_weights()[0]
    arrays, _ = converted(model, tmp_path)
    expected = kernel.reshape(5, 5, 3, 4).transpose(2, 0, 1, 3).reshape(75, 4).T
    np.testing.assert_array_equal(arrays["lost.weight"], expected)


def test_augmentation_is_followed(tmp_path):
    model = keras.Sequential([keras.Input((6, 5, 3)), L.RandomFlip(), L.Flatten(), L.Dense(4, name="d")])
    kernel = model.get_layer("d").get_weights()[0]
    arrays, _ = converted(model, tmp_path)
    expected = kernel.reshape(6, 5, 3, 4).transpose(2, 0, 1, 3).reshape(90, 4).T
    np.testing.assert_array_equal(arrays["d.weight"], expected)


def test_a_backward_layer_of_its_own_must_be_the_other_turned(tmp_path):
    def model(**more):
        back = L.LSTM(5, return_sequences=True, go_backwards=True, **more)
        wrapped = L.Bidirectional(L.LSTM(5, return_sequences=True), backward_layer=back, name="bi")
        return keras.Sequential([keras.Input((4, 7)), wrapped])

    arrays, _ = converted(model(), tmp_path)
    assert "bi.weight_ih_l0_reverse" in arrays
    with pytest.raises(LayoutxError, match="layer bi") as caught:
        converted(model(activation="relu"), tmp_path)
    assert "its backward layer differs in activation" in str(caught.value)


def test_what_no_option_holds_is_said(tmp_path):
    model = keras.Sequential([keras.Input((5, 7)), L.LSTM(3, go_backwards=True)])
    assert "go_backwards=True" in converted(model, tmp_path)[1]
    model = keras.Sequential([keras.Input((5,)), L.Embedding(11, 7, mask_zero=True)])
    assert "mask_zero=True" in converted(model, tmp_path)[1]


def test_einsum_dense_without_bias(tmp_path):
    model = keras.Sequential([keras.Input((5, 7)), L.EinsumDense("abc,cd->abd", (None, 6), name="e")])
    arrays, _ = converted(model, tmp_path)
    np.testing.assert_array_equal(arrays["e.weight"], model.get_layer("e").get_weights()[0].T)


def test_layers_of_any_name_make_maps(tmp_path):
    """A legacy weights-only file knows layer names alone; those of the user need not say Conv."""
    tf_keras = pytest.importorskip("tf_keras")
    steps = [tf_keras.layers.Conv2D(4, 3, name="c"), tf_keras.layers.Flatten(), tf_keras.layers.Dense(3, name="d")]
    model = tf_keras.Sequential([tf_keras.Input((7, 5, 2)), *steps])
    model.save_weights(tmp_path / "w.h5")
    form = {"c": "keras.Conv2D", "d": "keras.Dense"}
    with pytest.raises(LayoutxError, match="the order of the 60 input rows of d is not known"):
        convert(tmp_path / "w.h5", None, to="torch", live=False, forms=form)


def flat_flax(path):
    """Two convolutions and two Dense layers, of which the first reads a flattened map of 2 x 2 x 5."""
    serialization = pytest.importorskip("flax.serialization")
    rng = np.random.default_rng(7)
    shapes = {"c1": (3, 3, 2, 6), "c2": (3, 3, 6, 5), "d1": (20, 7), "d2": (7, 3)}
    tree = {n: {"kernel": rng.normal(size=s), "bias": rng.normal(size=s[-1])} for n, s in shapes.items()}
    path.write_bytes(serialization.to_bytes({"params": tree}))
    return path


DENSE = {"d1": "flax.Dense", "d2": "flax.Dense"}


@pytest.mark.parametrize(
    "options",
    [
        {"only": ["d1"], "forms": {"d1": "flax.Dense"}},
        {"only": ["d*"], "forms": DENSE},
        {"skip": ["c*"], "forms": DENSE},
        {"skip": ["c*", "d2"], "forms": DENSE},
        {"skip": ["c*"], "forms": DENSE | {"c1": "flax.Conv", "c2": "flax.Conv"}},
        {"only": ["d1", "c1"], "forms": DENSE | {"c1": "flax.Conv"}, "keep_order": ["c1"]},
    ],
)
def test_layers_left_out_make_maps_all_the_same(options, tmp_path):
    source = flat_flax(tmp_path / "a.msgpack")
    with pytest.raises(LayoutxError, match="the order of the 20 input rows of d1 is not known") as caught:
        convert(source, None, to="torch", live=False, **options)
    assert "rows of d2" not in str(caught.value)
    kept = options | {"keep_order": ["d1"]}
    assert convert(source, None, to="torch", live=False, **kept).layers


def test_what_a_layer_left_out_gives_is_no_flattened_map(tmp_path):
    source = flat_flax(tmp_path / "a.msgpack")
    assert convert(source, None, to="torch", live=False, only=["d2"], forms={"d2": "flax.Dense"}).layers


def test_a_state_dict_and_a_keras_file_in_part(tmp_path):
    from safetensors.numpy import save_file

    shapes = {"c": (5, 2, 3, 3), "d": (7, 20)}
    tensors = {f"{n}.weight": np.ones(s, "f4") for n, s in shapes.items()}
    save_file(tensors | {f"{n}.bias": np.ones(s[0], "f4") for n, s in shapes.items()}, tmp_path / "a.safetensors")
    model = keras.Sequential([keras.Input((4, 4, 2)), L.Conv2D(5, 3), L.Flatten(), L.Dense(7)])
    model.save_weights(tmp_path / "w.weights.h5")
    for name, to, only in (("a.safetensors", "flax", "d"), ("w.weights.h5", "torch", "dense")):
        with pytest.raises(LayoutxError, match="the order of the 20 input rows"):
            convert(tmp_path / name, None, to=to, live=False, only=[only])
