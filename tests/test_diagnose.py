"""`lx.diagnose` and `layoutx diagnose`: planted mistakes are named and repaired, and nothing is invented."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the models diagnosed here are torch's")
pytest.importorskip("keras", reason="and Keras'")

sys.path.append(str(Path(__file__).resolve().parent.parent / "scripts"))

import keras
import torch
from mistakes import attention, between, case, conv, rarer, recorded, recurrent, right, training, wiring
from torch import nn

import layoutx as lx
from layoutx.cli import main
from layoutx.diagnosis import WholeDiagnosis
from layoutx.errors import UsageError

# a few of each module of scripts/mistakes; scripts/bench_diagnose.py plants them all
CHOSEN = (
    *("F1 rows of the kernel, primes", "F2 square dense, square", "F2 Keras dense, primes"),
    *("F7 symmetric border, primes", "F7 odd pixel in front, primes", "F8 batch norm 1e-5, primes"),
    *("F11 a cube converted twice", "F12 conv kernel, primes", "F13 a kernel not loaded", "F14 bias left out, primes"),
    *("F34 B G R inputs", "F19 the activation forgotten", "F20 gelu of tanh after a conv"),
    *("F3 gates i c f o (TF1, haiku), primes", "F4 gates in Keras, square", "F6 the LSTM's bias in both, primes"),
    *("F18 the last step of both directions", "F36 time taken for the batch, square"),
    *("F23 k q v, primes", "F38 two layers of one shape paired the wrong way round"),
    *("F16 in and out, 4 to 4", "F27 average for max pooling", "F27 a max pooling that rounds up"),
    *("F28 aligned corners", "F29 pixel shuffle (CRD) for depth to space (DCR)"),
    *("- branches side by side the other way", "F9 torch's default momentum"),
    *("F10 batch norm in training mode, primes", "F10 dropout as a function, always on"),
    *("F13 no weights loaded at all", "F14 a layer left out", "F30 the whole model in half precision"),
    *("- residual missing, Keras to torch", "- residual from y, torch to torch", "- residual late, Keras to torch"),
    *("- residual around attention missing, primes", "- second residual from the inputs, square"),
    *("F23 3 heads, primes", "F23 2 heads, square", "F36 attention takes the batch for time, primes"),
    *("F36 within a model, 4 by 11", "F36 within a model, 11 by 11"),
    *("F38 two of three exchanged", "F38 three in a circle", "F38 moved on by one", "F38 loaded twice"),
    *("F38 kernels alone exchanged", "F27 two poolings on one path", "F17 a kernel, and a pooling behind it"),
    *("F18 backward outputs not turned back", "F18 averaged directions for their sum", "F37 masked steps read"),
    *("F37 the causal mask forgotten", "F36 the cell state for the state", "F14 a tied head that is not tied"),
    *("F8 batch norm 1e-5, primes, two recordings", "F38 units reversed, square, two recordings"),
    *("F27 two poolings on one path, a live target", "- a residual missing, two recordings"),
    *("F10 dropout as a function, always on, two recordings", "F18 run from the end, a live target"),
    *("F1 rows of the kernel, square, a live target and the source's weights",),
    *("F3 gates i c f o, a live target and the source's weights",),
)
MODULES = (conv, recurrent, attention, between, training, wiring, rarer, recorded)
CASES = {str(one): one for module in MODULES for one in module.cases()}


@pytest.mark.parametrize("name", CHOSEN)
def test_a_mistake_is_found_named_and_repaired(name: str) -> None:
    verdict = case.judged(CASES[name])
    assert verdict.found, verdict.said
    assert verdict.named, verdict.said
    assert verdict.repaired, verdict.said


def test_right_ports_need_no_explanation() -> None:
    assert [alarm for alarm in right.alarms(14, seed=3) if alarm[0]] == []


def diagnosed(made: case.Made) -> WholeDiagnosis:
    with case.doubles():
        return lx.diagnose(*made)


def planted(fix=None, **how) -> WholeDiagnosis:
    with case.doubles():
        return lx.diagnose(*conv.planted(conv.PRIMES, fix, **how))


def test_a_right_port_says_so_and_what_only_training_shows() -> None:
    with case.doubles():
        found = lx.diagnose(*training.momentum(0.01))
    assert found.ok
    assert found.explained
    assert found.layers == ()
    assert found.gaps == ()
    assert [remark.mode for remark in found.remarks] == ["F33"]
    assert "there is nothing to explain" in str(found)


def test_noise_is_none_of_these() -> None:
    noise = case.changed("d2.weight", lambda w: w + 0.3 * np.random.default_rng(1).normal(size=w.shape))
    found = planted(noise)
    assert not found.ok
    assert not found.explained
    assert [one.suspect.name for one in found.layers] == ["d2"]
    assert found.layers[0].explanations == ()
    text = str(found)
    assert "d2: none of these: no known mistake repairs the output" in text
    assert "not explained" in text
    assert "tried in vain" in text
    assert found.layers[0].families["axes of weight"] > 0


def test_what_no_operation_explains_between_layers_is_none_of_these() -> None:
    def strange(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.max_pool2d(x + 0.3 * torch.sin(5 * x), 2)

    found = planted(pool=strange)
    assert [(gap.mode, gap.after == gap.after) for gap in found.gaps] == [("", False)]
    assert found.gaps[0].what.startswith("none of these")
    assert "max pooling of 2 by stride 2" in found.gaps[0].what  # what the source does is known
    assert "something that is not among the known ways" in found.gaps[0].what
    assert not found.explained
    with case.doubles():
        layers = [keras.layers.Lambda(lambda x: keras.ops.sin(3 * x) + x)]
        odd = between.stepped(layers, lambda x: torch.sin(3 * x) + x, strange_too)
        found = lx.diagnose(*odd)
    assert "none of these" in found.gaps[0].what
    assert not found.explained
    assert "tried in vain" in str(found)


def strange_too(x: torch.Tensor) -> torch.Tensor:
    """Nothing that anyone would call by a name."""
    return x + torch.cos(2 * x)


def test_two_mistakes_in_two_layers_are_two_explanations() -> None:
    found = planted(conv.rows(conv.PRIMES), eps=1e-5)
    said = {one.suspect.name: [e.mode for e in one.explanations[0].edits] for one in found.layers}
    assert said == {"bn": ["F8"], "d1": ["F1"]}
    assert found.explained
    assert not found.ok


def test_one_mistake_in_several_layers_is_told_once() -> None:
    def fix(model) -> None:
        for layer in (model.d1, model.d2):
            layer.bias.mul_(2)

    found = planted(fix)
    assert [one.suspect.name for one in found.layers] == ["d1", "d2"]
    assert str(found).count("(F6)") == 1
    assert "d1, d2: " in str(found)


def test_a_layer_with_an_activation_is_searched_without_a_note() -> None:
    found = planted(conv.rows(conv.PRIMES)).layers[0]
    assert found.suspect.settings["activation"] == "relu"
    assert found.note == ""


def test_the_next_best_does_not_fit() -> None:
    found = planted(eps=1e-5).layers[0]
    assert found.explanations[0].after < 1e-12
    assert found.next_best > 1e-4


def test_a_missing_layer_is_told() -> None:
    with case.doubles():
        source, target, inputs = conv.planted(conv.PRIMES)
        target.d2 = nn.Identity()
        found = lx.diagnose(source, target, inputs)
    assert not found.ok
    assert any(remark.mode == "F14" and "d2" in remark.what for remark in found.remarks)


def test_a_comparison_or_one_suspect_will_do() -> None:
    with case.doubles():
        checked = lx.validate(*conv.planted(conv.PRIMES, eps=1e-5))
        whole, one = lx.diagnose(checked), lx.diagnose(checked.suspects()[0])
    assert whole.layers[0].explanations[0].edits[0].mode == one.explanations[0].edits[0].mode == "F8"


def test_one_model_alone_cannot_be_diagnosed() -> None:
    with pytest.raises(UsageError, match="one model cannot be diagnosed"):
        lx.diagnose(nn.Linear(2, 3))


def test_json_is_complete_and_without_nan() -> None:
    found = planted(conv.rows(conv.PRIMES))
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    layer = told["layers"][0]
    assert layer["layer"] == "d1"
    assert layer["explanations"][0]["edits"][0]["mode"] == "F1"
    assert layer["explanations"][0]["certain"]
    assert layer["explanations"][0]["tried"] > 6
    assert layer["families"]["axes of weight"] > 6
    assert not told["ok"]
    assert told["explained"]
    assert told["validation"]["first"] == "d1"


def test_the_text_is_a_screen_under_100_columns() -> None:
    lines = str(planted(conv.rows(conv.PRIMES))).splitlines()
    assert max(map(len, lines)) < 100
    assert len(lines) < 24
    assert lines[0].startswith("Image against Sequential: d1 differs; explained")


MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, slope=0.2):
        super().__init__()
        torch.manual_seed(7)
        self.a, self.b, self.slope = nn.Linear(5, 5), nn.Linear(5, 3), slope
    def forward(self, x):
        return self.b(nn.functional.leaky_relu(self.a(x), self.slope))

def right(): return Net().double()
def slope(): return Net(0.01).double()
def turned():
    net = Net().double()
    with torch.no_grad(): net.a.weight.copy_(net.a.weight.T.clone())
    return net
def noisy():
    net = Net().double()
    with torch.no_grad(): net.b.weight.add_(torch.rand(3, 5))
    return net
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with modules to build, and a batch of inputs; the current one."""
    (tmp_path / "diagnosed_nets.py").write_text(MODULE, encoding="utf-8")
    np.savez(tmp_path / "batch.npz", np.random.default_rng(5).normal(size=(4, 5)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("right", 0, "there is nothing to explain"),
        ("turned", 1, "transposed (F2)"),
        ("slope", 1, "the source does: leaky_relu_0.2; the target does: leaky_relu_0.01 (F31)"),
        ("noisy", 1, "none of these"),
    ],
)
def test_the_command_and_its_status(nets: Path, capsys, target: str, status: int, said: str) -> None:
    call = ["diagnose", "diagnosed_nets:right", f"diagnosed_nets:{target}", "--inputs", "batch.npz"]
    assert main(call) == status
    assert said in " ".join(capsys.readouterr().out.split())
    assert main([*call, "--json"]) == status
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is (status == 0)
    assert told["explained"] is (target != "noisy")


