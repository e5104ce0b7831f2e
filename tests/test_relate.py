"""Two whole files related: mistakes of another converter named from the numbers; nothing is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import layoutx as lx
from layoutx.cli import main


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Keras model and its right conversion to torch."""
    import keras

    folder = tmp_path_factory.mktemp("relate")
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 9, 3)),
            layers.Conv2D(5, 3, name="conv1"),
            layers.BatchNormalization(name="bn1"),
            layers.Conv2D(7, 2, name="conv2"),
            layers.Flatten(),
            layers.Dense(11, name="fc1"),
            layers.Reshape((1, 11)),
            layers.LSTM(6, name="lstm"),
            layers.Dense(6, name="fc2"),
            layers.Dense(6, name="fc3"),
        ]
    )
    rng = np.random.default_rng(3)
    for weight in model.weights:
        variance = "variance" in weight.path
        weight.assign(rng.uniform(0.5, 2, weight.shape) if variance else rng.normal(size=weight.shape))
    model.save(folder / "m.keras")
    lx.convert(folder / "m.keras", folder / "m.safetensors", to="torch", live=False)
    return folder


def changed(files: Path, name: str, tensors: Mapping[str, Any], without: str = "-") -> Path:
    """The right conversion with some tensors replaced, and others left out."""
    right = {k: v for k, v in load_file(files / "m.safetensors").items() if not k.startswith(without)}
    save_file({**right, **{k: np.ascontiguousarray(v) for k, v in tensors.items()}}, files / name)
    return files / name


def by_name(found: Any) -> dict[str, Any]:
    return {layer.names[t.name]: t for layer in found.layers for t in layer.tensors}


def test_a_right_conversion_says_so_in_one_sentence(files: Path) -> None:
    for a, b, count in (("m.keras", "m.safetensors", 19), ("m.safetensors", "m.keras", 17)):
        found = lx.relate(files / a, files / b)
        assert found.ok
        said = " ".join(found.text().split())
        assert said == f"{a} and {b} hold the same numbers: {count} tensors as the registry says, bit for bit."


@pytest.mark.parametrize("name", ["m.keras", "m.safetensors"])
def test_a_file_and_itself(files: Path, name: str) -> None:
    assert lx.relate(files / name, files / name).ok


def test_mistakes_of_another_converter(files: Path) -> None:
    right = load_file(files / "m.safetensors")
    order = [0, 1, 3, 2]
    lstm = {k: v.reshape(4, 6, -1)[order].reshape(v.shape) for k, v in right.items() if k.startswith("lstm")}
    lstm["lstm.bias_ih_l0"][6:12] += 1
    rows = right["fc1.weight"].reshape(11, 7, 5, 6).transpose(0, 2, 3, 1).reshape(11, 210)
    tensors = {
        **lstm,
        "conv1.weight": right["conv1.weight"][:, :, ::-1, ::-1],
        "fc1.weight": rows,
        "fc2.weight": right["fc2.weight"].T,
        "fc3.weight": right["fc2.weight"],
        "bn1.running_var": np.sqrt(right["bn1.running_var"] + np.float32(1e-3)),
    }
    path = changed(files, "bad.safetensors", tensors)
    found = lx.relate(files / "m.keras", path)
    tensor = by_name(found)
    assert not found.ok
    assert found.explained
    assert tensor["conv1.weight"].holds == "kernel: out in -kh -kw"
    assert tensor["fc1.weight"].holds == "kernel: output (h w c)"
    assert tensor["fc1.weight"].reads == "kernel: output (c h w)"
    assert tensor["fc2.weight"].holds == "kernel: input output"
    assert tensor["fc3.weight"].words[0] == "it holds the numbers of fc2 kernel"
    assert tensor["bn1.running_var"].words[0] == "variance: root of (x + 0.001)"
    assert "b_input.f + 1" in tensor["lstm.bias_ih_l0"].words
    layer = next(layer for layer in found.layers if layer.name == "lstm")
    assert layer.summary == ("written as if the gate order were i f o g",)
    assert {name for name, t in tensor.items() if not t.fine} == {
        *(name for name in tensors if name != "lstm.bias_hh_l0"),
    }
    text = found.text()
    assert "holds  w_input: (gate[i f o g] hidden) input" in text
    assert max(map(len, text.split("\n"))) < 100


def test_a_folded_batch_norm_is_named(files: Path) -> None:
    right = load_file(files / "m.safetensors")
    factor = right["bn1.weight"] / np.sqrt(right["bn1.running_var"] + 1e-3)
    tensors = {
        "conv1.weight": right["conv1.weight"] * factor[:, None, None, None],
        "conv1.bias": (right["conv1.bias"] - right["bn1.running_mean"]) * factor + right["bn1.bias"],
    }
    path = changed(files, "folded.safetensors", {k: v.astype("f4") for k, v in tensors.items()}, "bn1")
    found = lx.relate(files / "m.keras", path)
    assert found.lost == {"bn1": "folded into conv1"}
    for name in tensors:
        assert by_name(found)[name].words[0].startswith("batch norm bn1 is folded in: ")
    assert found.explained
    assert not found.ok


