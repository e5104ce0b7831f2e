"""Real Keras 2 files: converted to torch, they give what their makers recorded, or what the paired ONNX model gives."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from layoutx.convert import convert
from layoutx.errors import LayoutxError

pytestmark = pytest.mark.models
CONV = [
    *(
        f"conv1d/conv1d_k3_s{s}_d{d}_{f}_{p}"
        for s, d in ((1, 1), (1, 2), (2, 1), (3, 1))
        for f in ("cl", "cf")
        for p in ("same", "valid")
    ),
    *(f"causal_conv1d/causal_conv1d_k3_s{s}_d{d}_cl" for s, d in ((1, 1), (1, 2), (2, 1), (3, 1))),
]


def recorded(path: Path, group: str) -> np.ndarray:
    """The one array of a group of `*_inputs_and_outputs.h5`."""
    with h5py.File(path) as file:
        (found,) = file[group].values()
        return found[()]


def loaded(module: nn.Module, path: Path, tmp_path: Path) -> nn.Module:
    """A module with the converted weights of a file, which are found by their shapes and order."""
    out = tmp_path / "out.pt"
    report = convert(path, out, to="torch", like=module)
    assert report.source["version"].startswith("2.")
    assert report.round_trip == "bit-exact"
    module.load_state_dict(torch.load(out), strict=True)
    return module.eval()


@pytest.mark.parametrize("name", CONV)
def test_conv1d(name: str, models: Path, tmp_path: Path) -> None:
    """Causal and "same" padding, strides, dilation; channels last and channels first."""
    stem = models / "dl4j-fixtures" / name
    words = stem.name.split("_")
    stride, dilation = (int(next(w for w in words if w[0] == letter and w[1:].isdigit())[1:]) for letter in "sd")
    module = nn.Conv1d(3, 4, 3, stride=stride, dilation=dilation)
    conv = loaded(module, stem.with_name(f"{stem.name}_model.h5"), tmp_path)
    data = stem.with_name(f"{stem.name}_inputs_and_outputs.h5")
    x, y = recorded(data, "inputs"), recorded(data, "predictions" if "causal" in name else "outputs")
    x, y = (a if "cf" in words else a.transpose(0, 2, 1) for a in (x, y))
    reach = 2 * dilation
    total = max((-(-x.shape[2] // stride) - 1) * stride + reach + 1 - x.shape[2], 0)
    pads = {"causal": (reach, 0), "same": (total // 2, total - total // 2), "valid": (0, 0)}
    padding = next((p for p in pads if p in words), "valid")
    with torch.no_grad():
        z = conv(F.pad(torch.from_numpy(x.copy()), pads[padding])).numpy()
    found = np.tanh(z) if "causal" in name else 1 / (1 + np.exp(-z))
    np.testing.assert_allclose(found, y, rtol=0, atol=2e-6)


def test_simple_rnn(models: Path, tmp_path: Path) -> None:
    folder = models / "dl4j-fixtures" / "simple_rnn"
    module = nn.ModuleDict({"rnn": nn.RNN(1, 50, batch_first=True), "out": nn.Linear(50, 1)})
    loaded(module, folder / "tf_keras_2_model.h5", tmp_path)
    data = folder / "tf_keras_2_inputs_and_outputs.h5"
    with torch.no_grad():
        found = module["out"](module["rnn"](torch.from_numpy(recorded(data, "inputs")))[0][:, -1]).numpy()
    np.testing.assert_allclose(found, recorded(data, "predictions"), rtol=0, atol=5e-6)


@pytest.mark.parametrize("like", [False, True])
def test_an_lstm_with_hard_sigmoid_is_refused_by_name(like: bool, models: Path, tmp_path: Path) -> None:
    """Keras 2's hard_sigmoid is clip(0.2x + 0.5); torch's LSTM has the sigmoid and nothing else."""
    module = nn.ModuleDict({"lstm": nn.LSTM(1, 50), "out": nn.Linear(50, 1)}) if like else None
    with pytest.raises(LayoutxError) as caught:
        convert(models / "dl4j-fixtures/simple_lstm/tf_keras_2_model.h5", tmp_path / "out.pt", to="torch", like=module)
    text = str(caught.value)
    assert "layer lstm_1 (LSTM)" in text
    assert "hard_sigmoid" in text
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused_can_be_left_out(models: Path, tmp_path: Path) -> None:
    path = models / "dl4j-fixtures/simple_lstm/tf_keras_2_model.h5"
    report = convert(path, tmp_path / "out.pt", to="torch", skip=["lstm_1"])
    assert report.skipped == {"lstm_1": "left out by --skip"}
    assert list(torch.load(tmp_path / "out.pt")) == ["dense_1.weight", "dense_1.bias"]


class Mnist(nn.Module):
    """Convolutions of 4 by 4, pooled, flattened with channels first."""

    def __init__(self, channels: list[int], dense: list[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 4) for a, b in pairwise([1, *channels]))
        self.dense = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(dense))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 28, 28, 1) -> (batch, 10)."""
        x = x.permute(0, 3, 1, 2)
        for conv in self.convs:
            x = F.relu(conv(x))
        x = F.max_pool2d(x, 2).flatten(1)
        for layer in self.dense[:-1]:
            x = F.relu(layer(x))
        return self.dense[-1](x)


class Sigmoids(nn.Module):
    """Dense layers with sigmoids between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, ...) -> (batch, width)."""
        x = x.flatten(1)
        for layer in self.dense[:-1]:
            x = torch.sigmoid(layer(x))
        return self.dense[-1](x)


MARABOU = {
    "cnn_max_mnist2.h5": ("cnn_max_mninst2.onnx", lambda: Mnist([8, 4], [484, 32, 10]), (28, 28, 1)),
    "cnn_max_mnist3.h5": ("cnn_max_mninst3.onnx", lambda: Mnist([2], [288, 64, 32, 10]), (28, 28, 1)),
    "fc_2-2sigmoids-3.h5": ("fc_2-2sigmoids-3.onnx", lambda: Sigmoids(2, 2, 3), (2,)),
    "robust_mnist_sigmoid_linear.h5": (
        "robust_model_sigmoid_linear.onnx",
        lambda: Sigmoids(784, 64, 32, 10),
        (28, 28),
    ),
}


@pytest.mark.parametrize("name", MARABOU)
def test_against_the_onnx_model_of_the_same_weights(name: str, models: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx, build, shape = MARABOU[name]
    module = loaded(build(), models / "marabou-mnist" / name, tmp_path)
    session = onnxruntime.InferenceSession(str(models / "marabou-mnist" / onnx), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    rng = np.random.default_rng(20261121)
    for _ in range(3):  # the exported graphs take one row each
        x = rng.uniform(0, 1, (1, *shape)).astype("float32")
        wanted = session.run(None, {given.name: x.reshape([d if isinstance(d, int) else 1 for d in given.shape])})[0]
        with torch.no_grad():
            found = module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(found.ravel(), wanted.ravel(), rtol=0, atol=1e-5 * max(1, np.abs(wanted).max()))