def test_right_runs_that_were_recorded_need_no_explanation() -> None:
    with case.doubles():
        for make in (lambda: conv.planted(conv.PRIMES), lambda: wiring.steps("right"), rarer.both_right):
            for live in (False, True):
                found = lx.diagnose(*recorded.recorded(make(), live))
                assert found.ok, str(found)
                assert found.gaps == ()


def test_what_recordings_do_not_show_says_what_to_give() -> None:
    with case.doubles():
        made = recurrent.single("lstm", recurrent.SIZES["primes"], recurrent.order([0, 2, 1, 3]))
        found = lx.diagnose(*recorded.recorded(made))
    assert not found.explained
    assert "give the weights of the recorded model" in found.gaps[0].what


def test_batch_first_is_named_where_the_whole_model_is_turned() -> None:
    found = diagnosed(recurrent.single("lstm", recurrent.SIZES["primes"], first=False))
    remark = next(remark for remark in found.remarks if remark.mode == "F36")
    assert "(cell)" in remark.what
    assert remark.do.startswith("cell = torch.nn.LSTM(..., batch_first=True), or x.transpose(0, 1)")


def test_a_fault_behind_a_right_place_is_not_invented() -> None:
    """One wrong pooling: what comes after it differs, and does the same as in the source."""
    found = diagnosed(wiring.path(wiring.mean, wiring.best))
    assert [gap.mode for gap in found.gaps] == ["F27"]
    turned = case.changed("c1.weight", lambda w: w[:, :, ::-1, ::-1])
    found = diagnosed(wiring.path(wiring.best, wiring.best, fix=turned))
    assert found.gaps == ()
    assert [one.suspect.name for one in found.layers] == ["c1"]


