"""Whole ONNX models: torch's own exports and graphs as Keras' exporters write them, both ways, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from onnx_runs import apart, emptied, run
from torch import nn

from layoutx.convert import convert
from layoutx.errors import LayoutxError
from layoutx.files.open import open_store
from layoutx.port import port

onnx = pytest.importorskip("onnx", reason="ONNX files need the onnx package")
ort = pytest.importorskip("onnxruntime", reason="ONNX models are run by onnxruntime")
helper, numpy_helper, FLOAT = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
rng = np.random.default_rng(13)
Array = np.ndarray


class Digits(nn.Module):
    """Maps flattened channels first, norms, slopes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.BatchNorm2d(5), nn.MaxPool2d(2))
        self.slope = nn.PReLU(5)
        self.last = nn.Sequential(nn.Sequential(nn.Conv2d(5, 7, 2)))
        self.fc1 = nn.Linear(7 * 2 * 3, 11)
        self.norm = nn.LayerNorm(11)
        self.fc2 = nn.Linear(11, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.last(self.slope(self.features(x))))
        return self.fc2(self.norm(torch.relu(self.fc1(x.view(x.size(0), -1)))))


class Words(nn.Module):
    """Everything recurrent, stacked and both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(13, 5)
        self.lstm = nn.LSTM(5, 7, num_layers=2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(14, 3, batch_first=True)
        self.proj = nn.Linear(3, 2)
        self.rnn = nn.RNN(2, 3, nonlinearity="relu", batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.lstm(self.emb(x))
        y, _ = self.gru(y)
        y, _ = self.rnn(self.proj(y))
        return y[:, -1]


class Generator(nn.Module):
    """A vector that becomes a map."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 7 * 3 * 5)
        self.up = nn.ConvTranspose2d(7, 3, 3, stride=2)
        self.norm = nn.InstanceNorm2d(3, affine=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(torch.tanh(self.up(self.fc(x).view(-1, 7, 3, 5))))


MODULES: dict[str, tuple[Callable[[], nn.Module], Callable[[], torch.Tensor]]] = {
    "digits": (Digits, lambda: torch.randn(2, 3, 9, 10)),
    "words": (Words, lambda: torch.randint(0, 13, (2, 6))),
    "generator": (Generator, lambda: torch.randn(3, 2)),
}


def trained_module(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A module whose every tensor has moved away from its initial value, and an input."""
    torch.manual_seed(5)
    module = MODULES[name][0]()
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                value.copy_(torch.rand_like(value) + 0.5 if key.endswith("var") else torch.randn_like(value) * 0.4)
    return module.eval(), MODULES[name][1]()


def exported(module: nn.Module, x: torch.Tensor, path: Path, dynamo: bool = False, **more: Any) -> Path:
    """torch's own export."""
    if not dynamo:
        more = {"dynamic_axes": {"x": {0: "n"}}, **more}
    names = {"input_names": ["x"], "output_names": ["y"]}
    torch.onnx.export(module, (x,), path, dynamo=dynamo, opset_version=17 if not dynamo else 18, **names, **more)
    return path


EXPORTS = [(exporter, name) for exporter in ("torchscript", "unfolded", "dynamo") for name in MODULES]
EXPORTS.remove(("dynamo", "words"))  # it writes an nn.RNN out step by step; test_onnx_exporters.py has LSTM and GRU


@pytest.mark.parametrize(("exporter", "name"), EXPORTS)
def test_torch_exports_become_the_state_dict_again(name: str, exporter: str, tmp_path: Path) -> None:
    """Bit for bit, and under torch's own names, also where the exporter renamed what it folded."""
    if exporter == "dynamo":
        pytest.importorskip("onnxscript", reason="torch's new exporter needs onnxscript")
    module, x = trained_module(name)
    more = {"do_constant_folding": False} if exporter == "unfolded" else {}
    path = exported(module, x, tmp_path / "m.onnx", exporter == "dynamo", **more)
    report = convert(path, tmp_path / "out.safetensors", to="torch")
    computed = exporter == "unfolded" and name in ("words", "digits")
    assert report.exactness != "rounds"  # what the graph computes only moves numbers
    assert "computed" not in report.round_trip
    assert ("computed in the graph by Unsqueeze" in report.text(200)) is computed
    found = open_store(tmp_path / "out.safetensors").tensors
    for key, value in module.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert found[key].read().tobytes() == value.numpy().tobytes(), key
    port(path, fresh := MODULES[name][0]())
    assert torch.equal(fresh.eval()(x), module(x))


@pytest.mark.parametrize("name", MODULES)
def test_a_state_dict_into_the_export_of_another_training(name: str, tmp_path: Path) -> None:
    module, x = trained_module(name)
    template = emptied(exported(module, x, tmp_path / "m.onnx"))
    torch.save(module.state_dict(), tmp_path / "m.pt")
    skip = [] if name != "digits" else ["*num_batches_tracked"]
    report = convert(tmp_path / "m.pt", tmp_path / "out.onnx", to="onnx", like=template, skip=skip)
    assert report.round_trip == "bit-exact"
    found = run(tmp_path / "out.onnx", x.numpy())
    assert apart(found, module(x).detach().numpy()) < 1e-5
    assert apart(found, run(tmp_path / "m.onnx", x.numpy())) == 0


class Tied(nn.Module):
    """An embedding whose table is the last layer's weight, and one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(13, 7)
        self.fc = nn.Linear(7, 7)
        self.head = nn.Linear(7, 13, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.fc(torch.tanh(self.fc(self.wte(x)))))


@pytest.mark.parametrize("given", [True, False])
def test_a_live_graph_is_run_as_its_file_is(given: bool, tmp_path: Path) -> None:
    module, x = trained_module("generator")
    target = MODULES["generator"][0]().eval()
    found = port(onnx.load(exported(module, x, tmp_path / "m.onnx")), target, x.numpy() if given else None)
    assert found.end_to_end is not None
    assert found.end_to_end.agrees
    assert apart(target(x).detach(), module(x).detach()) < 1e-5


def test_tied_weights(tmp_path: Path) -> None:
    """One initializer for two layers: both names for torch; on the way back both have to agree."""
    torch.manual_seed(7)
    module, x = Tied(), torch.randint(0, 13, (2, 5))
    nodes = [
        node("Gather", "wte.weight x", "e", "/wte/Gather"),
        node("Gemm", "e fc.weight fc.bias", "f", "/fc/Gemm", transB=1),
        node("Tanh", "f", "t"),
        node("Gemm", "t fc.weight fc.bias", "g", "/fc/Gemm_1", transB=1),
        node("Transpose", "wte.weight", "turned", perm=[1, 0]),
        node("MatMul", "g turned", "y", "/head/MatMul"),
    ]
    weights = {"wte.weight": (13, 7), "fc.weight": (7, 7), "fc.bias": (7,)}
    template = graph(tmp_path / "t.onnx", nodes, ["n"], weights, onnx.TensorProto.INT64)
    torch.save(module.state_dict(), tmp_path / "m.pt")
    convert(tmp_path / "m.pt", tmp_path / "m.onnx", to="onnx", like=template)
    assert apart(run(tmp_path / "m.onnx", x[0].numpy()), module(x[0]).detach()) < 1e-5
    convert(tmp_path / "m.onnx", tmp_path / "back.pt", to="torch")
    back = torch.load(tmp_path / "back.pt")
    assert back.keys() == module.state_dict().keys()
    assert all(torch.equal(back[key], value) for key, value in module.state_dict().items())
    back["head.weight"] += 1
    torch.save(back, tmp_path / "untied.pt")
    with pytest.raises(LayoutxError, match="written twice with different numbers"):
        convert(tmp_path / "untied.pt", tmp_path / "no.onnx", to="onnx", like=template)


# -- Keras ---------------------------------------------------------------------------------------------------------


def shaken(model: Any) -> Any:
    """Every weight away from its initial value."""
    for weight in model.weights:
        value = rng.normal(size=weight.shape) * 0.4
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value)
    return model


def digits(first: int = 5) -> Any:
    """The Keras counterpart of `Digits`, without its slopes."""
    layers = [
        keras.layers.Conv2D(first, 3, activation="relu"),
        keras.layers.BatchNormalization(epsilon=1e-5),
        keras.layers.MaxPooling2D(2),
        keras.layers.Conv2D(7, 2, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(11, activation="relu"),
        keras.layers.LayerNormalization(epsilon=1e-5),
        keras.layers.Dense(2),
    ]
    return shaken(keras.Sequential([keras.Input((9, 10, 3)), *layers]))


def node(op: str, inputs: str, output: str, name: str = "", **attributes: Any) -> Any:
    """One node; inputs with blanks between."""
    return helper.make_node(op, ["" if x == "_" else x for x in inputs.split()], output.split(), name, **attributes)


def graph(path: Path, nodes: Sequence[Any], shape: Sequence[Any], weights: dict[str, Any], kind: int = FLOAT) -> Path:
    """A model with input x and output y; a weight is its shape (all zero then) or an array."""
    arrays = {k: np.zeros(v, "f4") if isinstance(v, tuple) else v for k, v in weights.items()}
    made = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def as_tf2onnx(path: Path, turned: bool = True) -> Path:
    """The graph of `digits`: channels last outside, channels first within, MatMul and Add; all weights zero.

    Without `turned` the map is flattened channels first: the same shapes, another model.
    """
    back = [node("Transpose", "k2", "last", perm=[0, 2, 3, 1])] if turned else [node("Identity", "k2", "last")]
    nodes = [
        node("Transpose", "x", "first", perm=[0, 3, 1, 2]),
        node("Conv", "first s/conv2d/kernel s/conv2d/bias", "c1", "s/conv2d/Conv2D"),
        node("Relu", "c1", "r1"),
        node("BatchNormalization", "r1 gamma beta mean var", "b1", "s/bn/FusedBatchNormV3"),
        node("MaxPool", "b1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p1 s/conv2d_1/kernel s/conv2d_1/bias", "c2", "s/conv2d_1/Conv2D"),
        node("Relu", "c2", "k2"),
        *back,
        node("Reshape", "last shape", "flat"),
        node("MatMul", "flat s/dense/kernel", "m1", "s/dense/MatMul"),
        node("Add", "m1 s/dense/bias", "a1", "s/dense/BiasAdd"),
        node("Relu", "a1", "r3"),
        node("LayerNormalization", "r3 scale shift", "n1", "s/norm/Norm"),
        node("MatMul", "n1 s/dense_1/kernel", "m2", "s/dense_1/MatMul"),
        node("Add", "m2 s/dense_1/bias", "y", "s/dense_1/BiasAdd"),
    ]
    weights = {"s/conv2d/kernel": (5, 3, 3, 3), "s/conv2d/bias": (5,), **dict.fromkeys(("gamma", "beta"), (5,))}
    weights |= {"mean": (5,), "var": (5,), "s/conv2d_1/kernel": (7, 5, 2, 2), "s/conv2d_1/bias": (7,)}
    weights |= {"shape": np.array([-1, 42]), "s/dense/kernel": (42, 11), "s/dense/bias": (11,), "scale": (11,)}
    weights |= {"shift": (11,), "s/dense_1/kernel": (11, 2), "s/dense_1/bias": (2,)}
    return graph(path, nodes, ["n", 9, 10, 3], weights)


def test_keras_into_a_graph_that_keras_exported_and_back(tmp_path: Path) -> None:
    """Rows stay where the graph turns the map back; the way back gives the same file."""
    model = digits()
    model.save(tmp_path / "m.keras")
    report = convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=as_tf2onnx(tmp_path / "t.onnx"))
    assert report.round_trip == "bit-exact"
    x = rng.normal(size=(2, 9, 10, 3)).astype("f4")
    assert apart(run(tmp_path / "m.onnx", x), model(x, training=False)) < 1e-5
    other = digits()
    other.save(tmp_path / "other.keras")
    assert convert(tmp_path / "m.onnx", tmp_path / "back.keras", to="keras", like=tmp_path / "other.keras").layers
    back = keras.saving.load_model(tmp_path / "back.keras")
    for one, two in zip(back.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
    port(tmp_path / "m.onnx", other)
    assert apart(other(x), model(x)) == 0


def test_the_same_shapes_flattened_channels_first(tmp_path: Path) -> None:
    """Nothing but a Transpose tells the two graphs apart: the rows of the first Dense have to move."""
    model = digits()
    model.save(tmp_path / "m.keras")
    made = {}
    for turned in (True, False):
        template = as_tf2onnx(tmp_path / "t.onnx", turned)
        convert(tmp_path / "m.keras", tmp_path / f"{turned}.onnx", to="onnx", like=template)
        made[turned] = open_store(tmp_path / f"{turned}.onnx").tensors["s/dense/kernel"].read()
        x = rng.normal(size=(2, 9, 10, 3)).astype("f4")
        assert apart(run(tmp_path / f"{turned}.onnx", x), model(x)) < 1e-5
    assert not np.array_equal(made[True], made[False])
    rows = made[True].reshape(2, 3, 7, 11).transpose(2, 0, 1, 3).reshape(42, 11)
    assert np.array_equal(rows, made[False])


def test_a_graph_of_keras_for_torch(tmp_path: Path) -> None:
    """The exported graph flattens channels last, torch's module first."""
    model = digits()
    model.save(tmp_path / "m.keras")
    convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=as_tf2onnx(tmp_path / "t.onnx"))
    module = Digits()
    with torch.no_grad():
        module.slope.weight.fill_(1.0)
    port(tmp_path / "m.onnx", module, skip=["slope.weight", "*num_batches_tracked"], compare=False)
    x = rng.normal(size=(2, 9, 10, 3)).astype("f4")
    found = module.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    assert apart(found.detach(), model(x)) < 1e-5


def test_keras_into_torchs_export(tmp_path: Path) -> None:
    module, x = trained_module("digits")
    template = emptied(exported(module, x, tmp_path / "t.onnx"))
    store = open_store(template)
    slope = next(name for name, t in store.tensors.items() if t.shape == (5, 1, 1))
    model = onnx.load(template)
    for proto in model.graph.initializer:
        if proto.name == slope:
            proto.CopyFrom(numpy_helper.from_array(np.ones((5, 1, 1), "f4"), slope))
    template.write_bytes(model.SerializeToString())
    source = digits()
    source.save(tmp_path / "m.keras")
    with pytest.raises(LayoutxError, match="have no layer"):
        convert(tmp_path / "m.keras", tmp_path / "out.onnx", to="onnx", like=template)
    convert(tmp_path / "m.keras", tmp_path / "out.onnx", to="onnx", like=template, skip=["slope.*"])
    data = rng.normal(size=(2, 9, 10, 3)).astype("f4")
    assert apart(run(tmp_path / "out.onnx", data.transpose(0, 3, 1, 2)), source(data)) < 1e-5


def test_another_map_of_the_same_size_is_refused(tmp_path: Path) -> None:
    """42 rows are 3 by 2 by 7 in the model and 1 by 6 by 7 in the graph: nothing could be right."""
    model = shaken(keras.Sequential([
        keras.Input((3, 8, 3)), keras.layers.Conv2D(7, 3, name="c"), keras.layers.Flatten(),
        keras.layers.Dense(11, name="d"),
    ]))  # fmt: skip
    nodes = [node("Conv", "x K", "k", "c"), node("Flatten", "k", "f"), node("Gemm", "f W b", "y", "d")]
    template = graph(tmp_path / "t.onnx", nodes, ["n", 3, 5, 4], {"K": (7, 3, 3, 3), "W": (42, 11), "b": (11,)})
    shaken(model).save(tmp_path / "m.keras")
    with pytest.raises(LayoutxError) as caught:
        convert(tmp_path / "m.keras", tmp_path / "out.onnx", to="onnx", like=template, skip=["c"])
    assert "order of the input axis is not known" in str(caught.value)


def test_recurrent_keras_and_onnx(tmp_path: Path) -> None:
    """LSTM forward, GRU both ways, SimpleRNN: gate orders, biases and directions."""
    layers = [
        keras.layers.Embedding(13, 3),
        keras.layers.LSTM(5, return_sequences=True),
        keras.layers.Bidirectional(keras.layers.GRU(7, return_sequences=True)),
        keras.layers.SimpleRNN(2, return_sequences=True),
        keras.layers.Dense(3),
    ]
    model = shaken(keras.Sequential([keras.Input((6,), dtype="int32"), *layers]))
    model.save(tmp_path / "m.keras")
    nodes = [
        node("Gather", "table x", "e", "embedding"),
        node("Transpose", "e", "t", perm=[1, 0, 2]),
        node("LSTM", "t W1 R1 B1", "l", "lstm", hidden_size=5),
        node("Squeeze", "l one", "l1"),
        node("GRU", "l1 W2 R2 B2", "g", "gru", hidden_size=7, direction="bidirectional", linear_before_reset=1),
        node("Transpose", "g", "g1", perm=[0, 2, 1, 3]),
        node("Reshape", "g1 shape", "g2"),
        node("RNN", "g2 W3 R3 B3", "s", "rnn", hidden_size=2),
        node("Squeeze", "s one", "s1"),
        node("Transpose", "s1", "s2", perm=[1, 0, 2]),
        node("MatMul", "s2 W4", "m", "dense"),
        node("Add", "m b4", "y"),
    ]
    weights = {"table": (13, 3), "W1": (1, 20, 3), "R1": (1, 20, 5), "B1": (1, 40), "one": np.array([1])}
    weights |= {"W2": (2, 21, 5), "R2": (2, 21, 7), "B2": (2, 42), "shape": np.array([0, 0, -1])}
    weights |= {"W3": (1, 2, 14), "R3": (1, 2, 2), "B3": (1, 4), "W4": (2, 3), "b4": (3,)}
    template = graph(tmp_path / "t.onnx", nodes, ["n", 6], weights, onnx.TensorProto.INT32)
    convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=template)
    x = rng.integers(0, 13, (4, 6)).astype("int32")
    assert apart(run(tmp_path / "m.onnx", x), model(x)) < 1e-5
    convert(tmp_path / "m.onnx", tmp_path / "back.keras", to="keras", like=tmp_path / "m.keras", allow=["conditional"])
    assert apart(keras.saving.load_model(tmp_path / "back.keras")(x), model(x)) < 1e-6


