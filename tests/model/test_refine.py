"""Refinements against explicit NumPy permutations, and against what Keras computes from a channels-first map."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.files.open import open_store
from layoutx.files.store import Store, tensor_of
from layoutx.lang.parse import parse_dims
from layoutx.model.einsum import parse
from layoutx.model.keras import records
from layoutx.model.record import LayerRecord, ModelRecord, Refinement

keras = pytest.importorskip("keras")
L = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore")


def made_of(model: Any, tmp_path: Path) -> dict[str, LayerRecord]:
    rng = np.random.default_rng(3)
    model.set_weights([rng.uniform(0.1, 2, w.shape).astype(w.dtype) for w in model.get_weights()])
    model.save(tmp_path / "m.keras")
    return {r.name: r for r in records(open_store(tmp_path / "m.keras"), lambda _: True).layers}


def at(made: ModelRecord) -> dict[str, LayerRecord]:
    return {r.name: r for r in made.layers}


def order(found: Refinement) -> np.ndarray[Any, Any]:
    """For each position of the channels-first axis, the position in Keras' axis: by brute loops over names."""
    for text in (found.last, found.first):
        parse_dims(text)
    if "{" not in found.last:
        return _product(found.last, found.first, found.sizes)
    body = [re.fullmatch(r"\w+\{(.*)\}", t)[1].split("|") for t in (found.last, found.first)]  # type: ignore[index]
    out, start = [], 0
    for a, b in zip(*body, strict=True):
        (label, last), (other, first) = (t.split(":") for t in (a, b))
        assert label == other
        piece = _product(last, first, found.sizes)
        out.append(start + piece)
        start += len(piece)
    return np.concatenate(out)


def _product(last: str, first: str, sizes: Mapping[str, int]) -> np.ndarray[Any, Any]:
    names, others = (re.findall(r"\w+", t) for t in (last, first))
    assert sorted(names) == sorted(others)
    grid = np.arange(np.prod([sizes[n] for n in names])).reshape([sizes[n] for n in names])
    return grid.transpose([names.index(n) for n in others]).ravel()


def cnn(*after: Any, shape: tuple[int, ...] = (7, 5, 2), conv: Any = None) -> Any:
    return keras.Sequential([L.Input(shape), conv or L.Conv2D(3, 3, name="conv"), *after])


def test_dense_after_flatten_computes_the_same_from_a_channels_first_map(tmp_path: Path) -> None:
    model = cnn(L.ReLU(), L.Flatten(name="flat"), L.Dropout(0.1), L.Dense(11, name="d"))
    found = made_of(model, tmp_path)["d"].refine["input"]
    assert (found.last, found.first, dict(found.sizes)) == ("(h w c)", "(c h w)", {"h": 5, "w": 3, "c": 3})
    assert found.why == "flatten(conv)"
    x = np.random.default_rng(1).normal(size=(2, 7, 5, 2)).astype("float32")
    conv, dense = model.get_layer("conv"), model.get_layer("d")
    middle = np.maximum(np.asarray(conv(x)), 0).transpose(0, 3, 1, 2).reshape(2, -1)
    kernel, bias = dense.get_weights()
    np.testing.assert_allclose(middle @ kernel[order(found)] + bias, np.asarray(model(x)), rtol=1e-4)
    truth = kernel.reshape(5, 3, 3, 11).transpose(2, 0, 1, 3).reshape(-1, 11)
    np.testing.assert_array_equal(kernel[order(found)], truth)
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(kernel, truth)


def test_norms_after_flatten_are_refined_on_their_own_axis(tmp_path: Path) -> None:
    found = made_of(
        cnn(
            L.Flatten(),
            L.BatchNormalization(name="bn"),
            L.PReLU(name="p"),
            L.LayerNormalization(name="ln"),
            L.RMSNormalization(name="rms"),
            L.Dense(2, name="d"),
        ),
        tmp_path,
    )
    for name, axis in (("bn", "channel"), ("p", "channel"), ("ln", "features"), ("rms", "features"), ("d", "input")):
        assert found[name].refine[axis].first == "(c h w)", name


