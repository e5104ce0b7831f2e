"""Batch norms that an exporter has folded, made anew in a model that has them: they scale and shift alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from graph_torch import scrambled
from torch import Tensor, nn

import layoutx
from layoutx.errors import LayoutxError

onnx = pytest.importorskip("onnx", reason="ONNX files need the onnx package")
pytest.importorskip("onnxruntime", reason="ONNX models are run by onnxruntime")
TODAY: dict[str, Any] = {"verbose": False}
BEFORE: dict[str, Any] = {"dynamo": False}
EXPORTERS = pytest.mark.parametrize("how", [TODAY, BEFORE], ids=["today's exporter", "the one before"])


class Net(nn.Module):
    """Norms after convolutions (with a bias and without), after their transpose, a Linear, a ReLU, a concatenation.

    Two convolutions of one shape, and one that no norm follows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5, eps=2e-3)
        self.b, self.norm_b = nn.Conv2d(5, 5, 3, groups=5), nn.BatchNorm2d(5)
        self.c = nn.Conv2d(5, 7, 1)
        self.late = nn.BatchNorm2d(7)
        self.d, self.norm_d = nn.Conv2d(7, 7, 1, bias=False), nn.BatchNorm2d(7, affine=False)
        self.e, self.norm_e = nn.Conv2d(7, 7, 1, bias=False), nn.BatchNorm2d(7, eps=1e-3)
        self.both = nn.BatchNorm2d(14)
        self.up, self.norm_up = nn.ConvTranspose2d(14, 11, 2, stride=2, bias=False), nn.BatchNorm2d(11)
        self.out, self.norm_out = nn.Linear(11, 13), nn.BatchNorm1d(13)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, height, width)."""
        x = torch.relu(self.norm_b(self.b(torch.relu(self.norm_a(self.a(x))))))
        x = self.late(torch.relu(self.c(x)))
        x = torch.cat([torch.relu(self.norm_d(self.d(x))), torch.tanh(self.norm_e(self.e(x)))], 1)
        x = torch.relu(self.norm_up(self.up(torch.relu(self.both(x)))))
        return self.norm_out(self.out(x.mean((2, 3))))


def shaken(module: nn.Module, seed: int) -> nn.Module:
    """Every tensor away from its initial value."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5 if name.endswith("var") else torch.randn_like(value) * 0.5)
    return module.eval()


def exported(module: nn.Module, path: Path, how: dict[str, Any]) -> Path:
    torch.onnx.export(module, (torch.randn(2, 3, 9, 8),), path, **how)
    return path


def same(one: nn.Module, other: nn.Module) -> bool:
    x = torch.randn(3, 3, 9, 8)
    with torch.no_grad():
        wanted = one(x)
        return bool((other(x) - wanted).abs().max() < 1e-5 * wanted.abs().max())


@EXPORTERS
def test_into_a_module_with_its_norms(how: dict[str, Any], tmp_path: Path) -> None:
    module, other = shaken(Net(), 1), shaken(Net(), 2)
    path = exported(module, tmp_path / "m.onnx", how)
    report = layoutx.port(path, other, materialise=True)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees is True
    assert same(module, other)
    assert isinstance(other, Net)
    for norm in (other.norm_a, other.norm_b, other.norm_d, other.norm_e):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert bool(norm.running_mean.any()) is (norm is other.norm_d), "without a beta the mean holds the bias"
        assert torch.allclose(norm.running_var, torch.tensor(1 - norm.eps))
    assert torch.equal(other.norm_a.weight, torch.ones(5))
    assert report.exactness == "rounds"
    assert "a/norm" in report.round_trip
    text = report.text(200)
    assert text.count("it scales and shifts alone") == 1, "one note for all of them"


@EXPORTERS
def test_nothing_is_made_that_was_not_asked_for(how: dict[str, Any], tmp_path: Path) -> None:
    other = shaken(Net(), 2)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    path = exported(shaken(Net(), 1), tmp_path / "m.onnx", how)
    with pytest.raises(LayoutxError, match="batch norms of the target are not in the ONNX model") as caught:
        layoutx.port(path, other)
    said = str(caught.value)
    assert "--materialise" in said
    assert "optimize=False" in said
    assert "d and norm_d" in said
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_names_alone_do_not_tell_which(tmp_path: Path) -> None:
    path = exported(shaken(Net(), 1), tmp_path / "m.onnx", BEFORE)
    torch.save(Net().state_dict(), tmp_path / "like.pt")
    with pytest.raises(LayoutxError, match="cannot be told"):
        layoutx.convert(path, tmp_path / "out.pt", to="torch", like=tmp_path / "like.pt", materialise=True)
    assert not (tmp_path / "out.pt").exists()