def test_a_separable_convolution_is_two_nodes(tmp_path: Path) -> None:
    layers = [keras.layers.SeparableConv2D(7, 3, depth_multiplier=2), keras.layers.Conv2D(2, 2)]
    model = shaken(keras.Sequential([keras.Input((6, 7, 3)), *layers]))
    model.save(tmp_path / "m.keras")
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t D", "d", "sep/depthwise", group=3),
        node("Conv", "d P p", "k", "sep/Conv2D"),
        node("Conv", "k K b", "o", "conv2d"),
        node("Transpose", "o", "y", perm=[0, 2, 3, 1]),
    ]
    weights = {"D": (6, 1, 3, 3), "P": (7, 6, 1, 1), "p": (7,), "K": (2, 7, 2, 2), "b": (2,)}
    template = graph(tmp_path / "t.onnx", nodes, ["n", 6, 7, 3], weights)
    convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=template)
    x = rng.normal(size=(2, 6, 7, 3)).astype("f4")
    assert apart(run(tmp_path / "m.onnx", x), model(x)) < 1e-5
    convert(tmp_path / "m.onnx", tmp_path / "back.keras", to="keras", like=tmp_path / "m.keras")
    assert apart(keras.saving.load_model(tmp_path / "back.keras")(x), model(x)) == 0


