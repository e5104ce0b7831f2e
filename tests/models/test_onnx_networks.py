"""Whole networks through ONNX: Keras into torch's exports of untrained and of folded models, run, and on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from graph_torch import FromGraph, by_kind, from_keras, scrambled
from torch import Tensor, nn

from layoutx.convert import convert
from layoutx.errors import LayoutxError
from layoutx.job import agreed
from layoutx.model.record import Refinement
from layoutx.port import port

onnx = pytest.importorskip("onnx", reason="ONNX files need the onnx package")
ort = pytest.importorskip("onnxruntime", reason="ONNX models are run by onnxruntime")
Array = np.ndarray[Any, Any]
PRESERVED = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False}


def exported(module: nn.Module, x: Tensor, path: Path, **more: Any) -> Path:
    """torch's own export of a module in eval mode."""
    names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}}}
    torch.onnx.export(module.eval(), (x,), path, dynamo=False, opset_version=17, **names, **more)
    return path


def run(path: Path, x: Array) -> Array:
    quiet = ort.SessionOptions()
    quiet.log_severity_level = 3
    session = ort.InferenceSession(str(path), quiet, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def apart(found: Any, wanted: Any) -> float:
    """Largest difference, relative to the largest value."""
    found, wanted = np.asarray(found, "f8"), np.asarray(wanted, "f8")
    assert found.shape == wanted.shape
    assert np.abs(wanted).max() > 1e-3
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def first(x: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


@cache
def mobile() -> tuple[Any, Array]:
    """MobileNetV2 with 53 convolutions and 52 batch norms, every number away from its initial value."""
    build = keras.applications.MobileNetV2
    model = build(weights=None, classes=7, classifier_activation=None, input_shape=(32, 32, 3), alpha=0.35)
    return scrambled(model, 20261121), np.random.default_rng(3).uniform(0, 1, (2, 32, 32, 3)).astype("f4")


def mobile_torch(x: Array) -> FromGraph:
    """The twin as torch made it: all norms alike."""
    torch.manual_seed(11)
    module = from_keras(mobile()[0], by_kind).float()
    with torch.no_grad():
        module.eval()(torch.from_numpy(first(x)))
    return module.eval()


def test_keras_into_the_export_of_an_untrained_module(tmp_path: Path) -> None:
    """torch keeps one tensor for all equal norms; each gets its own again. The way on to torch gives the same."""
    model, x = mobile()
    model.save(tmp_path / "m.keras")
    module = mobile_torch(x)
    template = exported(module, torch.from_numpy(first(x)), tmp_path / "t.onnx", **PRESERVED)
    stored, wanted = len(onnx.load(template).graph.initializer), len(model.weights)
    assert stored < wanted - 100, "most of the norms share their tensors"
    report = convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=template)
    assert "stored in place of what the graph computes or shares" in report.text(300)
    assert apart(run(tmp_path / "m.onnx", first(x)), model(x, training=False)) < 1e-4
    assert apart(run(template, first(x)), model(x, training=False)) > 1e-2
    fresh = mobile_torch(x)
    port(tmp_path / "m.onnx", fresh, live=False, skip=["*num_batches_tracked"])
    with torch.no_grad():
        assert apart(fresh(torch.from_numpy(first(x))), model(x, training=False)) < 1e-4


def test_folded_norms_are_told_once_and_folded_here_too(tmp_path: Path) -> None:
    model, x = mobile()
    model.save(tmp_path / "m.keras")
    template = exported(mobile_torch(x), torch.from_numpy(first(x)), tmp_path / "t.onnx")
    with pytest.raises(LayoutxError) as caught:
        convert(tmp_path / "m.keras", tmp_path / "no.onnx", to="onnx", like=template)
    said = str(caught.value)
    assert said.startswith("52 batch norms of the source are not in the ONNX model")
    assert "--materialise" in said
    assert "TrainingMode.PRESERVE" in said
    assert len(said.splitlines()) < 12
    report = convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=template, materialise=True)
    assert report.exactness == "rounds"
    assert "not reversible" in report.round_trip
    assert apart(run(tmp_path / "m.onnx", first(x)), model(x, training=False)) < 1e-4
    with pytest.raises(LayoutxError, match="52 batch norms of the target are not in the ONNX model"):
        port(tmp_path / "m.onnx", mobile_torch(x), live=False)
    with pytest.raises(LayoutxError, match="52 batch norms of the target"):
        convert(tmp_path / "m.onnx", tmp_path / "back.keras", to="keras", like=tmp_path / "m.keras")


