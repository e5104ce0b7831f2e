"""TensorFlow 1 files of the libraries of their time: what they call their variables, and where these go in torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import layoutx as lx
from layoutx.errors import LayoutxError
from layoutx.model.tf1_names import today

RNG = np.random.default_rng(31)
NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def written(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Path, dict[str, np.ndarray]]:
    """A file of these names, as `np.savez` of what a checkpoint's reader gives, and its numbers."""
    arrays = {name: RNG.uniform(0.5, 1.5, shape).astype("float32") for name, shape in shapes.items()}
    np.savez(path / "m.npz", **arrays)
    return path / "m.npz", arrays


def same(module: nn.Module, expected: Mapping[str, np.ndarray]) -> None:
    state = module.state_dict()
    for name, array in expected.items():
        np.testing.assert_array_equal(state[name].numpy(), array, err_msg=name)


@pytest.mark.parametrize(
    ("own", "now"),
    [
        (("net/conv1/weights", "net/conv1/biases"), ("net/conv1/kernel", "net/conv1/bias")),
        (("up/depthwise_weights", "up/pointwise_weights"), ("up/depthwise_kernel", "up/pointwise_kernel")),
        (("mlp/linear_0/w", "mlp/linear_0/b"), ("mlp/linear_0/kernel", "mlp/linear_0/bias")),
        (("FullyConnected/W", "FullyConnected/b"), ("FullyConnected/kernel", "FullyConnected/bias")),
        (("model/h0/ln_1/g", "model/h0/ln_1/b"), ("model/h0/ln_1/gamma", "model/h0/ln_1/beta")),
        (("layer_norm/layer_norm_scale", "layer_norm/layer_norm_bias"), ("layer_norm/gamma", "layer_norm/beta")),
        (("RNN/GRUCell/Gates/Linear/Matrix",), ("RNN/GRUCell/Gates/kernel",)),
        (("rnn/lstm_cell/weights", "rnn/lstm_cell/biases"), ("rnn/lstm_cell/kernel", "rnn/lstm_cell/bias")),
        (("bn/mean/EMA", "bn/variance/EMA", "bn/gamma"), ("bn/moving_mean", "bn/moving_variance", "bn/gamma")),
        (("fc/kernel/ExponentialMovingAverage",), ("fc/kernel",)),
        (("W_fc1", "b_fc1", "softmax_w", "softmax_b"), ("fc1/kernel", "fc1/bias", "softmax/kernel", "softmax/bias")),
        (("w1", "b1"), ("layer1/kernel", "layer1/bias")),
        # nothing of one library alone, and nothing that is there already
        (("att/W", "att/b", "att/v"), ("att/W", "att/b", "att/v")),
        (("fc/weights", "fc/kernel"), ("fc/weights", "fc/kernel")),
        (("W_fc1", "b_fc1", "fc1/kernel"), ("W_fc1", "b_fc1", "fc1/kernel")),
        (("W_1", "W_2", "b_3"), ("W_1", "W_2", "b_3")),
        (("output_weights", "output_bias"), ("output_weights", "output_bias")),
    ],
)
def test_variables_are_called_as_tf_layers_calls_them(own: tuple[str, ...], now: tuple[str, ...]) -> None:
    names = {name.replace("/", "."): name for name in own}
    assert today(names) == {name.replace("/", "."): file for name, file in zip(now, own, strict=True)}


class Unit(nn.Module):
    """Two convolutions with a norm each, and a third on the way beside them where the width changes."""

    def __init__(self, width: int, out: int, *, turn: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = nn.Sequential(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)) if turn else None

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return y + (x if self.downsample is None else self.downsample(x))


class Residual(nn.Module):
    """Units of one shape in two stages; all but names and wiring is ambiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(Unit(4, 8, turn=True), Unit(8, 8, turn=False))
        self.layer2 = nn.Sequential(Unit(8, 12, turn=True), Unit(12, 12, turn=False))
        self.fc = nn.Conv2d(12, 5, 1)

    def forward(self, x: Any) -> Any:
        return self.fc(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))


def residual_names() -> dict[str, str]:
    """Module path of each convolution, norms beside them left out -> its scope in slim's way of naming."""
    found = {"conv1": "resnet_v1_8/conv1"}
    for stage in (1, 2):
        for unit in (0, 1):
            scope = f"resnet_v1_8/block{stage}/unit_{unit + 1}/bottleneck_v1"
            found |= {f"layer{stage}.{unit}.conv{k}": f"{scope}/conv{k}" for k in (1, 2)}
        found[f"layer{stage}.0.downsample.0"] = f"resnet_v1_8/block{stage}/unit_1/bottleneck_v1/shortcut"
    return found