def test_layer_norm_over_a_whole_map_has_several_dims(tmp_path: Path) -> None:
    found = made_of(cnn(L.LayerNormalization(axis=[1, 2, 3], name="ln"), L.LayerNormalization(name="plain")), tmp_path)
    refine = found["ln"].refine["features"]
    assert (refine.last, refine.first, dict(refine.sizes)) == ("h w c", "c h w", {"h": 5, "w": 3, "c": 3})
    assert not found["plain"].refine


def test_global_pooling_leaves_plain_channels(tmp_path: Path) -> None:
    found = made_of(cnn(L.GlobalAveragePooling2D(), L.Dense(7, name="d")), tmp_path)["d"]
    assert (found.refine, found.note) == ({}, "")
    found = made_of(cnn(L.GlobalMaxPooling2D(keepdims=True), L.Flatten(), L.Dense(7, name="d")), tmp_path)["d"]
    assert (found.refine, found.note) == ({}, "")


def test_sequences_of_rnns_are_not_permuted_but_those_of_conv1d_are(tmp_path: Path) -> None:
    rnn = keras.Sequential([L.Input((7, 5)), L.LSTM(3, return_sequences=True), L.Flatten(), L.Dense(2, name="d")])
    assert not made_of(rnn, tmp_path)["d"].refine
    emb = keras.Sequential([L.Input((7,)), L.Embedding(11, 5), L.Flatten(), L.Dense(2, name="d")])
    assert not made_of(emb, tmp_path)["d"].refine
    conv = keras.Sequential([L.Input((7, 5)), L.Conv1D(3, 3), L.Flatten(), L.Dense(2, name="d")])
    found = made_of(conv, tmp_path)["d"].refine["input"]
    assert (found.last, found.first, dict(found.sizes)) == ("(t c)", "(c t)", {"t": 5, "c": 3})


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (L.Conv2D(3, 3, strides=2, padding="same"), (6, 7)),
        (L.Conv2D(3, (3, 2), dilation_rate=2), (7, 11)),
        (L.Conv2DTranspose(3, 3, strides=2), (23, 27)),
        (L.Conv2DTranspose(3, 2, strides=3, padding="same"), (33, 39)),
        (L.Conv2DTranspose(3, 5, strides=3, padding="same", output_padding=1), (32, 38)),
        (L.MaxPooling2D(3), (3, 4)),
        (L.AveragePooling2D(2, strides=3, padding="same"), (4, 5)),
        (L.ZeroPadding2D(((1, 2), (3, 5))), (14, 21)),
        (L.Cropping2D((1, 2)), (9, 9)),
        (L.UpSampling2D((2, 3)), (22, 39)),
        (L.DepthwiseConv2D(2, depth_multiplier=2), (10, 12)),
        (L.SeparableConv2D(3, 4), (8, 10)),
    ],
)
def test_sizes_follow_the_arithmetic_of_keras(layer: Any, size: tuple[int, int], tmp_path: Path) -> None:
    model = keras.Sequential(
        [L.Input((11, 13, 2)), layer.__class__.from_config(layer.get_config()), L.Flatten(), L.Dense(2, name="d")]
    )
    assert model.layers[0].output.shape[1:3] == size, "the test's own numbers are Keras'"
    sizes = made_of(model, tmp_path)["d"].refine["input"].sizes
    assert (sizes["h"], sizes["w"]) == size


def test_unknown_input_sizes_are_solved_from_the_rows(tmp_path: Path) -> None:
    made = made_of(cnn(L.Flatten(name="f"), L.Dense(2, name="d")), tmp_path)
    store = open_store(tmp_path / "m.keras")
    text = json.dumps(store.config).replace('"batch_shape": [null, 7, 5, 2]', '"batch_shape": [null, null, null, 2]')
    found = records(replace(store, config=json.loads(text)), lambda _: True)
    refine = at(found)["d"].refine["input"]
    assert (refine.last, refine.first, dict(refine.sizes)) == ("(hw c)", "(c hw)", {"hw": 15, "c": 3})
    np.testing.assert_array_equal(order(refine), order(made["d"].refine["input"]))