class Blocks(nn.Module):
    """A norm that follows its convolution, one that is behind a ReLU, and a bias beside a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 5, 3, bias=False)
        self.norm_a = nn.BatchNorm2d(5, eps=2e-3)
        self.b = nn.Conv2d(5, 5, 3, groups=5)
        self.norm_b = nn.BatchNorm2d(5)
        self.c = nn.Conv2d(5, 7, 2)
        self.late = nn.BatchNorm2d(7)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm_b(self.b(torch.relu(self.norm_a(self.a(x))))))
        return self.late(torch.relu(self.c(x)))


def moved(module: nn.Module, seed: int) -> nn.Module:
    """Every tensor away from its initial value."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if value.dtype.is_floating_point:
                value.copy_(torch.rand_like(value) + 0.5 if key.endswith("var") else torch.randn_like(value) * 0.4)
    return module.eval()


def blocks() -> Any:
    k = keras.layers
    layers = [
        k.Conv2D(5, 3, use_bias=False), k.BatchNormalization(epsilon=2e-3), k.ReLU(), k.DepthwiseConv2D(3),
        k.BatchNormalization(epsilon=1e-5), k.ReLU(), k.Conv2D(7, 2, activation="relu"),
        k.BatchNormalization(epsilon=1e-5),
    ]  # fmt: skip
    return scrambled(keras.Sequential([keras.Input((9, 10, 3)), *layers]), 5)


def test_only_the_norms_that_follow_a_convolution_are_folded(tmp_path: Path) -> None:
    model, x = blocks(), np.random.default_rng(5).normal(size=(2, 9, 10, 3)).astype("f4")
    model.save(tmp_path / "m.keras")
    template = exported(moved(Blocks(), 3), torch.from_numpy(first(x)), tmp_path / "t.onnx")
    with pytest.raises(LayoutxError, match="2 batch norms of the source are not"):
        convert(tmp_path / "m.keras", tmp_path / "no.onnx", to="onnx", like=template)
    convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=template, materialise=True)
    assert apart(first_last(run(tmp_path / "m.onnx", first(x))), model(x, training=False)) < 1e-5


def first_last(x: Array) -> Array:
    return np.moveaxis(x, 1, -1)


def test_a_state_dict_without_wiring_is_not_folded(tmp_path: Path) -> None:
    """Which norm belongs to which convolution is not in the file."""
    x = torch.randn(2, 3, 9, 10)
    template = exported(moved(Blocks(), 3), x, tmp_path / "t.onnx")
    torch.save(moved(Blocks(), 7).state_dict(), tmp_path / "m.pt")
    with pytest.raises(LayoutxError, match="cannot be told"):
        convert(tmp_path / "m.pt", tmp_path / "no.onnx", to="onnx", like=template, materialise=True)
    assert not (tmp_path / "no.onnx").exists()


def test_a_norm_over_another_axis_is_not_folded(tmp_path: Path) -> None:
    """As many rows as channels: the sizes alone would allow it."""
    k = keras.layers
    for axis, fits in ((1, False), (-1, True)):
        inner = [k.Conv2D(7, 3), k.BatchNormalization(axis=axis)]
        model = scrambled(keras.Sequential([keras.Input((9, 11, 3)), *inner]), 3)
        model.save(tmp_path / "m.keras")
        module = moved(nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7)), 5)
        template = exported(module, torch.randn(2, 3, 9, 11), tmp_path / "t.onnx")
        if not fits:
            with pytest.raises(LayoutxError):
                convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=template, materialise=True)
            assert not (tmp_path / "m.onnx").exists()
            continue
        convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=template, materialise=True)
        x = np.random.default_rng(5).normal(size=(2, 9, 11, 3)).astype("f4")
        assert apart(first_last(run(tmp_path / "m.onnx", first(x))), model(x, training=False)) < 1e-5