def norm_of(path: str) -> str:
    return path.replace("downsample.0", "downsample.1") if "downsample" in path else path.replace("conv", "bn")


def test_a_residual_network_of_slim_finds_every_place(tmp_path: Path) -> None:
    module = Residual().eval()
    state, names = module.state_dict(), residual_names()
    shapes: dict[str, tuple[int, ...]] = {
        "resnet_v1_8/logits/weights": (1, 1, 12, 5),
        "resnet_v1_8/logits/biases": (5,),
    }
    for path, scope in names.items():
        out, width, *window = state[f"{path}.weight"].shape
        shapes[f"{scope}/weights"] = (*window, width, out)
        shapes |= {f"{scope}/BatchNorm/{name}": (out,) for name in NORM}
    path, arrays = written(tmp_path, shapes)
    report = lx.port(path, module, from_="tf1")
    assert len(report.layers) == 2 * len(names) + 1
    expected = {"fc.weight": arrays["resnet_v1_8/logits/weights"].transpose(3, 2, 0, 1)}
    for place, scope in names.items():
        expected[f"{place}.weight"] = arrays[f"{scope}/weights"].transpose(3, 2, 0, 1)
        own = [arrays[f"{scope}/BatchNorm/{name}"] for name in NORM]
        ends = ("weight", "bias", "running_mean", "running_var")
        expected |= {f"{norm_of(place)}.{end}": array for end, array in zip(ends, own, strict=True)}
    same(module, expected)


def test_the_norm_in_its_scope_tells_a_convolution_from_a_transposed_one(tmp_path: Path) -> None:
    shapes = {"net/a/weights": (3, 3, 4, 8), "net/a/BatchNorm/beta": (8,)}
    shapes |= {"net/b/weights": (3, 3, 4, 8), "net/b/BatchNorm/beta": (4,)}
    shapes |= {"net/c/weights": (3, 3, 4, 8), "net/up_conv1/weights": (3, 3, 8, 8), "net/deconv2/weights": (3, 3, 8, 8)}
    path, _ = written(tmp_path, shapes)
    forms = {layer.name: layer.form for layer in lx.inspect(path, from_="tf1").layers}
    assert forms["net.a"] == "tf1.Conv2D"
    assert forms["net.b"] == "tf1.Conv2DTranspose"
    assert forms["net.c"] == ""
    assert (forms["net.up_conv1"], forms["net.deconv2"]) == ("tf1.Conv2D", "tf1.Conv2DTranspose")


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")}),
                "output": nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width)}),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 9)})
        self.output = nn.ModuleDict({"dense": nn.Linear(9, width), "LayerNorm": nn.LayerNorm(width)})