def test_concatenated_maps_and_vectors(tmp_path: Path) -> None:
    """One branch flattened, one averaged, laid end to end."""
    given = keras.Input((6, 7, 3))
    maps = keras.layers.Conv2D(5, 3, name="conv")(given)
    joined = keras.layers.Concatenate()(
        [keras.layers.Flatten()(maps), keras.layers.GlobalAveragePooling2D()(maps), keras.layers.Flatten()(given)]
    )
    model = shaken(keras.Model(given, keras.layers.Dense(2, name="dense")(joined)))
    model.save(tmp_path / "m.keras")
    nodes = [
        node("Conv", "x K b", "k", "conv"),
        node("Flatten", "k", "f"),
        node("GlobalAveragePool", "k", "a"),
        node("Flatten", "a", "g"),
        node("Flatten", "x", "i"),
        node("Concat", "f g i", "j", axis=1),
        node("Gemm", "j W c", "y", "dense", transB=1),
    ]
    weights = {"K": (5, 3, 3, 3), "b": (5,), "W": (2, 100 + 5 + 126), "c": (2,)}
    template = graph(tmp_path / "t.onnx", nodes, ["n", 3, 6, 7], weights)
    convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=template)
    x = rng.normal(size=(2, 6, 7, 3)).astype("f4")
    assert apart(run(tmp_path / "m.onnx", x.transpose(0, 3, 1, 2)), model(x)) < 1e-5


