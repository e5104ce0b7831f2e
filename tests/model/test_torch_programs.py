"""torch.export programs and traced modules: classes, options, wiring, and what a flattened axis is made of."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError
from layoutx.files.open import open_store
from layoutx.model.load import keyed_of, live_model
from layoutx.model.record import Way
from layoutx.spec.registry import registry

torch = pytest.importorskip("torch")
nn = torch.nn
KNOWN = registry()


class Net(nn.Module):
    """A square map flattened three ways: as torch does, with channels last, and beside another input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=(1, 2), padding=1, groups=1)
        self.norm = nn.BatchNorm2d(5, eps=0.02)
        self.pool = nn.MaxPool2d(2)
        self.first = nn.Linear(5 * 4 * 4, 7)
        self.last = nn.Linear(5 * 4 * 4, 11)
        self.both = nn.Linear(7 + 13, 2)
        self.head = nn.Linear(2, 2)

    def forward(self, x: Any, z: Any) -> Any:
        y = self.pool(torch.relu(self.norm(self.conv(x))))
        a = torch.relu(self.first(y.view(y.size(0), -1)))
        b = self.last(y.permute(0, 2, 3, 1).flatten(1))
        return self.head(self.both(torch.cat([a, z], 1))), b


def trained(module: Any) -> Any:
    """Every weight and statistic at values of its own."""
    torch.manual_seed(3)
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape) + 0.25)
    return module.eval()


def exported(module: Any, *inputs: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, inputs)


@pytest.fixture(scope="module")
def program() -> Any:
    return exported(trained(Net()), torch.randn(2, 3, 8, 16), torch.randn(2, 13))


@pytest.fixture(scope="module")
def file(program: Any, tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    torch.export.save(program, path)
    return path


def test_the_file_holds_the_state_dict(program: Any, file: Path) -> None:
    store = open_store(file)
    state = program.state_dict
    assert store.format == "pt2"
    assert set(store.tensors) == set(state)
    for name, value in state.items():
        assert np.array_equal(store.tensors[name].read(), value.detach().numpy())


def test_file_and_program_tell_the_same_and_the_module_its_own(program: Any, file: Path) -> None:
    keyed = {"file": keyed_of(open_store(file)), "program": live_model(program, KNOWN)}
    live = live_model(Net(), KNOWN)
    for name, found in keyed.items():
        assert found.modules["conv"].form == "torch.Conv2d", name
        assert found.modules["conv"].config["stride"] == [1, 2]
        assert found.modules["conv"].config["padding"] == [1, 1]
        assert found.modules["norm"].config["eps"] == 0.02
        axes = found.axes()
        assert (axes["first"].refine["input"].first, axes["first"].refine["input"].own) == ("(c h w)", "")
        assert (axes["last"].refine["input"].last, axes["last"].refine["input"].own) == ("(h w c)", "last")
        assert not axes["both"].refine
        assert axes["both"].inputs == ("first",)
        assert found.wires()["first"] == (Way("norm", ("max",)),)
        assert found.wires()["head"] == (Way("both"),)
    traced = live.axes()
    assert (traced["first"].refine["input"].first, traced["last"].refine["input"].own) == ("(c hw)", "last")


@pytest.mark.parametrize("how", ["program", "file", "module"])
def test_a_linear_after_flatten_goes_to_flax_without_a_word(how: str, program: Any, file: Path, tmp_path: Path) -> None:
    source = {"program": program, "file": file, "module": trained(Net())}[how]
    keep = ["both"] if how == "module" else False  # its cat reads an input of which tracing knows no rank
    lx.convert(source, tmp_path / "out.safetensors", to="flax", keep_order=keep)
    stored = {
        name.removeprefix("params/"): t.read() for name, t in open_store(tmp_path / "out.safetensors").tensors.items()
    }
    names = {name.replace("/", "."): array for name, array in stored.items()}
    state = {name: value.detach().numpy() for name, value in program.state_dict.items()}
    weight = state["first.weight"]
    rows = weight.reshape(7, 5, 4, 4).transpose(2, 3, 1, 0).reshape(80, 7)
    assert np.array_equal(names["first.kernel"], rows)
    assert not np.array_equal(rows, weight.T)
    assert np.array_equal(names["last.kernel"], state["last.weight"].T)


def test_what_cannot_be_followed_is_refused_as_before(tmp_path: Path) -> None:
    class Lost(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 5, 3), nn.Linear(5 * 4, 7)

        def forward(self, x: Any) -> Any:
            return self.fc(torch.fft.fft(self.conv(x)).real.sum(2).flatten(1))

    lost = exported(trained(Lost()), torch.randn(2, 3, 6, 6))
    with pytest.raises(LayoutxError, match="order of the 20 input rows"):
        lx.convert(lost, None, to="flax")


def test_tied_weights_attention_and_recurrence_of_a_program() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
            self.heads[1].weight = self.heads[0].weight
            self.att = nn.MultiheadAttention(8, 2, batch_first=True)
            self.lstm = nn.LSTM(8, 3, num_layers=2, batch_first=True, bidirectional=True)
            self.scale = nn.Parameter(torch.rand(6))
            self.register_buffer("once", torch.rand(6), persistent=False)

        def forward(self, x: Any) -> Any:
            for head in self.heads:
                x = head(x)
            x, _ = self.att(x, x, x, need_weights=False)
            return self.lstm(x)[0] * self.scale + self.once

    found = live_model(exported(trained(Tied()), torch.randn(2, 4, 8)), KNOWN)
    assert found.tied == {"heads.1.weight": "heads.0.weight"}
    assert "once" not in found.tensors
    att = found.modules["att"].config
    assert att["num_heads"] == 2
    assert att["batch_first"] is True
    lstm = found.modules["lstm"].config
    assert (lstm["num_layers"], lstm["bidirectional"], lstm["batch_first"]) == (2, True, True)
    assert found.wires()["heads.1"] == (Way("heads.0"),)


def test_an_older_archive_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(LayoutxError, match="older torch"):
        open_store(tmp_path / "old.pt2")


def test_a_module_that_turns_its_map_before_flattening_is_ported_right() -> None:
    keras = pytest.importorskip("keras")

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 5, 3), nn.Linear(5 * 4 * 4, 7)

        def forward(self, x: Any) -> Any:
            return self.fc(self.conv(x).permute(0, 2, 3, 1).flatten(1))

    k = keras.layers
    model = keras.Sequential([k.Input((6, 6, 3)), k.Conv2D(5, 3), k.Flatten(), k.Dense(7)])
    for at, variable in enumerate(model.weights):
        variable.assign(np.random.default_rng(at).random(variable.shape) - 0.4)
    module = Turned().eval()
    report = lx.port(model, module)
    assert report.end_to_end.agrees
    assert np.array_equal(module.fc.weight.detach().numpy(), np.asarray(model.weights[2]).T)
    back = keras.Sequential([k.Input((6, 6, 3)), k.Conv2D(5, 3), k.Flatten(), k.Dense(7)])
    assert lx.port(module, back).end_to_end.agrees


def test_a_program_is_matched_validated_and_ported_from(program: Any, file: Path) -> None:
    module = Net().eval()
    lx.port(file, module)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in program.state_dict.items())
    found = lx.validate(program, module, [np.ones((2, 3, 8, 16), "f4"), np.ones((2, 13), "f4")])
    assert found.ok, str(found)
    match = lx.match(file, module)
    assert len(match.joint.pairs) == 6
    assert match.complete, match.to_dict()
    assert "hold the same numbers" in str(lx.relate(file, program))