def test_channels_first_models_need_nothing_unless_keras_turns_the_map(tmp_path: Path) -> None:
    kernel = np.ones((3 * 5 * 3, 2))
    for data_format, want in (("channels_first", "(h w c)"), ("channels_last", "")):
        layers = [
            {
                "class_name": "Conv2D",
                "config": {
                    "name": "c",
                    "filters": 3,
                    "kernel_size": [3, 3],
                    "use_bias": False,
                    "data_format": "channels_first",
                    "batch_input_shape": [None, 2, 5, 7],
                },
            },
            {"class_name": "Flatten", "config": {"name": "f", "data_format": data_format}},
            {"class_name": "Dense", "config": {"name": "d", "units": 2, "use_bias": False}},
        ]
        tensors = {"c/c/kernel:0": np.ones((3, 3, 2, 3)), "d/d/kernel:0": kernel}
        store = Store(
            tmp_path,
            "h5",
            {k: tensor_of(k, v) for k, v in tensors.items()},
            version="2.3.1",
            config={"class_name": "Sequential", "config": layers},
            groups={"c": ("c/c/kernel:0",), "f": (), "d": ("d/d/kernel:0",)},
        )
        refine = at(records(store, lambda _: True))["d"].refine
        assert (refine["input"].last if refine else "") == want
        if refine:
            assert refine["input"].first == "(c h w)"


def two_branches(*, second: str) -> Any:
    image, aux = L.Input((7, 5, 2), name="image"), L.Input((11,), name="aux_in")
    left = L.Flatten(name="f1")(L.Conv2D(3, 3, name="conv1")(image))
    right = (
        L.Dense(7, name="aux")(aux) if second == "dense" else L.Flatten(name="f2")(L.Conv2D(5, 2, name="conv2")(image))
    )
    return keras.Model([image, aux], L.Dense(2, name="d")(L.Concatenate(name="cat")([left, right])))


def test_concatenate_gives_labelled_segments(tmp_path: Path) -> None:
    found = made_of(two_branches(second="dense"), tmp_path)["d"].refine["input"]
    assert found.last == "input{conv1: (h w c) | aux: n}"
    assert found.first == "input{conv1: (c h w) | aux: n}"
    assert dict(found.sizes) == {"h": 5, "w": 3, "c": 3, "n": 7}
    want = np.concatenate([np.arange(45).reshape(5, 3, 3).transpose(2, 0, 1).ravel(), np.arange(45, 52)])
    np.testing.assert_array_equal(order(found), want)
    found = made_of(two_branches(second="conv"), tmp_path)["d"].refine["input"]
    assert found.last == "input{conv1: (conv1_h conv1_w conv1_c) | conv2: (conv2_h conv2_w conv2_c)}"
    assert found.first == "input{conv1: (conv1_c conv1_h conv1_w) | conv2: (conv2_c conv2_h conv2_w)}"
    second = 45 + np.arange(120).reshape(6, 4, 5).transpose(2, 0, 1).ravel()
    np.testing.assert_array_equal(order(found)[45:], second)


def test_concatenated_maps_and_plain_vectors(tmp_path: Path) -> None:
    image = L.Input((7, 5, 2))
    a, b = L.Conv2D(3, 3, name="a")(image), L.Conv2D(5, 3, name="b")(image)
    model = keras.Model(image, L.Dense(2, name="d")(L.Flatten()(L.Concatenate()([a, b]))))
    found = made_of(model, tmp_path)["d"].refine["input"]
    assert (found.last, found.first, dict(found.sizes)) == ("(h w c)", "(c h w)", {"h": 5, "w": 3, "c": 8})
    x, y = L.Input((3,)), L.Input((5,))
    model = keras.Model([x, y], L.Dense(2, name="d")(L.Concatenate()([L.Dense(7)(x), y])))
    assert not made_of(model, tmp_path)["d"].refine