def test_a_pair_that_the_user_gives(tmp_path: Path) -> None:
    """d and e are of one shape; what the user says counts for the making too."""
    module, other = shaken(Net(), 1), shaken(Net(), 2)
    path = exported(module, tmp_path / "m.onnx", BEFORE)
    layoutx.port(path, other, materialise=True, pairs={"d": "d", "e": "e"})
    assert same(module, other)


def network() -> Any:
    """Of each kind of layer that a norm follows, as Keras writes networks; one norm before its convolution."""
    k = keras.layers
    x = inputs = keras.Input((12, 10, 3))
    x = k.ReLU()(k.BatchNormalization()(k.Conv2D(5, 3, name="stem")(x)))
    x = k.ReLU(6.0)(k.BatchNormalization(epsilon=1e-5)(k.DepthwiseConv2D(3, use_bias=False)(x)))
    x = k.ReLU()(k.BatchNormalization()(k.SeparableConv2D(7, 3, use_bias=False)(x)))
    shortcut = k.BatchNormalization()(k.Conv2D(11, 1, use_bias=False)(x))
    x = k.BatchNormalization()(k.Conv2D(11, 3, padding="same", use_bias=False)(x))
    x = k.ReLU()(k.BatchNormalization(name="before")(k.MaxPooling2D(2)(k.Add()([shortcut, x]))))
    x = k.BatchNormalization(scale=False)(k.Conv2DTranspose(13, 2, strides=2, use_bias=False)(x))
    return keras.Model(inputs, k.Dense(5)(k.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def keras_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("keras")
    model = scrambled(network(), 20261122)
    model(np.zeros((1, 12, 10, 3), "f4"))
    model.export(folder / "m.onnx", format="onnx", verbose=False)
    scrambled(network(), 3).save(folder / "like.keras")
    return folder, model


def test_an_export_of_keras_into_keras(keras_files: tuple[Path, Any], tmp_path: Path) -> None:
    folder, model = keras_files
    x = np.random.default_rng(5).normal(size=(2, 12, 10, 3)).astype("f4")
    wanted = np.asarray(model(x, training=False))
    kinds = {node.op_type for node in onnx.load(folder / "m.onnx").graph.node}
    assert "BatchNormalization" not in kinds
    other = scrambled(network(), 3)
    report = layoutx.port(folder / "m.onnx", other, materialise=True)
    assert report.end_to_end is not None
    assert report.end_to_end.agrees is True
    assert np.abs(np.asarray(other(x, training=False)) - wanted).max() < 1e-5 * np.abs(wanted).max()
    out = tmp_path / "out.keras"
    layoutx.convert(folder / "m.onnx", out, to="keras", like=folder / "like.keras", materialise=True)
    found = np.asarray(keras.models.load_model(out)(x, training=False))
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def alike(*norms: str) -> Any:
    """Two convolutions of one shape that read the same and are added: only names could tell them apart."""
    k = keras.layers
    x = inputs = keras.Input((5, 5, 3))
    both = [k.BatchNormalization(name=name)(k.Conv2D(7, 1, use_bias=False)(x)) for name in norms]
    return keras.Model(inputs, k.GlobalAveragePooling2D()(k.Add()(both)))


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    model = scrambled(alike("one", "two"), 5)
    model(np.zeros((1, 5, 5, 3), "f4"))
    model.export(tmp_path / "m.onnx", format="onnx", verbose=False)
    other = scrambled(alike("three", "four"), 7)
    before = other.get_weights()
    with pytest.raises(LayoutxError, match="hold 2 batch norms of the target cannot be told") as caught:
        layoutx.port(tmp_path / "m.onnx", other, materialise=True)
    assert "before three: it may be" in str(caught.value)
    assert "--pair" in str(caught.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, other.get_weights(), strict=True))


def test_an_export_of_keras_is_refused_in_one_error(keras_files: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = keras_files
    with pytest.raises(LayoutxError, match="7 batch norms of the target are not in the ONNX model") as caught:
        layoutx.convert(folder / "m.onnx", tmp_path / "out.keras", to="keras", like=folder / "like.keras")
    assert "--materialise" in str(caught.value)
    assert len(str(caught.value).splitlines()) < 12