def test_attention_is_four_products(tmp_path: Path) -> None:
    """The projections of MultiHeadAttention, of which the graph makes heads with Reshape and Transpose."""
    given = keras.Input((5, 6))
    mixed = keras.layers.MultiHeadAttention(2, 3, name="mha")(given, given)
    model = shaken(keras.Model(given, keras.layers.Dense(2, name="dense")(mixed)))
    model.save(tmp_path / "m.keras")
    nodes = []
    for p in "qkv":
        nodes += [
            node("MatMul", f"x {p}.w", f"{p}1", f"/mha/{p}/MatMul"),
            node("Add", f"{p}1 {p}.b", f"{p}2"),
            node("Reshape", f"{p}2 split", f"{p}3"),
            node("Transpose", f"{p}3", f"{p}4", perm=[0, 2, 1, 3]),
        ]
    nodes += [
        node("Transpose", "k4", "turned", perm=[0, 1, 3, 2]),
        node("MatMul", "q4 turned", "scores"),
        node("Mul", "scores scale", "scaled"),
        node("Softmax", "scaled", "shares", axis=-1),
        node("MatMul", "shares v4", "heads"),
        node("Transpose", "heads", "back", perm=[0, 2, 1, 3]),
        node("Reshape", "back whole", "mixed"),
        node("MatMul", "mixed o.w", "o1", "/mha/out/MatMul"),
        node("Add", "o1 o.b", "o2"),
        node("MatMul", "o2 dw", "d1", "dense"),
        node("Add", "d1 db", "y"),
    ]
    weights: dict[str, Any] = {f"{p}.w": (6, 6) for p in "qkvo"} | {f"{p}.b": (6,) for p in "qkvo"}
    weights |= {"split": np.array([0, 0, 2, 3]), "whole": np.array([0, 0, 6]), "scale": np.float32(3**-0.5)}
    template = graph(tmp_path / "t.onnx", nodes, ["n", 5, 6], {**weights, "dw": (6, 2), "db": (2,)})
    convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=template)
    x = rng.normal(size=(2, 5, 6)).astype("f4")
    assert apart(run(tmp_path / "m.onnx", x), model(x)) < 1e-5
    convert(tmp_path / "m.onnx", tmp_path / "back.keras", to="keras", like=tmp_path / "m.keras")
    assert apart(keras.saving.load_model(tmp_path / "back.keras")(x), model(x)) == 0


