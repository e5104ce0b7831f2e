"""Layers that are called twice, of which torch's older exporter stores the weights once for each call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_runs import run
from torch import nn

from layoutx.convert import convert
from layoutx.errors import LayoutxError
from layoutx.files.open import open_store
from layoutx.files.store import Tensor
from layoutx.model.load import model_of
from layoutx.model.onnx_forms import flat
from layoutx.spec.registry import registry
from layoutx.transfer import transfer

onnx = pytest.importorskip("onnx", reason="ONNX files need the onnx package")
pytest.importorskip("onnxruntime", reason="ONNX models are run by onnxruntime")
pytestmark = pytest.mark.models


class Twice(nn.Module):
    """Each layer is called twice; other layers of the same sizes stand between."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.bare = nn.Linear(5, 5), nn.Linear(5, 5, bias=False)
        self.rnn, self.last = nn.LSTM(5, 5, batch_first=True), nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(torch.relu(self.fc(x)))
        x = self.bare(torch.tanh(self.bare(x)))
        return self.last(self.rnn(self.rnn(x)[0])[0])


class Renamed(nn.Module):
    """The same with other names, in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.d, self.c = nn.Linear(5, 5), nn.LSTM(5, 5, batch_first=True)
        self.b, self.a = nn.Linear(5, 5, bias=False), nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(torch.relu(self.a(x)))
        x = self.b(torch.tanh(self.b(x)))
        return self.d(self.c(self.c(x)[0])[0])


def exported(module: nn.Module, path: Path, x: torch.Tensor, copied: bool = False) -> Path:
    """An ONNX file; `copied`: as torch wrote it before 1.8, which stored what are Identities of one tensor now."""
    torch.onnx.export(module.eval(), (x,), path, dynamo=False)
    model = onnx.load(path)
    stored = {proto.name: proto for proto in model.graph.initializer}
    for node in [n for n in model.graph.node if copied and n.op_type == "Identity" and n.input[0] in stored]:
        model.graph.initializer.add().CopyFrom(stored[node.input[0]])
        model.graph.initializer[-1].name = node.output[0]
        model.graph.node.remove(node)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("copied", [True, False])
def test_both_ways(copied: bool, tmp_path: Path) -> None:
    """Every call has to get the new numbers, and the target's one layer those that all calls have."""
    x = torch.randn(2, 3, 5)
    module, other = Twice(), Renamed().eval()
    path = exported(module, tmp_path / "model.onnx", x, copied)
    made = convert(other, tmp_path / "out.onnx", to="onnx", like=path)
    assert len(made.tied) == (5 if copied else 0)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), other(x).detach(), atol=1e-6)
    back = tmp_path / "out.pt"
    convert(path, back, to="torch", like=other)
    other.load_state_dict(torch.load(back), strict=True)
    np.testing.assert_allclose(other(x).detach(), module(x).detach(), atol=1e-6)


def test_transfer_writes_every_copy(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 5)
    path, other = exported(Twice(), tmp_path / "model.onnx", x, True), Twice().eval()
    torch.save(other.state_dict(), tmp_path / "other.pt")
    transfer(tmp_path / "other.pt", path, output=tmp_path / "out.onnx")
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), other(x).detach(), atol=1e-6)


class Numbered(nn.Module):
    """Two layers whose names differ as those of two calls do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.fc_1 = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc_1(torch.relu(self.fc(x)))


@pytest.mark.parametrize("same", [False, True])
def test_two_layers_stay_two(same: bool, tmp_path: Path) -> None:
    """Layers are two though their kernels hold the same numbers: each has a bias of its own."""
    module = Numbered()
    if same:
        module.fc_1.load_state_dict(module.fc.state_dict())
    path = exported(module, tmp_path / "model.onnx", torch.randn(2, 3, 5), True)
    found = model_of(open_store(path), registry(), {})
    assert [record.name for record in found.layers] == ["fc", "fc_1"]
    assert not found.copies


class OneChannel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.GroupNorm(1, 1), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(x).flatten(1))


def test_a_group_norm_of_one_channel(tmp_path: Path) -> None:
    """Its one weight was a constant of the graph, and ones and zeros of the exporter's the layer: wrong in silence."""
    x, module, other = torch.randn(2, 1, 3, 4), OneChannel(), OneChannel().eval()
    for one in (module, other):
        nn.init.normal_(one.norm.weight)
        nn.init.normal_(one.norm.bias)
    path = exported(module, tmp_path / "model.onnx", x)
    wanted = module(x).detach()
    convert(other, tmp_path / "out.onnx", to="onnx", like=path)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), other(x).detach(), atol=1e-6)
    convert(path, tmp_path / "out.pt", to="torch", like=other)
    other.load_state_dict(torch.load(tmp_path / "out.pt"), strict=True)
    np.testing.assert_allclose(other(x).detach(), wanted, atol=1e-6)