def test_recordings_and_weights_on_the_command_line(nets: Path, capsys) -> None:
    assert main(["record", "diagnosed_nets:right", "-o", "a.safetensors", "--inputs", "batch.npz"]) == 0
    capsys.readouterr()
    assert main(["diagnose", "a.safetensors", "diagnosed_nets:right"]) == 0
    assert main(["diagnose", "a.safetensors", "diagnosed_nets:slope"]) == 1
    assert "leaky_relu_0.2" in capsys.readouterr().out
    call = ["diagnose", "a.safetensors", "diagnosed_nets:turned"]
    assert main(call) == 1
    assert "None of these" in capsys.readouterr().out
    assert main([*call, "--weights", "diagnosed_nets:right"]) == 1
    assert "transposed (F2)" in capsys.readouterr().out


def test_a_wrong_call_has_status_2(nets: Path, capsys) -> None:
    assert main(["diagnose", "diagnosed_nets:right"]) == 2
    assert main(["diagnose", "diagnosed_nets:right", "diagnosed_nets:none_such", "--inputs", "batch.npz"]) == 2
    assert main(["diagnose", "diagnosed_nets:right", "diagnosed_nets:turned"]) == 2
    assert "--inputs" in capsys.readouterr().err


def test_a_recurrent_layer_that_was_never_loaded_has_a_bias_that_keras_lacks() -> None:
    model = keras.Sequential([keras.Input((7, 5)), keras.layers.LSTM(37)])
    rng = np.random.default_rng(3)
    model.set_weights([rng.normal(size=w.shape).astype("float32") for w in model.get_weights()])

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reader = nn.LSTM(5, 37, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.reader(x)[0][:, -1]

    found = lx.diagnose(model, Last().eval(), rng.normal(size=(13, 7, 5)).astype("float32"))
    (layer,) = found.layers
    (edit,) = layer.explanations[0].edits
    assert edit.mode == "F13"
    assert edit.what.startswith("weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0 hold other numbers")


def test_the_fix_is_code_that_can_be_copied_from_the_terminal() -> None:
    torch.manual_seed(1)
    right = nn.Sequential(nn.Linear(7, 11), nn.Tanh(), nn.LSTM(11, 13))
    model = nn.Sequential(nn.Linear(7, 11), nn.Tanh(), nn.LSTM(11, 13))
    model.load_state_dict(right.state_dict())
    for name, held in model[2].state_dict().items():
        held.copy_(held.reshape(4, -1)[[0, 2, 3, 1]].reshape(held.shape).clone())  # TensorFlow's order
        assert not torch.equal(held, right[2].state_dict()[name])
    text = lx.diagnose(right, model, torch.randn(3, 5, 7)).text(width=96)
    after = text.partition("fix in the model")[2].partition("fix with layoutx")[0]
    exec("\n".join(line.strip() for line in after.strip().splitlines()), {"model": model})
    for name, held in model.state_dict().items():
        assert torch.equal(held, right.state_dict()[name])