def test_autoencoder_refines_the_output_of_the_dense_before_a_reshape(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            L.Input((13,)),
            L.Dense(7 * 5 * 3, name="d"),
            L.BatchNormalization(name="bn"),
            L.Reshape((7, 5, 3), name="r"),
            L.Conv2DTranspose(2, 3, name="up"),
            L.Flatten(),
            L.Dense(2, name="out"),
        ]
    )
    made = made_of(model, tmp_path)
    found = made["d"].refine["output"]
    assert (found.last, found.first, dict(found.sizes)) == ("(h w c)", "(c h w)", {"h": 7, "w": 5, "c": 3})
    assert made["bn"].refine["channel"] == found
    assert not made["up"].refine
    assert dict(made["out"].refine["input"].sizes) == {"h": 9, "w": 7, "c": 2}
    x = np.random.default_rng(1).normal(size=(2, 13)).astype("float32")
    kernel, bias = model.get_layer("d").get_weights()
    vector = x @ kernel[:, order(found)] + bias[order(found)]
    keras_map = (x @ kernel + bias).reshape(2, 7, 5, 3)
    np.testing.assert_allclose(vector.reshape(2, 3, 7, 5), keras_map.transpose(0, 3, 1, 2), rtol=1e-5)


def test_reshape_permute_and_vectors_with_ones(tmp_path: Path) -> None:
    squeeze = cnn(L.GlobalAveragePooling2D(), L.Reshape((1, 1, 3)), L.Flatten(), L.Dense(5, name="d"))
    assert not made_of(squeeze, tmp_path)["d"].refine
    as_flatten = cnn(L.Reshape((-1,)), L.Dense(5, name="d"))
    assert made_of(as_flatten, tmp_path)["d"].refine["input"].first == "(c h w)"
    explicit = cnn(L.Permute((3, 1, 2)), L.Flatten(), L.Dense(5, name="d"))
    assert not made_of(explicit, tmp_path)["d"].refine
    turned = cnn(L.Permute((2, 1, 3)), L.Flatten(), L.Dense(5, name="d"))
    found = made_of(turned, tmp_path)["d"].refine["input"]
    assert (found.last, found.first) == ("(w h c)", "(c w h)")
    tokens = cnn(L.Reshape((15, 3)), L.Dense(5, name="t"), L.Flatten(), L.Dense(5, name="d"))
    assert not made_of(tokens, tmp_path)["d"].refine


def test_what_cannot_be_followed_is_said(tmp_path: Path) -> None:
    rows = made_of(cnn(L.Reshape((5, 9), name="rows"), L.LSTM(5, name="d")), tmp_path)["d"]
    found = rows.refine["input"]
    assert (found.last, found.first, found.joined, rows.note) == ("(w c)", "(c w)", 'Reshape "rows" of a map', "")
    fun = made_of(
        cnn(L.Lambda(lambda x: x, name="fun"), L.Flatten(), L.Dense(5, name="d"), L.Dense(2, name="e")), tmp_path
    )
    assert (
        fun["d"].note
        == 'input axis could not be followed through Lambda "fun", of which only its code tells what it makes'
    )
    assert fun["e"].note == ""
    assert not fun["d"].refine
    norm = made_of(
        cnn(
            L.Lambda(lambda x: x, name="fun"),
            L.BatchNormalization(name="a"),
            L.Flatten(),
            L.BatchNormalization(name="b"),
        ),
        tmp_path,
    )
    assert norm["a"].note == ""
    assert (
        norm["b"].note
        == 'input axis could not be followed through Lambda "fun", of which only its code tells what it makes'
    )


