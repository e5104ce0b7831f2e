"""`lx.validate` and `layoutx validate`: what is told, exit statuses, and that nothing is silently left out."""

from __future__ import annotations

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the models compared here are torch's")

from torch import nn  # noqa: E402

from layoutx.cli import main  # noqa: E402
from layoutx.errors import UsageError  # noqa: E402
from layoutx.validate import validate  # noqa: E402

RNG = np.random.default_rng(20261121)
MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.conv, self.fc, self.out = nn.Conv2d(2, 3, (2, 3)), nn.Linear(3 * 4 * 3, 5), nn.Linear(5, 7)
    def forward(self, x):
        return self.out(torch.relu(self.fc(torch.tanh(self.conv(x)).flatten(1))))

class Short(Net):
    def forward(self, x):
        return self.out(self.fc(torch.tanh(self.conv(x)).flatten(1)))

def right(): return Net().double()
def short(): return Short().double()
def wrong():
    net = Net().double()
    with torch.no_grad(): net.fc.weight[4, 30] += 0.5
    return net
def broken():
    net = Net().double()
    net.out = nn.Linear(6, 7).double()
    return net
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A folder with modules to build, and a batch of inputs; the current one."""
    (tmp_path / "validated_nets.py").write_text(MODULE, encoding="utf-8")
    np.savez(tmp_path / "batch.npz", RNG.normal(size=(3, 2, 5, 5)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run(capsys, *arguments):
    status = main(["validate", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_same(nets, capsys):
    status, out, _ = run(capsys, "validated_nets:right", "validated_nets:right", "--inputs", "batch.npz")
    assert status == 0
    assert "they compute the same" in out
    assert "3 of 3 layers compared; 1 output compared end to end." in out


def test_a_wrong_weight(nets, capsys):
    status, out, _ = run(capsys, "validated_nets:right", "validated_nets:wrong", "--inputs", "batch.npz")
    assert status == 1
    assert "they differ, first in fc" in out
    line = next(line for line in out.splitlines() if line.split()[:1] == ["fc"])
    assert "unit 4" in line
    assert line.endswith("FAIL  ← first difference")
    assert all(len(line) < 100 for line in out.splitlines())


def test_json(nets, capsys):
    status, out, _ = run(capsys, "validated_nets:right", "validated_nets:short", "--inputs", "batch.npz", "--json")
    found = json.loads(out)
    assert status == 1
    assert found["ok"] is False
    assert found["first"] == "between fc and out"
    assert found["between"][0]["before"] == ["fc"]
    assert [check["verdict"] for check in found["checks"]] == ["OK", "OK", "OK"]
    assert found["end_to_end"][0]["verdict"] == "FAIL"
    assert found["layers"] == {"compared": 3, "of": 3}


def test_a_tolerance(nets, capsys):
    arguments = ("validated_nets:right", "validated_nets:wrong", "--inputs", "batch.npz", "--tolerance", "10")
    assert run(capsys, *arguments)[0] == 0


def test_no_inputs(nets, capsys):
    status, _, err = run(capsys, "validated_nets:right", "validated_nets:right")
    assert status == 2
    assert "--inputs batch.npz" in err


def test_a_file_of_weights_cannot_be_run(nets, capsys):
    np.savez("weights.npz", w=RNG.normal(size=(3, 5)))
    status, _, err = run(capsys, "validated_nets:right", "weights.npz", "--inputs", "batch.npz")
    assert status == 2
    assert "cannot be run" in err


def test_a_target_that_does_not_run_is_not_ok():
    """Its layers are still compared one by one; that nothing was compared end to end is said."""

    class Net(nn.Module):
        def __init__(self, bad=False):
            super().__init__()
            self.a, self.b, self.bad = nn.Linear(3, 5), nn.Linear(5, 7), bad

        def forward(self, x):
            return self.b(self.a(x).T if self.bad else self.a(x))

    good, bad = Net().double(), Net(True).double()
    bad.load_state_dict(good.state_dict())
    found = validate(good, bad, RNG.normal(size=(2, 3)))
    assert not found.ok
    assert [check.verdict for check in found.checks] == ["OK", "OK"]
    assert found.end_to_end == ()
    assert any("does not run" in note for note in found.notes)
    assert "the target as a whole was not run" in str(found)


def test_layers_without_counterpart_are_listed():
    class Net(nn.Module):
        def __init__(self, extra):
            super().__init__()
            self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 7)
            if extra:
                self.extra = nn.LayerNorm(7)

        def forward(self, x):
            x = self.b(self.a(x))
            return self.extra(x) if hasattr(self, "extra") else x

    one, more = Net(False).double(), Net(True).double()
    more.load_state_dict(one.state_dict(), strict=False)
    x = RNG.normal(size=(2, 3))
    found = validate(more, one, x)
    assert not found.ok
    assert list(found.lost) == ["extra"]
    assert (found.compared, found.layers) == (2, 3)
    assert "1 layer of the source without counterpart: extra" in str(found)
    back = validate(one, more, x)
    assert not back.ok
    assert set(back.unused) == {"extra.weight", "extra.bias"}
    assert back.between is not None
    assert (back.between.before, back.between.after) == (("b",), "")


def test_square_layers_with_a_transposed_weight():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

    one, other = Net().double(), Net().double()
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        other.a.weight.copy_(one.a.weight.T)
    found = validate(one, other, RNG.normal(size=(5, 5)))
    assert [(check.layer, check.verdict) for check in found.checks] == [("a", "FAIL"), ("b", "OK")]
    assert found.first.layer == "a"


def test_no_model():
    with pytest.raises(UsageError, match="cannot be run"):
        validate({"a.weight": np.zeros((2, 3))}, nn.Linear(3, 2), RNG.normal(size=(2, 3)))


def test_values_that_a_file_lacks_are_heard(nets):
    pytest.importorskip("keras")
    from edited import DIGITS

    with pytest.raises(UsageError, match="no_such_key"):
        validate(DIGITS, DIGITS, values={"no_such_key": 1})