def test_the_rows_of_a_flattened_image_of_one_channel_stay(tmp_path: Path) -> None:
    """A run on the image with its axes turned came first, in which columns lay before rows: wrong in silence."""
    x, module = torch.randn(2, 1, 5, 7), nn.Sequential(nn.Flatten(), nn.Linear(35, 3))
    path = exported(nn.Sequential(nn.Flatten(), nn.Linear(35, 3)), tmp_path / "model.onnx", x)
    convert(module, tmp_path / "out.onnx", to="onnx", like=path)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), module(x).detach(), atol=1e-6)


class Scaled(nn.Module):
    """One learned number behind a norm of several channels is no weight of the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.gain = nn.LayerNorm(5, elementwise_affine=False), nn.Parameter(torch.tensor([1.5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x) * self.gain


def test_one_number_for_all_features_is_no_norm(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    torch.onnx.export(Scaled().eval(), (torch.randn(2, 5),), path, dynamo=False, opset_version=13)
    assert not [r for r in model_of(open_store(path), registry(), {}).layers if "Normalization" in r.form]


class Gated(nn.Module):
    """Two layers of one size, which only what lies behind them tells apart."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__()
        self.names = one, two
        self.add_module(two, nn.Linear(5, 7, bias=False))
        self.add_module(one, nn.Linear(5, 7, bias=False))
        self.out = nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = (getattr(self, name) for name in self.names)
        return self.out(nn.functional.silu(one(x)) * two(x))


def test_a_live_module_is_followed_on_its_way_into_a_graph(tmp_path: Path) -> None:
    x = torch.randn(2, 5)
    path, other = exported(Gated("b", "a"), tmp_path / "model.onnx", x), Gated("p", "q").eval()
    convert(other, tmp_path / "out.onnx", to="onnx", like=path)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), other(x).detach(), atol=1e-6)


class Folded(nn.Module):
    """Batch norms behind a dense layer and a transposed convolution of groups, which torch's new exporter folds too."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.after = nn.ConvTranspose2d(2, 6, 2, stride=2, groups=2), nn.BatchNorm2d(6)
        self.slope = nn.PReLU(6)
        self.fc, self.norm, self.out = nn.Linear(6 * 4 * 6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.slope(self.after(self.up(x)))
        return self.out(torch.relu(self.norm(self.fc(x.flatten(1)))))


def test_norms_of_every_layer_that_the_new_exporter_folds_into(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="torch's new exporter needs it")
    x, other = torch.randn(2, 2, 2, 3), Folded().eval()
    for norm in (other.after, other.norm):
        for tensor in (norm.running_mean, norm.bias):
            tensor.data.normal_()
        for tensor in (norm.running_var, norm.weight):
            tensor.data.uniform_(0.5, 2)
    path = tmp_path / "model.onnx"
    torch.onnx.export(Folded().eval(), (x,), path, dynamo=True, external_data=False)
    with pytest.raises(LayoutxError, match="2 batch norms of the source are not in the ONNX model"):
        convert(other, to="onnx", like=path)
    convert(other, tmp_path / "out.onnx", to="onnx", like=path, materialise=True, allow=["rounds"])
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), other(x).detach(), atol=1e-5)


class First(nn.Module):
    """A norm that no layer stands before, which exporters leave as a factor and a summand."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.norm(x)))


class Spelled(First):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        return self.fc(torch.relu(x * factor + (self.norm.bias - self.norm.running_mean * factor)))


def test_the_only_norm_is_made_of_a_factor_and_a_summand(tmp_path: Path) -> None:
    x, module, other = torch.randn(2, 5), Spelled().eval(), First().eval()
    for tensor in (module.norm.weight, module.norm.running_var):
        tensor.data.uniform_(0.5, 2)
    module.norm.running_mean.normal_()
    path = exported(module, tmp_path / "model.onnx", x)
    with pytest.raises(LayoutxError, match="materialise"):
        convert(path, to="torch", like=other)
    convert(path, tmp_path / "out.pt", to="torch", like=other, materialise=True)
    other.load_state_dict(torch.load(tmp_path / "out.pt"), strict=True)
    np.testing.assert_allclose(other(x).detach(), module(x).detach(), atol=1e-5)


def test_a_tensor_in_another_shape_is_not_where_the_file_has_it() -> None:
    """It said that it was mapped: writers of `.keras` looked for the place, `no attribute 'args'`."""
    found = flat(Tensor("scale", np.dtype("float32"), (7, 1, 1), lambda: np.ones((7, 1, 1), "float32"), mapped=True))
    assert (found.shape, found.mapped) == ((7,), False)