def test_rounded_files_are_right(files: Path) -> None:
    right = load_file(files / "m.safetensors")
    half = {k: v.astype("f2") for k, v in right.items() if v.dtype == np.float32}
    found = lx.relate(files / "m.keras", changed(files, "half.safetensors", half))
    assert found.ok
    assert "17 rounded to float16" in " ".join(found.text().split())
    found = lx.relate(changed(files, "half.safetensors", half), files / "m.keras")
    assert found.ok


def test_tensors_without_a_form_are_related_by_their_names_and_values(files: Path) -> None:
    rng = np.random.default_rng(8)
    table = rng.normal(size=(5, 7, 3)).astype("f4")
    save_file({"gate.theta": table, "gate.phi": table[0] * 3, "n": np.arange(4)}, files / "own.safetensors")
    turned = {"gate.theta": np.ascontiguousarray(table.transpose(2, 0, 1)), "gate.phi": table[0] * 6, "n": np.arange(4)}
    save_file(turned, files / "turned.safetensors")
    assert lx.relate(files / "own.safetensors", files / "own.safetensors").ok
    found = lx.relate(files / "own.safetensors", files / "turned.safetensors")
    loose = {one.name: one for one in found.loose}
    assert loose["gate.theta"].holds == "gate.theta: d2 d0 d1"
    assert loose["gate.phi"].words == ("its numbers: x 2",)
    assert loose["n"].fine
    assert not found.ok


def test_the_command(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keras, right = str(files / "m.keras"), str(files / "m.safetensors")
    assert main(["relate", keras, right]) == 0
    assert "bit for bit" in " ".join(capsys.readouterr().out.split())
    tensors = {"fc2.weight": load_file(right)["fc2.weight"].T}
    assert main(["relate", keras, str(changed(files, "one.safetensors", tensors)), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    wrong = [t for layer in told["layers"] for t in layer["tensors"] if t["status"] != "same"]
    assert [(t["name"], t["status"], t["holds"], t["exact"]) for t in wrong] == [
        ("fc2.weight", "layout", "kernel: input output", True)
    ]
    assert wrong[0]["right"] == "kernel: input output to kernel: output input"
    assert main(["relate", keras, "nothing.safetensors"]) != 0


PAIRS = (
    ("cnn_max_mnist2.h5", "cnn_max_mninst2.onnx", 8),
    ("cnn_max_mnist3.h5", "cnn_max_mninst3.onnx", 8),
    ("fc_2-2sigmoids-3.h5", "fc_2-2sigmoids-3.onnx", 4),
    ("robust_mnist_sigmoid_linear.h5", "robust_model_sigmoid_linear.onnx", 6),
)


@pytest.mark.parametrize(("keras", "onnx", "count"), PAIRS)
def test_real_keras_models_and_their_onnx_exports(models: Path, keras: str, onnx: str, count: int) -> None:
    folder = models / "marabou-mnist"
    found = lx.relate(folder / keras, folder / onnx)
    assert found.ok
    assert len(by_name(found)) == count
    assert all(t.exact for t in by_name(found).values())
    assert lx.relate(folder / onnx, folder / keras).ok


def test_the_flatten_order_of_a_real_export(models: Path, tmp_path: Path) -> None:
    """The ONNX graph flattens channels-last as Keras does; torch would need its rows in another order."""
    folder = models / "marabou-mnist"
    found = lx.relate(folder / PAIRS[0][0], folder / PAIRS[0][1])
    assert any("(h w c)" in t.holds for t in by_name(found).values())
    lx.convert(folder / PAIRS[0][0], tmp_path / "kept.safetensors", to="torch", keep_order=True, live=False)
    wrong = lx.relate(folder / PAIRS[0][0], tmp_path / "kept.safetensors")
    rows = by_name(wrong)["dense_14.weight"]
    assert (rows.holds, rows.reads) == ("kernel: output (h w c)", "kernel: output (c h w)")
    assert sum(not t.fine for t in by_name(wrong).values()) == 1


def test_two_trainings_are_not_related(models: Path) -> None:
    folder = models / "marabou-mnist"
    found = lx.relate(folder / PAIRS[0][0], folder / PAIRS[1][0])
    assert not found.ok
    assert not found.explained
    assert not any(t.exact for t in by_name(found).values())


def test_numbers_that_became_infinite_are_no_rounding() -> None:
    import copy

    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    layer.weight.data[0, 0] = 1e6
    found = lx.relate(layer, copy.deepcopy(layer).half())
    assert not found.ok
    assert "1 numbers were too large for float16" in " ".join(str(found).split())