def test_a_model_without_an_input_shape(tmp_path: Path) -> None:
    def found(*layers: tuple[str, dict[str, Any], Any]) -> dict[str, LayerRecord]:
        entries = [{"class_name": c, "config": {"name": c.lower(), "use_bias": False, **more}} for c, more, _ in layers]
        tensors = {f"{c.lower()}/kernel:0": np.ones(shape) for c, _, shape in layers if shape}
        groups = {c.lower(): (f"{c.lower()}/kernel:0",) if shape else () for c, _, shape in layers}
        store = Store(
            tmp_path,
            "h5",
            {k: tensor_of(k, v) for k, v in tensors.items()},
            version="2.3.1",
            config={"class_name": "Sequential", "config": entries},
            groups=groups,
        )
        return at(records(store, lambda _: True))

    assert found(("Dense", {"units": 3}, (5, 3)))["dense"].note == ""
    conv = ("Conv2D", {"filters": 3, "kernel_size": [3, 3]}, (3, 3, 2, 3))
    refine = found(conv, ("Flatten", {}, None), ("Dense", {"units": 2}, (45, 2)))["dense"].refine["input"]
    assert (refine.last, dict(refine.sizes)) == ("(hw c)", {"hw": 15, "c": 3})
    note = found(conv, ("Flatten", {}, None), ("Dense", {"units": 2}, (46, 2)))["dense"].note
    assert note == "input axis could not be followed: 46 rows of the weights do not fit the map in front of them"
    note = found(("Flatten", {}, None), ("Dense", {"units": 2}, (45, 2)))["dense"].note
    assert note == "input axis could not be followed through the model's input, whose shape the file does not say"


def test_time_distributed_and_nested_models_are_followed(tmp_path: Path) -> None:
    video = keras.Sequential(
        [
            L.Input((4, 7, 5, 2)),
            L.TimeDistributed(L.Conv2D(3, 3), name="tc"),
            L.TimeDistributed(L.Flatten(), name="tf"),
            L.Bidirectional(L.LSTM(2), name="b"),
        ]
    )
    found = made_of(video, tmp_path)["b"].refine["input"]
    assert (found.last, found.first, dict(found.sizes)) == ("(h w c)", "(c h w)", {"h": 5, "w": 3, "c": 3})
    image = L.Input((7, 5, 2))
    base = keras.Model(image, L.Conv2D(3, 3, name="conv")(image), name="base")
    outer = keras.Sequential(
        [L.Input((7, 5, 2)), base, keras.Sequential([L.Flatten(), L.Dense(2, name="d")], name="top")]
    )
    found = made_of(outer, tmp_path)["top/d"].refine["input"]
    assert (found.first, found.why) == ("(c h w)", "flatten(base/conv)")


def test_residual_sums_keep_the_map(tmp_path: Path) -> None:
    image = L.Input((7, 5, 2))
    a = L.Conv2D(3, 3, name="a")(image)
    b = L.Conv2D(3, 3, padding="same", name="b")(a)
    model = keras.Model(image, L.Dense(2, name="d")(L.Flatten()(L.Activation("relu")(L.Add()([a, b])))))
    assert made_of(model, tmp_path)["d"].refine["input"].first == "(c h w)"
    flat = L.Flatten()(a)
    model = keras.Model(image, L.Dense(2, name="d")(L.Add(name="sum")([flat, L.Dense(45)(flat)])))
    assert (
        made_of(model, tmp_path)["d"].note
        == 'input axis could not be followed through Add "sum" of differently built axes'
    )


def test_one_layer_at_two_places_with_different_inputs(tmp_path: Path) -> None:
    image, vector = L.Input((7, 5, 2)), L.Input((45,))
    shared = L.Dense(2, name="d")
    model = keras.Model([image, vector], L.Add()([shared(L.Flatten()(L.Conv2D(3, 3)(image))), shared(vector)]))
    found = made_of(model, tmp_path)["d"]
    assert "used at several places" in found.note
    assert "input" not in found.refine