def test_a_norm_behind_a_relu_of_a_module_is_not_folded(tmp_path: Path) -> None:
    """What lies between its modules is followed: two norms are folded, the third is not."""
    x = torch.randn(2, 3, 9, 10)
    template = exported(moved(Blocks(), 3), x, tmp_path / "t.onnx")
    module = moved(Blocks(), 7)
    with pytest.raises(LayoutxError, match="2 batch norms of the source are not"):
        convert(module, tmp_path / "no.onnx", to="onnx", like=template)
    assert not (tmp_path / "no.onnx").exists()
    convert(module, tmp_path / "m.onnx", to="onnx", like=template, materialise=True)
    assert apart(run(tmp_path / "m.onnx", x.numpy()), module(x).detach().numpy()) < 1e-5


# -- a tagger and a transformer ------------------------------------------------------------------------------------


class Tagger(nn.Module):
    """Two layers both ways, a label for each word."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(23, 5)
        self.lstm = nn.LSTM(5, 7, num_layers=2, batch_first=True, bidirectional=True)
        self.tags = nn.Linear(14, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.tags(self.lstm(self.words(x))[0])


def keras_tagger() -> Any:
    k = keras.layers
    layers = [k.Embedding(23, 5), *(k.Bidirectional(k.LSTM(7, return_sequences=True)) for _ in range(2)), k.Dense(3)]
    return keras.Sequential([keras.Input((6,), dtype="int32"), *layers])


class Encoder(nn.Module):
    """A transformer of one block, its attention written with products of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(23, 12)
        self.query, self.key, self.value, self.out = (nn.Linear(12, 12) for _ in range(4))
        self.norm_a, self.norm_b = nn.LayerNorm(12, eps=1e-3), nn.LayerNorm(12, eps=1e-3)
        self.wide, self.narrow, self.scores = nn.Linear(12, 19), nn.Linear(19, 12), nn.Linear(12, 2)

    def heads(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 6, 3, 4).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.table(x)
        q, k, v = (self.heads(f(x)) for f in (self.query, self.key, self.value))
        mixed = torch.softmax(q @ k.transpose(2, 3) / 2, -1) @ v
        x = self.norm_a(x + self.out(mixed.transpose(1, 2).reshape(-1, 6, 12)))
        x = self.norm_b(x + self.narrow(torch.tanh(self.wide(x))))
        return self.scores(x.mean(1))


def keras_encoder() -> Any:
    k, ops = keras.layers, keras.ops
    x = tokens = keras.Input((6,), dtype="int32")
    x = k.Embedding(23, 12, name="table")(x)
    q, key, v = (
        k.Permute((2, 1, 3))(k.Reshape((6, 3, 4))(k.Dense(12, name=name)(x))) for name in ("query", "key", "value")
    )
    mixed = ops.matmul(ops.softmax(ops.matmul(q, ops.transpose(key, (0, 1, 3, 2))) / 2, -1), v)
    mixed = k.Dense(12, name="out")(k.Reshape((6, 12))(k.Permute((2, 1, 3))(mixed)))
    x = k.LayerNormalization(name="norm_a")(x + mixed)
    inner = k.Dense(12, name="narrow")(k.Dense(19, activation="tanh", name="wide")(x))
    x = k.LayerNormalization(name="norm_b")(x + inner)
    return keras.Model(tokens, k.Dense(2, name="scores")(k.GlobalAveragePooling1D()(x)))


WORDS: dict[str, tuple[Callable[[], Any], Callable[[], nn.Module]]] = {
    "tagger": (keras_tagger, Tagger),
    "encoder": (keras_encoder, Encoder),
}