class Encoder(nn.Module):
    """Named as Google's BERT is, with the numbers of its blocks in a list."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        tables = {"word_embeddings": 11, "position_embeddings": 7, "token_type_embeddings": 2}
        self.embeddings = nn.ModuleDict({name: nn.Embedding(rows, width) for name, rows in tables.items()})
        self.embeddings["LayerNorm"] = nn.LayerNorm(width)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList([Block(width), Block(width)])})
        self.classifier = nn.Linear(width, 3)


def bert_names(module: nn.Module) -> dict[str, str]:
    """Module's own name -> the one in Google's file."""
    ends = {"weight": "kernel", "bias": "bias"}
    norms = {"weight": "gamma", "bias": "beta"}
    found = {}
    for name in module.state_dict():
        path, _, last = name.rpartition(".")
        scope = path.replace("encoder.layer.", "encoder.layer_").replace(".", "/")
        last = norms[last] if path.endswith("LayerNorm") else ends[last]
        found[name] = f"bert/{scope}" if "_embeddings" in path else f"bert/{scope}/{last}"
    return found | {"classifier.weight": "output_weights", "classifier.bias": "output_bias"}


def test_googles_bert_goes_where_its_names_say(tmp_path: Path) -> None:
    module = Encoder()
    state, names = module.state_dict(), bert_names(module)
    turned = {name for name in names if name.endswith(".weight") and names[name].endswith("/kernel")}
    shapes = {own: tuple(state[name].T.shape if name in turned else state[name].shape) for name, own in names.items()}
    path, arrays = written(tmp_path, shapes)
    report = lx.port(path, module, from_="tf1")
    assert len(report.layers) == 3 + 1 + 2 * 8 + 1
    same(module, {name: arrays[own].T if name in turned else arrays[own] for name, own in names.items()})


def test_what_a_module_defines_first_is_not_taken_for_what_it_calls_first(tmp_path: Path) -> None:
    """The outer norm is defined before the module that holds the inner one, and called after it."""
    module = nn.ModuleDict({"full_norm": nn.LayerNorm(6), "attention": nn.ModuleDict({"norm": nn.LayerNorm(6)})})
    names = ("group/LayerNorm/beta", "group/LayerNorm/gamma", "group/LayerNorm_1/beta", "group/LayerNorm_1/gamma")
    path, arrays = written(tmp_path, dict.fromkeys(names, (6,)))
    with pytest.raises(LayoutxError, match="fits several places"):
        lx.port(path, module, from_="tf1")
    lx.port(path, module, from_="tf1", pairs={"group.LayerNorm": "attention.norm"})
    same(module, {"attention.norm.weight": arrays[names[1]], "full_norm.weight": arrays[names[3]]})


def test_norms_of_other_kinds_are_known_by_their_scopes(tmp_path: Path) -> None:
    shapes = {f"{scope}/{name}": (6,) for scope in ("a/InstanceNorm", "b/LayerNorm_1", "c/norm") for name in NORM[:2]}
    path, _ = written(tmp_path, shapes)
    view = lx.inspect(path, from_="tf1")
    forms = {layer.name: layer.form for layer in view.layers}
    assert forms == {"a.InstanceNorm": "tf1.InstanceNorm", "b.LayerNorm_1": "tf1.LayerNorm", "c.norm": ""}


def test_a_script_that_names_each_variable(tmp_path: Path) -> None:
    module = nn.ModuleDict({"conv1": nn.Conv2d(1, 4, 5), "fc1": nn.Linear(8, 6), "fc2": nn.Linear(6, 6)})
    shapes = {"W_conv1": (5, 5, 1, 4), "W_fc1": (8, 6), "W_fc2": (6, 6)}
    shapes |= {"b_conv1": (4,), "b_fc1": (6,), "b_fc2": (6,)}
    path, arrays = written(tmp_path, shapes)
    with pytest.raises(LayoutxError, match=r"order of the 8 input rows of fc1[\s\S]+old-tensorflow"):
        lx.port(path, module, from_="tf1")
    lx.port(path, module, from_="tf1", keep_order=["fc1"])
    expected = {f"fc{k}.weight": arrays[f"W_fc{k}"].T for k in (1, 2)}
    same(module, expected | {"conv1.weight": arrays["W_conv1"].transpose(3, 2, 0, 1), "fc2.bias": arrays["b_fc2"]})


def test_a_depthwise_convolution_of_slim(tmp_path: Path) -> None:
    path, arrays = written(tmp_path, {"net/dw/depthwise_weights": (3, 3, 6, 1), "net/dw/biases": (6,)})
    module = nn.Sequential(nn.Conv2d(6, 6, 3, groups=6))
    lx.port(path, module, from_="tf1")
    same(module, {"0.weight": arrays["net/dw/depthwise_weights"].transpose(2, 3, 0, 1)})


def test_shapes_tell_the_tensors_of_a_form_that_the_user_gave(tmp_path: Path) -> None:
    path, arrays = written(tmp_path, {"net/alpha": (5,), "net/omega": (7, 5), "old/alpha": (6,), "old/beta2": (6,)})
    module = nn.ModuleDict({"fc": nn.Linear(7, 5)})
    lx.port(path, module, from_="tf1", forms={"net": "tf1.Dense"}, skip=["old"])
    same(module, {"fc.weight": arrays["net/omega"].T, "fc.bias": arrays["net/alpha"]})
    with pytest.raises(LayoutxError, match=r"does not hold what tf1\.LayerNorm stores"):
        lx.port(path, module, from_="tf1", forms={"net": "tf1.Dense", "old": "tf1.LayerNorm"})


def test_the_old_cells_compute_what_they_did(tmp_path: Path) -> None:
    """Names of TensorFlow 0.12: the gates are i j f o, and one is added to the forget gate when it runs."""
    scope = "RNN/MultiRNNCell/Cell0/BasicLSTMCell/Linear"
    path, arrays = written(tmp_path, {f"{scope}/Matrix": (7 + 3, 12), f"{scope}/Bias": (12,)})
    module = nn.ModuleDict({"lstm": nn.LSTM(7, 3, batch_first=True)})
    lx.port(path, module, from_="tf1", allow=["rounds"])
    i, j, f, o = np.split(arrays[f"{scope}/Matrix"], 4, axis=1)
    kernel = np.concatenate([i, f, j, o], axis=1)
    same(module, {"lstm.weight_ih_l0": kernel[:7].T, "lstm.weight_hh_l0": kernel[7:].T})
    forget = module["lstm"].bias_ih_l0.detach() + module["lstm"].bias_hh_l0.detach()
    torch.testing.assert_close(forget[3:6], torch.from_numpy(arrays[f"{scope}/Bias"][6:9] + 1))


def test_a_cell_that_reads_both_ways_takes_the_whole_keras_layer(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    shapes = {f"bidirectional_rnn/{way}/lstm_cell/kernel": (7 + 3, 12) for way in ("fw", "bw")}
    shapes |= {f"bidirectional_rnn/{way}/lstm_cell/bias": (12,) for way in ("fw", "bw")}
    path, arrays = written(tmp_path, shapes)
    layer = keras.layers.Bidirectional(keras.layers.LSTM(3), name="both")
    model = keras.Sequential([keras.layers.Input((5, 7)), layer])
    lx.port(path, model, from_="tf1", allow=["rounds"])
    for at, way in ((0, "fw"), (3, "bw")):
        i, j, f, o = np.split(arrays[f"bidirectional_rnn/{way}/lstm_cell/kernel"], 4, axis=1)
        np.testing.assert_array_equal(layer.get_weights()[at], np.concatenate([i, f, j, o], axis=1)[:7])


def test_a_bias_that_the_other_layer_has_no_use_for_is_told(tmp_path: Path) -> None:
    """The reset gate of GRUCell comes before the product: Keras' default keeps a second bias for the other way."""
    keras = pytest.importorskip("keras")
    parts = {"gates": 6, "candidate": 3}
    shapes: dict[str, tuple[int, ...]] = {f"rnn/gru_cell/{part}/kernel": (7 + 3, n) for part, n in parts.items()}
    path, _ = written(tmp_path, shapes | {f"rnn/gru_cell/{part}/bias": (n,) for part, n in parts.items()})
    model = keras.Sequential([keras.layers.Input((5, 7)), keras.layers.GRU(3, name="gru")])
    with pytest.raises(LayoutxError, match=r"gru\.bias is in the place of rnn\.gru_cell, which has nothing for it"):
        lx.port(path, model, from_="tf1")
    old = keras.Sequential([keras.layers.Input((5, 7)), keras.layers.GRU(3, reset_after=False)])
    assert len(lx.port(path, old, from_="tf1").layers) == 1


def test_what_optimizers_keep_is_left_out_of_any_file(tmp_path: Path) -> None:
    slots = ("", "/Adam", "/Adam_1", "/ExponentialMovingAverage")
    path, arrays = written(tmp_path, {f"fc/kernel{slot}": (4, 3) for slot in slots} | {"global_step": ()})
    module = nn.ModuleDict({"fc": nn.Linear(4, 3, bias=False)})
    report = lx.port(path, module, from_="tf1")
    same(module, {"fc.weight": arrays["fc/kernel"].T})
    assert set(report.leftover) == {"global_step", *(f"fc/kernel{slot}" for slot in slots[1:])}