@pytest.mark.parametrize(
    ("equation", "bias", "kernel", "inputs", "outputs", "bias_dims"),
    [
        ("abc,cd->abd", "d", "in_c out_d", "in_c", "out_d", "out_d"),
        ("...x,xy->...y", "y", "in_x out_y", "in_x", "out_y", "out_y"),
        ("abc,cde->abde", "de", "in_c out_d out_e", "in_c", "out_d out_e", "out_d out_e"),
        ("abcd,cde->abe", "e", "in_c in_d out_e", "in_c in_d", "out_e", "out_e"),
        ("abcd,dce->abe", None, "in_d in_c out_e", "in_c in_d", "out_e", ""),
        ("abc,cde->abed", "d", "in_c out_d out_e", "in_c", "out_e out_d", "out_d"),
    ],
)
def test_einsum_equations(equation: str, bias: str, kernel: str, inputs: str, outputs: str, bias_dims: str) -> None:
    found = parse(equation, bias)
    assert not found.refusal
    assert [" ".join(x) for x in (found.kernel, found.input, found.output, found.bias)] == [
        kernel,
        inputs,
        outputs,
        bias_dims,
    ]


@pytest.mark.parametrize(
    ("equation", "text"),
    [
        ("abc,acd->abd", "both inputs and in the output"),
        ("abc", "not of the form"),
        ("ab,b->ab", "both inputs"),
        ("ab,cd->abcd", "does not lead from an input axis"),
        ("abc,bd->adc", "does not work on the last axes"),
    ],
)
def test_einsum_refusals(equation: str, text: str) -> None:
    assert text in parse(equation).refusal


def test_real_files_need_the_known_permutations(models: Path) -> None:
    for name, layer, shape in (("cnn_max_mnist2", "dense_14", (11, 11, 4)), ("cnn_max_mnist3", "dense", (12, 12, 2))):
        path = models / "marabou-mnist" / f"{name}.h5"
        found = at(records(open_store(path), lambda _: True))[layer].refine["input"]
        want = np.arange(np.prod(shape)).reshape(shape).transpose(2, 0, 1).ravel()
        np.testing.assert_array_equal(order(found), want)


def test_a_vector_made_into_a_sequence_is_a_map_once_conv1d_reads_it(tmp_path: Path) -> None:
    head = [L.Input((7,)), L.Dense(15, name="d"), L.Reshape((5, 3), name="r")]
    found = made_of(keras.Sequential([*head, L.Conv1D(2, 3, name="c")]), tmp_path)["d"].refine["output"]
    assert (found.last, found.first, dict(found.sizes)) == ("(t c)", "(c t)", {"t": 5, "c": 3})
    head = [L.Input((7,)), L.Dense(15, name="d"), L.Reshape((5, 3), name="r")]
    assert not made_of(keras.Sequential([*head, L.LSTM(2)]), tmp_path)["d"].refine


@pytest.mark.parametrize("sequences", [False, True])
def test_maps_that_a_conv_lstm_makes_are_followed(sequences: bool, tmp_path: Path) -> None:
    film = L.ConvLSTM2D(5, (2, 3), strides=(1, 2), return_sequences=sequences, name="film")
    found = made_of(cnn(L.Flatten(name="flat"), L.Dense(7, name="d"), shape=(4, 6, 11, 2), conv=film), tmp_path)
    refine = found["d"].refine["input"]
    assert (refine.last, refine.first) == (("(d h w c)", "(d c h w)") if sequences else ("(h w c)", "(c h w)"))
    assert dict(refine.sizes) == {**({"d": 4} if sequences else {}), "h": 5, "w": 5, "c": 5}


def test_a_flatten_of_each_frame_is_followed(tmp_path: Path) -> None:
    film = L.ConvLSTM2D(5, 3, padding="same", return_sequences=True, name="film")
    after = [L.TimeDistributed(L.Flatten(name="flat"), name="each"), L.LSTM(3, name="d")]
    found = made_of(cnn(*after, shape=(4, 6, 7, 2), conv=film), tmp_path)["d"].refine["input"]
    assert (found.last, found.first) == ("(h w c)", "(c h w)")


def test_spectral_normalization_makes_what_its_layer_makes(tmp_path: Path) -> None:
    conv = L.SpectralNormalization(L.Conv2D(3, (2, 3), name="conv"), name="sn")
    found = made_of(cnn(L.Flatten(), L.Dense(11, name="d"), conv=conv), tmp_path)["d"].refine["input"]
    assert (found.last, found.first, dict(found.sizes)) == ("(h w c)", "(c h w)", {"h": 6, "w": 3, "c": 3})