# -- real files ----------------------------------------------------------------------------------------------------

PAIRS = {
    "cnn_max_mnist2.h5": "cnn_max_mninst2.onnx",
    "cnn_max_mnist3.h5": "cnn_max_mninst3.onnx",
    "fc_2-2sigmoids-3.h5": "fc_2-2sigmoids-3.onnx",
    "robust_mnist_sigmoid_linear.h5": "robust_model_sigmoid_linear.onnx",
}


@pytest.mark.models
@pytest.mark.parametrize("name", PAIRS)
def test_keras2onnx_pairs(name: str, models: Path, tmp_path: Path) -> None:
    """A published Keras file and its published ONNX export: each becomes the other, and both the same torch file."""
    folder = models / "marabou-mnist"
    h5, exported = folder / name, folder / PAIRS[name]
    (tmp_path / "copy.onnx").write_bytes(exported.read_bytes())
    convert(h5, tmp_path / "made.onnx", to="onnx", like=emptied(tmp_path / "copy.onnx"))
    convert(exported, tmp_path / "made.h5", to="keras", like=h5)
    for made, real in ((tmp_path / "made.onnx", exported), (tmp_path / "made.h5", h5)):
        found, wanted = open_store(made).tensors, open_store(real).tensors
        assert list(found) == [n for n in wanted if n in found]
        assert all(t.read().tobytes() == wanted[n].read().tobytes() for n, t in found.items())
        assert len(found) >= 4
    convert(h5, tmp_path / "keras.safetensors", to="torch")
    convert(exported, tmp_path / "onnx.safetensors", to="torch")
    one, two = (open_store(tmp_path / f"{x}.safetensors").tensors for x in ("keras", "onnx"))
    for a, b in zip(one.values(), two.values(), strict=True):
        assert a.read().tobytes() == b.read().tobytes()
