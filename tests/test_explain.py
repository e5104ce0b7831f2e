"""The five questions: what the arrays are, why they lie so, which numbers are a gate, whose rows they are, by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edited import DIGITS
from safetensors.numpy import save_file

import layoutx as lx
from layoutx.errors import UsageError
from layoutx.explained import Explained
from layoutx.spec.registry import registry

MODELS = Path(os.environ.get("LAYOUTX_MODELS", "absent"))
real = pytest.mark.skipif(not MODELS.is_dir(), reason="LAYOUTX_MODELS names no folder of real models")


def lstm(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    shapes = {"weight_ih_l0": (20, 7), "weight_hh_l0": (20, 5), "bias_ih_l0": (20,), "bias_hh_l0": (20,)}
    save_file({f"rnn.{n}": rng.normal(size=s) for n, s in shapes.items()}, tmp_path / "rnn.safetensors")
    return tmp_path / "rnn.safetensors"


# 1: what get_weights() returns


@pytest.mark.parametrize("form", sorted(registry().forms))
def test_a_form_without_sizes_is_shown_with_examples(form: str) -> None:
    found = lx.explain(form)
    examples = found.data["examples"]
    assert examples.items() <= found.data["sizes"].items()
    assert not examples or f"Sizes are examples ({next(iter(examples))} " in " ".join(str(found).split())


def test_sizes_that_are_given_are_no_examples() -> None:
    data = lx.explain("keras.LSTM", config={"units": 5}).data
    assert data["sizes"]["hidden"] == 5
    assert [*data["examples"]] == ["input"]
    assert lx.explain("keras.LSTM", sizes={"input": 7, "hidden": 5}).data["examples"] == {}


def test_each_element_of_get_weights() -> None:
    found = lx.explain(DIGITS)
    arrays = found.to_dict()["arrays"]
    assert [a["index"] for a in arrays] == list(range(12))
    assert [a["layer"] for a in arrays[:4]] == ["conv1", "conv1", "bn1", "bn1"]
    assert [a["kind"] for a in arrays[2:6]] == ["trainable", "trainable", "state", "state"]
    assert arrays[8]["roles"] == ["kernel"]
    assert arrays[8]["key"] == "layers/dense/vars/0"
    assert "model.get_weights()[i]" in str(found)


def test_a_layer_says_when_an_array_is_absent() -> None:
    text = str(lx.explain("keras.Dense", sizes={"input": 7, "output": 5}))
    assert "get_weights()[1]  bias (output 5)" in text
    assert "absent with use_bias=False" in text
    without = lx.explain("keras.Dense", sizes={"input": 7, "output": 5}, config={"use_bias": False})
    assert [a["name"] for a in without.to_dict()["arrays"]] == ["kernel"]
    assert "bias is absent here: it counts as zeros" in str(without)
    assert without.title.startswith("keras.Dense: y = x @ kernel.")


# 2: why (2000, 32)


def test_why_the_kernel_is_inputs_by_units() -> None:
    found = lx.explain("keras.Dense", to="torch.Linear", shapes={"kernel": (2000, 32)})
    assert found.title == "keras.Dense: y = x @ kernel + bias.   2000 inputs, 32 units."
    data = found.to_dict()
    (there,) = data["elsewhere"]
    assert (there["form"], there["tensors"][0]["shape"]) == ("torch.Linear", [32, 2000])
    assert there["formula"] == "x @ weight.T + bias"
    assert "weight = kernel.T" in str(found)
    assert "kernel[:, 5] here, weight[5, :] in torch.Linear" in " ".join(str(found).split())
    assert "Keras keeps (inputs, units) because it computes x @ kernel" in data["why"]


def test_a_shape_that_contradicts_is_refused() -> None:
    with pytest.raises(lx.LayoutxError):
        lx.explain("keras.Dense", shapes={"kernel": (7, 5), "bias": (3,)})
    with pytest.raises(lx.BindError, match="has no tensor weight"):
        lx.explain("keras.Dense", shapes={"weight": (7, 5)})


# 3: parts


def test_the_forget_gate_of_a_torch_file(tmp_path: Path) -> None:
    found = lx.explain(lstm(tmp_path), "rnn", part="w_input.f")
    data = found.to_dict()
    assert data["where"] == [{"tensor": "weight_ih_l0", "shape": [20, 7], "slice": "weight_ih_l0[5:10, :]"}]
    assert data["axes"] == [["input", 7], ["hidden", 5]]
    assert data["equations"] == ["f = sigmoid(x @ w_input.f + h @ w_recurrent.f + b.f)"]
    assert {r["part"]: r["where"] for r in data["relatives"]} == {
        "w_recurrent.f": "weight_hh_l0[5:10, :]",
        "b_input.f": "bias_ih_l0[5:10]",
        "b_recurrent.f": "bias_hh_l0[5:10]",
    }
    assert "│ i 0:5 │▐f 5:10▌│ g 10:15 │ o 15:20 │" in str(found)
    assert found.svg().startswith("<svg xmlns=")
    assert "spot" in found.svg()


@pytest.mark.parametrize(
    ("form", "config", "sizes", "part", "where", "axes"),
    [
        ("keras.GRU", {}, {"input": 7, "hidden": 5}, "recurrent.z", "recurrent_kernel[:, 0:5]", "hidden_prev hidden"),
        ("keras.GRU", {}, {"input": 7, "hidden": 5}, "b_recurrent.n", "bias[1, 10:15]", "hidden"),
        ("torch.GRU", {}, {"input": 7, "hidden": 5}, "w_input.n", "weight_ih_l0[10:15, :]", "input hidden"),
        ("onnx.LSTM", {}, {"input": 7, "hidden": 5}, "w_input.f", "W[:, 10:15, :]", "input hidden"),
        ("flax.LSTMCell", {}, {"input": 7, "hidden": 5}, "w_input.f", "if/kernel", "input hidden"),
        ("keras.LSTM", {}, {"input": 7, "hidden": 5}, "bias.f", "bias[5:10]", "hidden"),
        ("keras.LSTM", {}, {"input": 7, "hidden": 5}, "w_input.f[hidden=3]", "kernel[:, 8]", "input"),
        ("torch.Conv2d", {}, {"group": 1, "in": 3, "out": 7, "kh": 2, "kw": 5}, "kernel[out=5]",
         "weight[5, :, :, :]", "kh kw in"),
        ("keras.Conv2D", {"groups": 3}, {"group": 3, "in": 2, "out": 4, "kh": 3, "kw": 5}, "kernel[filter=5]",
         "kernel[:, :, :, 5]", "kh kw in"),
        ("torch.MultiheadAttention", {"num_heads": 4}, {"kv": 4, "embed_q": 20, "head": 5}, "query[head=2]",
         "in_proj_weight[10:15, :]", "embed_q head"),
        ("keras.MultiHeadAttention", {}, {"kv": 3, "embed_q": 7, "head": 5, "value": 2, "embed_k": 11, "embed_v": 13,
         "out": 17}, "w_query[head=2]", "query/kernel[:, 2, :]", "embed_q head"),
    ],
)  # fmt: skip
def test_parts_of_any_framework(form: str, config: Any, sizes: Any, part: str, where: str, axes: str) -> None:
    if form == "torch.MultiheadAttention":
        sizes = {**sizes, "embed_k": 20, "embed_v": 20, "value": 5, "out": 20}
    found = lx.explain(form, part=part, sizes=sizes, config=config).to_dict()
    assert [w["slice"] for w in found["where"]] == [where]
    assert " ".join(axis for axis, _ in found["axes"]) == axes


def test_a_part_is_the_numbers_that_its_slice_names(tmp_path: Path) -> None:
    """For torch files, whose rows are what Keras' columns are: x @ part works for both."""
    view = lx.inspect(lstm(tmp_path))["rnn"]
    stored = view.arrays()
    np.testing.assert_array_equal(view.part("w_input.f"), stored["weight_ih_l0"][5:10].T)
    np.testing.assert_array_equal(view.part("recurrent.o"), stored["weight_hh_l0"][15:20].T)
    np.testing.assert_array_equal(view.part("b_input.g"), stored["bias_ih_l0"][10:15])
    np.testing.assert_array_equal(view.part("w_input.f", axes="hidden input"), stored["weight_ih_l0"][5:10])
    np.testing.assert_array_equal(view.part("w_input.f", hidden=3), stored["weight_ih_l0"][8])
    with pytest.raises(UsageError, match="hidden=5 is beyond w_input"):
        view.part("w_input.f[hidden=5]")
    with pytest.raises(UsageError, match="has no axis 'head'"):
        view.part("w_input.f", head=2)