@pytest.mark.parametrize("folding", [True, False])
@pytest.mark.parametrize("name", WORDS)
def test_keras_through_onnx_into_torch(name: str, folding: bool, tmp_path: Path) -> None:
    """Into torch's export (without constant folding it computes its weights), run, and on into torch."""
    build, module = WORDS[name]
    model = scrambled(build(), 7)
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(7).integers(0, 23, (2, 6))
    template = exported(moved(module(), 5), torch.from_numpy(x), tmp_path / "t.onnx", do_constant_folding=folding)
    keep = ["out"] if name == "encoder" else []  # Keras' own products of two values are not followed
    convert(tmp_path / "m.keras", tmp_path / "m.onnx", to="onnx", like=template, keep_order=keep)
    expected = np.asarray(model(x, training=False))
    assert apart(run(tmp_path / "m.onnx", x), expected) < 1e-4
    assert apart(run(template, x), expected) > 1e-2
    port(tmp_path / "m.onnx", fresh := module())
    with torch.no_grad():
        assert apart(fresh.eval()(torch.from_numpy(x)), expected) < 1e-4
    again = scrambled(build(), 11)
    port(tmp_path / "m.onnx", again, keep_order=keep)
    assert apart(again(x, training=False), expected) < 1e-6


class Flattens(nn.Module):
    """A map of 3 by 2 places flattened; the state that is converted tells only that these are six."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head, self.conv = nn.Linear(5 * 6, 7), nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, 5, 4)."""
        return self.head(torch.relu(self.conv(x)).flatten(1))


def test_a_flattened_map_of_which_one_side_knows_the_number_of_places(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 5, 4)
    path = exported(Flattens(0).eval(), x, tmp_path / "m.onnx")
    module = Flattens(1).eval()
    convert(module, tmp_path / "new.onnx", to="onnx", like=path)
    with torch.no_grad():
        np.testing.assert_allclose(run(tmp_path / "new.onnx", x.numpy()), module(x).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("sizes", "same"),
    [
        ({"c": 5, "h": 3, "w": 2}, True),
        ({"c": 10, "h": 3, "w": 1}, False),
        ({"c": 2, "h": 3, "w": 5}, False),
    ],
)
def test_two_maps_are_alike_in_channels_and_places(sizes: dict[str, int], same: bool) -> None:
    here = Refinement("(p k)", "(k p)", {"k": 5, "p": 6}, "flatten(conv)")
    there = Refinement("(h w c)", "(c h w)", sizes, "flatten(conv)")
    assert (agreed._alike(here, there), agreed._alike(there, here)) == (same, same)


def test_two_maps_of_other_sides_are_not_alike() -> None:
    here = Refinement("(h w c)", "(c h w)", {"c": 5, "h": 2, "w": 6}, "flatten(conv)")
    assert not agreed._alike(here, Refinement("(h w c)", "(c h w)", {"c": 5, "h": 3, "w": 4}, "flatten(conv)"))
    assert not agreed._alike(here, Refinement("(c n)", "(c n)", {"c": 5, "n": 12}, "flatten(conv)"))


class Folds(nn.Module):
    """Layers of 4 to 5 and of 5 to 4 units behind a GRU, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.fc1, self.fc2, self.fc3 = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 4)
        self.fc4, self.fc5 = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.fc1(self.gru(x)[0])
        x = torch.sigmoid(self.fc3((x + torch.tanh(self.fc2(x))).mean(1)))
        return self.fc4(x), self.fc5(x)


def test_a_node_says_which_way_its_kernel_lies(tmp_path: Path) -> None:
    """Turned over, without its bias, the kernel of 4 to 5 units would fit the layer of 5 to 4."""
    module, path, x = Folds().eval(), tmp_path / "m.onnx", torch.randn(2, 3, 4)
    torch.onnx.export(
        module, (x,), path, dynamo=False, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False
    )
    dense, made = keras.layers.Dense, keras.Input((3, 4))
    y = dense(5)(keras.layers.GRU(4, return_sequences=True)(made))
    y = keras.layers.Add()([y, keras.layers.Activation("tanh")(dense(5)(y))])
    y = keras.layers.Activation("sigmoid")(dense(4)(keras.layers.GlobalAveragePooling1D()(y)))
    keras.Model(made, [dense(4)(y), dense(4)(y)]).save(tmp_path / "like.keras")
    convert(path, tmp_path / "o.keras", to="keras", like=tmp_path / "like.keras", allow=["rounds"])
    outputs = keras.saving.load_model(tmp_path / "o.keras")(x.numpy())
    for found, expected in zip(outputs, module(x), strict=True):
        np.testing.assert_allclose(np.asarray(found), expected.detach().numpy(), rtol=0, atol=1e-6)
