"""Every tensor of a Keras file ends up in the record of the layer that owns it: compared bit for bit with Keras."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.errors import ModelError
from layoutx.files.open import open_store
from layoutx.files.store import Store, tensor_of
from layoutx.model.graph import graph_of
from layoutx.model.keras import records
from layoutx.model.record import LayerRecord, ModelRecord

FORMATS = ("model.keras", "model.h5", "model.weights.h5")


def keras_of(name: str) -> Any:
    return pytest.importorskip(name)


def sequential_cnn(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((11, 13, 3)),
            layers.Conv2D(5, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.MaxPooling2D(2, name="pool"),
            layers.SeparableConv2D(7, 2, name="sep"),
            layers.DepthwiseConv2D(2, depth_multiplier=2, use_bias=False, name="depth"),
            layers.Dropout(0.5, name="drop"),
            layers.Flatten(name="flat"),
            layers.Dense(17, name="dense"),
            layers.PReLU(name="prelu"),
            layers.Dense(2, name="out"),
        ]
    )


def frozen_nested(keras: Any) -> Any:
    layers = keras.layers
    x = layers.Input((5,), name="inner_in")
    y = layers.Dense(7, name="d1", trainable=False)(x)
    y = layers.BatchNormalization(name="b1")(y)
    y = layers.Dense(7, name="d2")(y)
    deep_in = layers.Input((7,), name="deep_in")
    deep = keras.Model(deep_in, layers.BatchNormalization(name="b2")(layers.Dense(7, name="d3")(deep_in)), name="deep")
    y = layers.Dense(7, name="d4")(deep(y))
    nested = keras.Model(x, y, name="nested")
    i = layers.Input((5,), name="outer_in")
    cold_in = layers.Input((7,), name="cold_in")
    cold = keras.Model(
        cold_in,
        layers.Dense(3, name="k2")(layers.BatchNormalization(name="kb")(layers.Dense(7, name="k1")(cold_in))),
        name="cold",
    )
    cold.trainable = False
    return keras.Model(i, layers.Dense(2, name="head")(cold(nested(i))), name="outer")


def recurrent(keras: Any) -> Any:
    layers = keras.layers
    i = layers.Input((7,), name="words")
    x = layers.Embedding(23, 5, name="emb")(i)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="bd")(x)
    x = layers.RNN([layers.LSTMCell(3), layers.LSTMCell(5), layers.GRUCell(7)], return_sequences=True, name="stack")(x)
    x = layers.RNN(layers.LSTMCell(3, use_bias=False), return_sequences=True, name="one")(x)
    x = layers.TimeDistributed(layers.Dense(11), name="td")(x)
    x = layers.Bidirectional(layers.GRU(3), name="bg")(x)
    return keras.Model(i, layers.Dense(2, name="out")(x), name="recurrent")


def transformer(keras: Any) -> Any:
    layers = keras.layers
    i = layers.Input((7, 5), name="in")
    x = layers.MultiHeadAttention(2, 3, value_dim=5, name="mha")(i, i)
    x = layers.LayerNormalization(name="ln")(layers.Add(name="add")([i, x]))
    y = layers.MultiHeadAttention(3, 2, use_bias=False, name="bare")(x, x)
    if hasattr(layers, "GroupQueryAttention"):
        y = layers.GroupQueryAttention(3, 4, 2, name="gqa")(y, y)
    y = layers.EinsumDense("abc,cd->abd", output_shape=(None, 11), bias_axes="d", name="ein")(y)
    return keras.Model(i, layers.LayerNormalization(center=False, name="ln2")(y), name="transformer")


def two_inputs(keras: Any) -> Any:
    layers = keras.layers
    image, aux = layers.Input((7, 5, 3), name="image"), layers.Input((11,), name="aux")
    shared = layers.Dense(13, name="shared")
    x = layers.Flatten(name="flat")(layers.Conv2D(5, 3, name="conv1")(image))
    both = layers.Concatenate(name="cat")([x, shared(aux)])
    return keras.Model([image, aux], [layers.Dense(2, name="a")(both), layers.Dense(3, name="b")(shared(aux))])


def shared_inside(keras: Any) -> Any:
    layers = keras.layers
    common = layers.Dense(5, name="common")
    x = layers.Input((5,), name="inner_in")
    inner = keras.Model(x, layers.Dense(5, name="own")(common(x)), name="inner")
    i = layers.Input((5,), name="in")
    y = layers.Dense(5, name="before")(inner(inner(i)))
    return keras.Model(i, layers.Dense(3, name="after")(common(y)), name="sharing")


def distributed_model(keras: Any) -> Any:
    layers = keras.layers
    frame = keras.Sequential(
        [
            layers.Input((7, 5, 3)),
            layers.Conv2D(5, 3, name="fc"),
            layers.Flatten(name="ff"),
            layers.Dense(2, name="fd"),
        ],
        name="frame",
    )
    i = layers.Input((4, 7, 5, 3), name="video")
    x = layers.TimeDistributed(frame, name="td")(i)
    return keras.Model(i, layers.LSTM(3, name="lstm")(x))


def film(keras: Any) -> Any:
    layers = keras.layers
    i = layers.Input((4, 7, 11, 3), name="film")
    x = layers.ConvLSTM2D(5, (2, 3), return_sequences=True, name="first")(i)
    x = layers.ConvLSTM2D(2, 3, use_bias=False, data_format="channels_last", name="second")(x)
    return keras.Model(i, layers.Dense(3, name="out")(layers.Flatten(name="flat")(x)), name="cinema")


def operations(keras: Any) -> Any:
    layers = keras.layers
    i = layers.Input((5,), name="in")
    x = layers.Dense(5, name="a")(i)
    x = keras.ops.add(x, i) if hasattr(keras, "ops") else x + i
    x = layers.Add(name="sum")([layers.Dense(5, name="b")(x), i])
    return keras.Model(i, layers.Dense(3, name="c")(x * 2.0))


BUILDERS = (
    operations,
    sequential_cnn,
    frozen_nested,
    recurrent,
    transformer,
    two_inputs,
    shared_inside,
    distributed_model,
    film,
)


def shaken(model: Any) -> Any:
    """Every weight at a value of its own, variances positive."""
    rng = np.random.default_rng(5)
    model.set_weights([rng.uniform(0.1, 2, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def opened(model: Any, path: Path) -> tuple[Store, dict[str, Any] | None]:
    """The model saved under this name; for a file of weights only, the config as well."""
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
        return open_store(path), json.loads(model.to_json())
    model.save(path)
    return open_store(path), None


def live(model: Any, record: LayerRecord) -> Any:
    """The layer of the live model that a record speaks of."""
    layer = model
    for part in record.name.replace("block/", "block|").split("/"):
        part = part.replace("|", "/")
        if part.startswith("cell_"):
            layer = layer.cell.cells[int(part[5:])]
            continue
        if not hasattr(layer, "get_layer"):
            layer = layer.layer
        layer = layer.get_layer(part)
    return layer


def check(model: Any, made: ModelRecord) -> None:
    seen = set()
    for record in made.layers:
        if record.class_name == "InputLayer":
            continue
        if not record.tensors and record.class_name in ("Add", "Multiply", "TFOpLambda") and record.name != "sum":
            continue  # an operation: in the wiring, but no layer of the model
        layer = live(model, record)
        if "shared with" in record.note:
            assert not record.tensors
            continue
        want = layer.get_weights()
        assert len(record.tensors) == len(want), record
        for tensor, array in zip(record.tensors.values(), want, strict=True):
            np.testing.assert_array_equal(tensor.read(), array, err_msg=f"{record.name} {tensor.name}")
        seen.add(id(layer))
    assert made.layers


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("file", FORMATS)
@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_every_tensor_is_the_layers_own(library: str, build: Callable[[Any], Any], file: str, tmp_path: Path) -> None:
    keras = keras_of(library)
    model = shaken(build(keras))
    store, config = opened(model, tmp_path / file)
    made = records(store, lambda _: True, config=config)
    check(model, made)
    assert not [r.name for r in made.layers if "decided" in r.note], "names and config order disagree"
    weighted = {r.name for r in made.layers if r.tensors}
    assert sum(len(r.tensors) for r in made.layers) + len(made.leftover) == len(store.tensors)
    assert weighted


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_the_order_alone_is_enough_when_weight_names_say_nothing(library: str, tmp_path: Path) -> None:
    keras = keras_of(library)
    model = shaken(frozen_nested(keras))
    store, _ = opened(model, tmp_path / "model.h5")
    groups, tensors = {}, {}
    for group, keys in store.groups.items():
        new = [
            key.replace(group, "\0", 1).rsplit("/", 1)[0].split("\0")[0] + f"{group}/w_{i}/x"
            for i, key in enumerate(keys)
        ]
        groups[group] = tuple(new)
        tensors.update({n: replace(store.tensors[k], name=n) for n, k in zip(new, keys, strict=True)})
    check(model, records(replace(store, groups=groups, tensors=tensors), lambda _: True))


@pytest.mark.filterwarnings("ignore")
def test_layer_names_with_a_slash(tmp_path: Path) -> None:
    keras = keras_of("tf_keras")
    x = keras.layers.Input((5,), name="inner_in")
    y = keras.layers.BatchNormalization(name="block/bn")(keras.layers.Dense(5, name="block/dense", trainable=False)(x))
    model = keras.Sequential([keras.layers.Input((5,)), keras.Model(x, y, name="inner")])
    for file in FORMATS:
        store, config = opened(shaken(model), tmp_path / file)
        made = records(store, lambda _: True, config=config)
        check(model, made)
        assert not [r.note for r in made.layers if r.note]


def test_forms_and_names(tmp_path: Path) -> None:
    keras = keras_of("keras")
    store, _ = opened(shaken(recurrent(keras)), tmp_path / "model.keras")
    at = {r.name: r for r in records(store, lambda _: True).layers}
    assert at["bd"].form == "keras.Bidirectional.LSTM"
    assert list(at["bd"].tensors)[3:] == [
        "backward_layer/kernel",
        "backward_layer/recurrent_kernel",
        "backward_layer/bias",
    ]
    assert at["bd"].config["merge_mode"] == "concat"
    assert at["bd"].config["units"] == 3
    assert [at[f"stack/cell_{i}"].form for i in range(3)] == ["keras.LSTM", "keras.LSTM", "keras.GRU"]
    assert at["stack/cell_1"].inputs == ("stack/cell_0",)
    assert at["one"].form == "keras.LSTM"
    assert at["one"].inputs == ("stack/cell_2",)
    assert list(at["one"].tensors) == ["kernel", "recurrent_kernel"]
    assert (at["td"].form, at["td"].note) == ("keras.Dense", "TimeDistributed(Dense)")
    assert at["emb"].config["version"] == 3
    assert at["words"].form == ""
    transformer_file, _ = opened(shaken(transformer(keras)), tmp_path / "t.keras")
    at = {r.name: r for r in records(transformer_file, lambda _: True).layers}
    assert list(at["mha"].tensors)[::2] == ["query/kernel", "key/kernel", "value/kernel", "attention_output/kernel"]
    assert at["ein"].config["kernel_dims"] == "in_c out_d"
    assert at["ein"].config["bias_dims"] == "out_d"
    assert at["ein"].refine["input"].sizes == {"in_c": 5}
    assert at["add"].inputs == ("in", "mha")


def test_an_unknown_form_keeps_its_tensors_without_a_form(tmp_path: Path) -> None:
    keras = keras_of("keras")
    store, _ = opened(shaken(sequential_cnn(keras)), tmp_path / "model.keras")
    at = {r.name: r for r in records(store, lambda form: form != "keras.PReLU").layers}
    assert at["prelu"].form == ""
    assert list(at["prelu"].tensors) == ["alpha"]
    assert at["dense"].form == "keras.Dense"


def test_weights_without_a_config_are_shown_by_group(tmp_path: Path) -> None:
    keras = keras_of("keras")
    model = shaken(recurrent(keras))
    model.save_weights(tmp_path / "only.weights.h5")
    made = records(open_store(tmp_path / "only.weights.h5"), lambda _: True)
    at = {r.name: r for r in made.layers}
    assert at["embedding"].class_name == "Embedding"
    assert at["embedding"].form == ""
    assert at["bidirectional"].class_name == "Bidirectional"
    assert sorted(at["bidirectional"].tensors)[0] == "backward_layer/cell/0"
    assert "the file holds no model config" in at["dense"].note
    assert list(at["dense"].tensors) == ["0", "1"]
    template = records(opened(model, tmp_path / "model.keras")[0], lambda _: True)
    check(model, records(open_store(tmp_path / "only.weights.h5"), lambda _: True, template=template))


def test_optimizer_state_is_left_over_with_its_reason(tmp_path: Path) -> None:
    keras = keras_of("keras")
    model = sequential_cnn(keras)
    model.compile("adam", "mse")
    made = records(opened(shaken(model), tmp_path / "model.keras")[0], lambda _: True)
    assert set(made.leftover.values()) == {"optimizer state"}
    assert all(name.startswith("optimizer/") for name in made.leftover)


def test_custom_layers_keep_their_own_names(tmp_path: Path) -> None:
    keras = keras_of("keras")

    class Dense(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(shape[-1], 3), name="kernel")
            self.fc = keras.layers.Dense(2)
            self.fc.build((None, 3))

        def call(self, x: Any) -> Any:
            return self.fc(x @ self.kernel)

    keras.saving.register_keras_serializable("mypkg")(Dense)
    model = keras.Sequential([keras.layers.Input((5,)), Dense(name="gate"), keras.layers.Dense(3, name="out")])
    store = opened(shaken(model), tmp_path / "model.keras")[0]
    made = records(store, lambda form: form in ("keras.Dense", "keras.Gate"))
    at = {r.name: r for r in made.layers}
    assert at["gate"].form == "", "a custom Dense is not the stock one"
    assert list(at["gate"].tensors) == ["0", "fc/0", "fc/1"]
    assert "not a class of Keras" in at["gate"].note
    assert "could not be followed" not in at["out"].note, "a vector without a map stays one, whatever a layer does"
    assert at["out"].form == "keras.Dense"
    own = {r.name: r for r in records(store, lambda form: form == "keras.mypkg>Dense").layers}
    assert own["gate"].form == "keras.mypkg>Dense"


def test_the_files_names_must_agree_with_the_config(tmp_path: Path) -> None:
    keras = keras_of("keras")
    store, _ = opened(shaken(frozen_nested(keras)), tmp_path / "model.keras")
    wrong = {k: ("other" if v == "head" else v) for k, v in store.metadata.items()}
    assert wrong != store.metadata, "the store tells the names of the groups"
    with pytest.raises(ModelError, match='says that it is layer "other", but the config makes it layer "head"'):
        records(replace(store, metadata=wrong), lambda _: True)


def test_tensors_that_the_config_does_not_explain_are_an_error(tmp_path: Path) -> None:
    keras = keras_of("keras")
    store, _ = opened(shaken(two_inputs(keras)), tmp_path / "model.keras")
    extra = {**store.tensors, "layers/dense_9/vars/0": tensor_of("layers/dense_9/vars/0", np.ones(3))}
    with pytest.raises(ModelError, match="tensors that no layer of its config owns"):
        records(replace(store, tensors=extra), lambda _: True)
    less = {k: t for k, t in store.tensors.items() if not k.startswith("layers/conv2d/")}
    with pytest.raises(ModelError, match=r'Layer "conv1" \(Conv2D\) has no tensors'):
        records(replace(store, tensors=less), lambda _: True)


def store_of(layers: list[Any], tensors: dict[str, Any], groups: dict[str, Any], version: str, **more: Any) -> Store:
    found = {name: tensor_of(name, array) for name, array in tensors.items()}
    config = {"class_name": "Sequential", "config": layers}
    return Store(
        Path("x.h5"), more.get("format", "h5"), found, config=more.get("config", config), version=version, groups=groups
    )


def entry(class_name: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": class_name, "config": {"name": name, **config}}


def test_keras_1_bidirectional_has_its_sides_apart() -> None:
    inner = entry("LSTM", "lstm_1", output_dim=3)
    names = [f"{side}_lstm_1_{w}" for side in ("forward", "backward") for w in ("W_i", "U_i", "b_i")]
    tensors = {f"bidirectional_1/{n}": np.full((2,), i) for i, n in enumerate(names)}
    layers = [entry("Bidirectional", "bidirectional_1", layer=inner, batch_input_shape=[None, 5, 3])]
    made = records(store_of(layers, tensors, {"bidirectional_1": tuple(tensors)}, "1.2.2"), lambda _: True)
    assert made.framework == "keras1"
    assert made.layers[0].form == "keras1.Bidirectional.LSTM"
    assert list(made.layers[0].tensors)[:4] == [
        "forward_layer/W_i",
        "forward_layer/U_i",
        "forward_layer/b_i",
        "backward_layer/W_i",
    ]


def test_old_containers_count_weighted_layers_twice() -> None:
    old = "_layer_checkpoint_dependencies"
    tensors = {f"{old}/{g}/vars/0": np.full((2, 2), i) for i, g in enumerate(("dense", "dense_2", "dense_4"))}
    layers = [entry("Dense", n, use_bias=False) for n in ("a", "b", "c")]
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    for version in ("2.13.1", ""):
        store = store_of([], tensors, {}, version, format="keras", config=config)
        made = records(store, lambda _: True)
        assert [r.tensors["kernel"].read()[0, 0] for r in made.layers] == [0, 1, 2]
    once = {k.replace("_2/", "_1/").replace("_4/", "_2/"): v for k, v in tensors.items()}
    made = records(store_of([], once, {}, "2.14.0", format="keras", config=config), lambda _: True)
    assert [r.tensors["kernel"].read()[0, 0] for r in made.layers] == [0, 1, 2]


@pytest.mark.parametrize(
    "config",
    [
        {"class_name": "Sequential", "config": 3},
        {"class_name": "Sequential", "config": [{"config": {}}]},
        {"class_name": "Sequential", "config": [{"class_name": "Dense", "config": None}]},
        {"class_name": "Model", "config": {"input_layers": [], "layers": [entry("Dense", "a"), entry("Dense", "a")]}},
        {"class_name": "Model", "config": {"input_layers": [["b", 0, 0]], "layers": [entry("Dense", "a")]}},
        {
            "class_name": "Model",
            "config": {"input_layers": [], "layers": [{**entry("Dense", "a"), "inbound_nodes": 3}]},
        },
        {"class_name": "Model", "config": {"input_layers": [["a", 4, 0]], "layers": [entry("Dense", "a")]}},
        {"config": {}},
    ],
)
def test_malformed_configs_say_where(config: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as caught:
        records(store_of([], {}, {}, "2.3.1", config=config), lambda _: True)
    assert "model config" in str(caught.value)


def test_real_files(models: Path) -> None:
    files = [p for p in sorted(models.rglob("*.h5")) if "inputs_and_outputs" not in p.name]
    assert files
    for path in files:
        store = open_store(path)
        made = records(store, lambda _: True)
        assert sum(len(r.tensors) for r in made.layers) + len(made.leftover) == len(store.tensors)
        assert all(r.form for r in made.layers if r.tensors), path


def test_a_circle_in_the_wiring_is_refused() -> None:
    """Keras itself would look for an order for ever; a layer that is called twice is none."""

    def entry(name: str, *calls: list[str]) -> dict[str, Any]:
        nodes = [[[feeding, at, 0, {}] for feeding, at in call] for call in calls]
        return {"name": name, "class_name": "Add", "config": {"name": name}, "inbound_nodes": nodes}

    def model(*entries: dict[str, Any]) -> dict[str, Any]:
        ends = {"input_layers": [["x", 0, 0]], "output_layers": [[entries[-1]["name"], 0, 0]]}
        first = {"name": "x", "class_name": "InputLayer", "config": {"name": "x"}, "inbound_nodes": []}
        return {"class_name": "Functional", "config": {"name": "m", "layers": [first, *entries], **ends}}

    twice = model(entry("a", [("x", 0)], [("b", 0)]), entry("b", [("a", 0)]))
    assert len(graph_of(twice).layers) == 3
    circle = model(entry("s", [("x", 0), ("b", 0)]), entry("a", [("s", 0)]), entry("b", [("a", 0)]))
    with pytest.raises(ModelError, match="goes in a circle: each of s, a, b waits"):
        graph_of(circle)