# 4: axes


def test_rows_after_a_flatten() -> None:
    data = lx.explain(DIGITS, "dense1", axis="input").to_dict()
    (piece,) = data["pieces"]
    assert (piece["start"], piece["stop"], piece["from"]) == (0, 80, "conv2")
    assert piece["axes"] == [["h", 2], ["w", 2], ["c", 20]]
    assert "input number = h*40 + w*20 + c" in str(lx.explain(DIGITS, "dense1", axis="input"))


def test_the_second_input_is_concatenated_after_the_lstm(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    steps, aux = keras.Input((5, 7), name="steps"), keras.Input((1,), name="aux_input")
    both = keras.layers.Concatenate(name="both")([keras.layers.LSTM(128, name="lstm_1")(steps), aux])
    model = keras.Model([steps, aux], keras.layers.Dense(3, name="dense_1")(both))
    model.save(tmp_path / "two.keras")
    model.save(tmp_path / "two.h5")
    for given in (tmp_path / "two.keras", tmp_path / "two.h5", model):
        found = lx.explain(given, "dense_1", axis="input")
        pieces = found.to_dict()["pieces"]
        assert [(p["start"], p["stop"], p["from"]) for p in pieces] == [(0, 128, "lstm_1"), (128, 129, "aux_input")]
        assert [p["model_input"] for p in pieces] == [False, True]
        assert "0..127  lstm_1" in str(found)
        assert "128     aux_input (the model's input)" in str(found)


def test_a_live_torch_module_is_followed() -> None:
    torch = pytest.importorskip("torch")

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(2, 3, 3)
            self.side = torch.nn.Linear(5, 7)
            self.head = torch.nn.Linear(3 * 4 * 6 + 7, 2)

        def forward(self, x: Any, y: Any) -> Any:
            flat = torch.flatten(self.conv(x), 1)
            return self.head(torch.cat([flat, self.side(y)], 1))

    class One(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = torch.nn.Conv2d(2, 3, 3), torch.nn.Linear(3 * 4 * 6, 2)

        def forward(self, x: Any) -> Any:
            return self.head(torch.flatten(self.conv(x), 1))

    (piece,) = lx.explain(One(), "head", axis="input").to_dict()["pieces"]
    assert (piece["start"], piece["stop"], piece["from"]) == (0, 72, "conv")
    assert piece["axes"] == [["c", 3], ["h×w", 24]]  # a traced module tells no sizes
    program = torch.export.export(Two(), (torch.zeros(2, 2, 6, 8), torch.zeros(2, 5)))
    pieces = lx.explain(program, "head", axis="input").to_dict()["pieces"]
    assert [(p["start"], p["stop"], p["from"]) for p in pieces] == [(0, 72, "conv"), (72, 79, "side")]
    assert pieces[0]["axes"] == [["c", 3], ["h", 4], ["w", 6]]


def test_a_file_that_does_not_say_what_feeds_what(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be followed back") as error:
        lx.explain(lstm(tmp_path), "rnn", axis="input")
    assert "the file does not say what feeds what" in str(error.value)


# 5: by hand


def test_one_output_of_a_real_layer() -> None:
    x = np.random.default_rng(1).normal(size=(2, 8, 8, 1))
    found = lx.explain(DIGITS, "conv1", element=(1, 0, 3, 2), x=x)
    data = found.to_dict()
    kernel = lx.inspect(DIGITS)["conv1"].arrays()
    y = lx.forward("keras.Conv2D", kernel, x, {"padding": "same"})
    assert abs(data["value"] - y[1, 0, 3, 2]) < 1e-12
    assert "sum over kh<3, kw<3 of x[b, h + kh - 1, w + kw - 1, 0] * kernel[kh, kw, 0, o]" in data["formula"]
    assert "3 of the 9 products lie outside of x" in str(found)


def test_by_hand_needs_numbers() -> None:
    with pytest.raises(UsageError, match="holds no numbers"):
        lx.explain("keras.Dense", element=(0, 0), x=np.ones((1, 3)), sizes={"input": 3, "output": 2})
    with pytest.raises(UsageError, match="needs the layer's input"):
        lx.explain(DIGITS, "conv1", element=(0, 0, 0, 0))


@real
@pytest.mark.parametrize("path", sorted(MODELS.glob("dl4j-fixtures/*/*_model.h5")), ids=lambda p: p.stem)
def test_real_keras_files_by_hand(path: Path) -> None:
    """The first layer with weights, on the inputs and against the outputs that Keras wrote beside each file."""
    import h5py

    view = lx.inspect(path)
    with h5py.File(path.with_name(path.name.replace("_model", "_inputs_and_outputs"))) as file:
        x = np.asarray(next(iter(file["inputs"].values())), np.float64)
        outputs = {name: np.asarray(value) for name, value in file["outputs"].items()}
    layer = next(layer for layer in view if layer.tensors)
    assert layer.bound is not None
    config = {key: value for key, value in layer.bound.config.items() if key in layer.bound.form.config}
    y = lx.forward(layer.form, layer.arrays(), x, config)
    spot = tuple(n - 1 for n in y.shape)
    found = lx.explain(view, layer.name, element=spot, x=x)
    assert abs(found.to_dict()["value"] - y[spot]) < 1e-9 * max(1.0, abs(y[spot]))
    if (
        sum(bool(one.tensors) for one in view) == 1
        and len(outputs) == 1
        and next(iter(outputs.values())).shape == y.shape
    ):
        (wanted,) = outputs.values()
        assert abs(found.to_dict()["value"] - wanted[spot]) < 1e-5


@real
@pytest.mark.parametrize("path", sorted([*MODELS.rglob("*.h5"), *MODELS.rglob("*.onnx")]), ids=lambda p: p.stem)
def test_every_layer_of_every_real_file(path: Path) -> None:
    if "inputs_and_outputs" in path.name:
        return
    view = lx.inspect(path)
    whole = lx.explain(view)
    shown(whole)
    for layer in view:
        if layer.bound is None:
            continue
        shown(lx.explain(view, layer.name))
        for (role, labels), _ in list(layer.bound.places.items())[:3]:
            shown(lx.explain(view, layer.name, part=".".join((role, *(label for _, label in labels)))))
        for axis, pieces in layer.pieces.items():
            if any(piece.origins[0] != layer.name for piece in pieces):
                shown(lx.explain(view, layer.name, axis=axis))


def shown(found: Explained) -> None:
    """It prints in 99 columns, without a control character, as Markdown, HTML and JSON."""
    text = str(found)
    assert max(map(len, text.splitlines())) <= 99
    assert all(c.isprintable() for c in text.replace("\n", ""))
    assert "\x1b" not in text
    json.dumps(found.to_dict())
    assert found.markdown()
    assert found._repr_html_().startswith("<div")


def test_names_of_models_are_hostile(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>|[red]"
    save_file({f"{name}.weight": np.ones((3, 7)), f"{name}.bias": np.ones(3)}, tmp_path / "bad.safetensors")
    view = lx.inspect(tmp_path / "bad.safetensors", from_="torch")
    found = lx.explain(view, view.layers[0].name)
    shown(found)
    assert "<script>" not in found._repr_html_()
    assert "\\<script\\>" in found.markdown() or "<script" not in found.markdown().replace("```", "")


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, layoutx as lx; lx.explain(sys.argv[1], 'dense1').text(); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, str(DIGITS)], capture_output=True, text=True, check=True)
    loaded = set(eval(done.stdout))
    assert not loaded & {"torch", "tensorflow", "keras", "tf_keras", "jax", "onnx", "onnxruntime", "scipy"}


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["dense1"], 0, "dense1 is a Dense layer"),
        (["dense1", "--axis", "input", "--json"], 0, '"pieces"'),
        (["dense9"], 2, "no layer is called"),
        (["flatten"], 2, "has no weights"),
        (["dense1", "--to", "torch", "--markdown"], 0, "torch.Linear"),
    ],
)
def test_the_command(arguments: list[str], status: int, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    from layoutx.cli import main

    assert main(["explain", str(DIGITS), *arguments]) == status
    out = capsys.readouterr()
    assert word in out.out + out.err


def test_the_command_writes_a_picture(tmp_path: Path) -> None:
    from layoutx.cli import main

    assert main(["explain", str(DIGITS), "dense1", "--svg", str(tmp_path / "a.keras")]) == 2
    assert main(["explain", str(DIGITS), "dense1", "--svg", str(tmp_path / "a.svg")]) == 0
    assert (tmp_path / "a.svg").read_text().startswith("<svg")


def test_a_layer_is_found_by_the_end_of_its_name_and_near_names_are_told(nested: Path) -> None:
    assert lx.explain(nested, "d1").to_dict()["layer"] == "dec/d1"
    with pytest.raises(lx.UsageError, match="near it are dec/d1") as told:
        lx.explain(nested, "dec/d11")
    assert "layers are" not in str(told.value)
    with pytest.raises(lx.UsageError, match=r"there are .*dec/d1, dec/ln"):
        lx.explain(nested, "dec")


def test_input_is_the_axis_that_a_layer_reads_whatever_it_is_called(nested: Path) -> None:
    assert lx.explain(nested, "conv", axis="input").to_dict()["axis"] == "in"
    with pytest.raises(lx.UsageError, match="the layer itself makes it"):
        lx.explain(nested, "d1", axis="output")


def test_both_directions_are_named_where_the_axis_comes_from_a_bidirectional_layer(nested: Path) -> None:
    (piece,) = lx.explain(nested, "after", axis="input").to_dict()["pieces"]
    assert piece["axes"] == [["direction", 2], ["unit", 5]]


def test_a_part_of_both_directions_is_given_by_calls_that_work(nested: Path) -> None:
    text = " ".join(lx.explain(nested, "bi", part="w_input.f").text().split())
    assert '.part("w_input.forward.f"), likewise w_input.backward.f.' in text
    view = lx.inspect(nested)["bi"]
    assert view.part("w_input.forward.f").shape == view.part("w_input.backward.f").shape == (7, 5)
    with pytest.raises(lx.UsageError, match=r"near it are w_input\.backward\.f$"):
        lx.explain(nested, "bi", part="backward.w_input.f")


def test_a_filter_is_counted_over_the_groups() -> None:
    text = lx.explain("keras.Conv2D", sizes={"kh": 3, "kw": 2, "in": 5, "out": 3, "group": 2}).text(400)
    assert "6 filters, 2 groups" in text
    assert "All of filter 5: kernel[:, :, :, 5] here" in text
    whole = lx.explain("keras.MultiHeadAttention", sizes={"embed_q": 6, "embed_k": 6, "embed_v": 6, "out": 6},
                       config={"num_heads": 3, "key_dim": 2, "value_dim": 2}).text(400)  # fmt: skip
    assert "All of head 2: query/kernel[:, 2, :] here" in whole


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    inner = keras.Sequential([keras.Input((30,)), layers.Dense(3, name="d1"), layers.LayerNormalization(name="ln")])
    inner.name = "dec"
    x = keras.Input((7, 7, 2), name="x")
    rows = layers.Reshape((7, 14))(x)
    steps = layers.Conv1D(7, 2, name="conv")(layers.Conv1D(4, 1, name="first")(rows))
    y = layers.Dense(30, name="after")(layers.Bidirectional(layers.LSTM(5), name="bi")(steps))
    path = tmp_path_factory.mktemp("nested") / "nested.keras"
    keras.Model(x, inner(y)).save(path)
    return path
