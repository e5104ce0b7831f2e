"""The commands that take whole models: their examples, mapping files on every one of them, what they leave behind."""

import json
import os
import shutil

import numpy as np
import pytest
from edited import DIGITS, edited, layer
from safetensors.numpy import load_file, save_file

from layoutx.cli import main
from layoutx.cli.options import parser

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
torch = pytest.importorskip("torch")
keras = pytest.importorskip("keras")

MODULE = """
import os
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F


class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(12, eps=1e-3)
        self.conv2 = nn.Conv2d(12, 20, 3, stride=2)
        self.dense1 = nn.Linear(80, 48)
        self.output = nn.Linear(48, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.relu(self.conv2(F.pad(x, (0, 1, 0, 1))))
        x = F.relu(self.dense1(x.flatten(1)))
        return F.softmax(self.output(x), dim=1)


def Tagger():
    model = Digits()
    model.load_state_dict(load_file(os.environ["PORTED"]))
    return model.eval()


def extra():
    model = Digits()
    model.aux = nn.Linear(3, 3)
    return model


def half():
    return Digits().half()


def unbiased():
    model = Digits()
    model.conv1 = nn.Conv2d(1, 12, 3, padding=1, bias=False)
    return model


def other_pool():
    class Other(Digits):
        def forward(self, x):
            x = F.avg_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
            x = F.relu(self.conv2(F.pad(x, (0, 1, 0, 1))))
            return F.softmax(self.output(F.relu(self.dense1(x.flatten(1)))), dim=1)

    return Other()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder as the examples assume it: digits.keras, model.h5, mypkg.models, ported weights, a batch of inputs."""
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg" / "models.py").write_text(MODULE)
    shutil.copy(DIGITS, tmp_path / "digits.keras")
    keras.models.load_model(DIGITS).save(tmp_path / "model.h5")
    np.savez(tmp_path / "batch.npz", image=np.random.default_rng(3).normal(size=(3, 8, 8, 1)).astype("float32"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mypkg", "mypkg.models"):
        monkeypatch.delitem(os.sys.modules, name, raising=False)
    monkeypatch.setenv("PORTED", str(tmp_path / "ported.safetensors"))
    assert main(["convert", "digits.keras", "-o", "ported.safetensors", "--to", "torch", "--no-live", "--quiet"]) == 0
    return tmp_path


def call(capsys, text, status=0):
    found = main(text.split())
    out, err = capsys.readouterr()
    assert found == status, f"{out}\n{err}"
    assert max(map(len, (out + err).split("\n"))) < 100 or "--json" in text
    return out + err


def test_every_example_of_the_help_runs(folder, capsys):
    for command in ("match", "port", "record", "relate", "validate", "diagnose"):
        example = call(capsys, f"{command} --help").split("example:\n  layoutx ")[1].split("\n")[0]
        call(capsys, example)
        if command != "record":
            continue
        call(capsys, "validate acts.safetensors mypkg.models:Tagger")


@pytest.mark.parametrize(
    "text", [f"{c} digits.keras {b}" for c, b in [
        ("match", "mypkg.models:Digits"), ("validate", "mypkg.models:Tagger"), ("diagnose", "mypkg.models:Tagger"),
        ("relate", "ported.safetensors"), ("port", "mypkg.models:Digits -o out.safetensors")]],
)  # fmt: skip
def test_every_command_takes_a_mapping_file(text, folder, capsys):
    call(capsys, "match digits.keras ported.safetensors -o map.yaml")
    made = folder / "map.yaml"
    made.write_bytes(b"# by hand\r\n" + made.read_bytes().replace(b"\n", b"\r\n"))  # a Windows editor
    call(capsys, f"{text} --map map.yaml")
    before = sorted(folder.iterdir())
    (folder / "wrong.yaml").write_text("pairs:\n  conv9: conv1\n  dense1: nowhere\n  output: [a\n")
    assert "wrong.yaml:" in call(capsys, f"{text} --map wrong.yaml", 1)
    (folder / "wrong.yaml").write_text("pairs:\n  conv9: conv1\n  dense1: nowhere\n")
    said = call(capsys, f"{text} --map wrong.yaml", 1)
    assert "conv9" in said
    assert "nowhere" in said
    assert sorted(folder.iterdir()) == sorted([*before, folder / "wrong.yaml"])


def test_a_file_is_run_and_compared_with_the_port(folder, capsys):
    out = call(capsys, "port digits.keras mypkg.models:Digits -o out.safetensors")
    assert "the models compute the same" in out
    assert "Whole models in float32" in out
    assert "layoutx verify out.safetensors" in out
    assert "Made by layoutx" in call(capsys, "inspect out.safetensors")
    said = call(capsys, "port digits.keras mypkg.models:other_pool -o no.safetensors", 1)
    assert "do not compute the same" in said
    assert not (folder / "no.safetensors").exists()
    out = call(capsys, "port ported.safetensors mypkg.models:Digits -o again.pt")
    assert "ported.safetensors cannot be run: it holds weights" in " ".join(out.split())


def test_a_module_of_the_target_is_left_out_by_its_name(folder, capsys):
    assert "aux.weight" in call(capsys, "match digits.keras mypkg.models:extra", 1)
    call(capsys, "match digits.keras mypkg.models:extra --skip aux")
    call(capsys, "port digits.keras mypkg.models:extra -o out.safetensors --skip aux")
    call(capsys, "port digits.keras mypkg.models:extra -o out.safetensors --skip au", 2)


def test_a_recording_is_no_file_of_weights(folder, capsys):
    call(capsys, "record digits.keras -o acts.safetensors")
    files = "digits.keras acts.safetensors"
    for text in (f"match {files}", f"relate {files}", "inspect acts.safetensors"):
        assert "is a recording" in call(capsys, text, 2)


def test_answers_as_json(folder, capsys):
    arguments = {
        "match": "digits.keras mypkg.models:Digits",
        "port": "digits.keras mypkg.models:Digits -o out.safetensors",
        "record": "digits.keras -o acts.safetensors",
        "relate": "digits.keras ported.safetensors",
        "validate": "digits.keras mypkg.models:Tagger",
        "diagnose": "digits.keras mypkg.models:Tagger",
    }
    for command, text in arguments.items():
        assert json.loads(call(capsys, f"{command} {text} --json"))
    assert json.loads(call(capsys, "validate digits.keras mypkg.models:Digits --json", 1))["ok"] is False
    assert set(arguments) <= set(parser()._subparsers._group_actions[0].choices)


def test_half_a_target_needs_consent(folder, capsys):
    assert "rounds" in call(capsys, "port digits.keras mypkg.models:half -o out.safetensors", 1)
    out = call(capsys, "port digits.keras mypkg.models:half -o out.safetensors --allow rounds")
    assert "the models compute the same" in out
    assert load_file("out.safetensors")["conv1.weight"].dtype == np.float16


def test_nan_is_told(folder, capsys):
    weights = load_file("ported.safetensors")
    weights["conv2.weight"][0, 0, 0, 0] = np.nan
    save_file(weights, "nan.safetensors")
    said = call(capsys, "relate ported.safetensors nan.safetensors", 1)
    assert "with NaN on one side" in said


@pytest.mark.parametrize(("text", "said"), [
    ("match digits.keras mypkg.models:Digits --to torhc", "no framework is called 'torhc'"),
    ("match digits.keras mypkg.models:Digits --to keras", "a Digits is a torch model, not one of keras"),
    ("match digits.keras mypkg.models:Digits --from flax", "digits.keras says itself what it is, not flax"),
    ("port digits.keras mypkg.models:Digits -o o.safetensors --from flax", "says itself what it is, not flax"),
    ("port digits.keras mypkg.models:Digits -o o.safetensors --inputs .", ". is a folder"),
    ("port digits.keras mypkg.models:Digits -o o.safetensors --map no.yaml", "there is no mapping file no.yaml"),
    ("relate digits.keras ported.safetensors --from torhc", "no framework is called 'torhc'"),
    ("validate digits.keras mypkg.models:Tagger --tolerance -1", "no difference is below -1"),
    ("diagnose digits.keras mypkg.models:Tagger --tolerance nan", "no difference is below nan"),
    ("validate digits.keras mypkg.models:Tagger --weights digits.keras", "weights are told of a recording alone"),
    ("record digits.keras -o acts.npz", "acts.npz is no name of a recording"),
    ("record digits.keras -o nowhere/acts.safetensors", "there is no folder for acts.safetensors"),
    ("convert digits.keras -o o.onnx --to torch", "the output o.onnx would be ONNX"),
    ("convert digits.keras -o o.weights.h5 --to flax", "would be a Keras file"),
    ("convert digits.keras -o o.safetensors --to torch --backend theano", "digits.keras is no file of theano"),
    ("convert ~/digits.keras -o o.safetensors --to torch", "a shell reads ~"),
    ("history nohistory.lxh", "there is no file nohistory.lxh"),
    ("verify ported.safetensors --to flax", "ported.safetensors was made for torch, not flax"),
    ("inspect mypkg.models:Digit", "mypkg.models:Digit cannot be imported"),
    ("explain digits.keras --part kernel", "part can be asked of one layer alone name the layer too"),
    ("explain digits.keras --element 0,1 --to torch", "to and element can be asked of one layer alone"),
    ("explain digits.keras dense1 --part kernel --axis input", "part and axis are questions of their own ask one"),
    ("explain digits.keras dense1 --axis input --to onnx", "the answer about axis compares no frameworks leave onnx"),
    ("explain digits.keras dense1 --size input=7", "sizes can be asked of a form (keras.Dense) alone"),
    ("explain keras.Dense dense1", "keras.Dense is a form and has no layers"),
    ("explain digits.keras --svg all.svg", "there is no picture of this"),
    ("verify mypkg", "mypkg is a folder"),
    ("match digits.keras mypkg.models:Digits -o .", ". is no file"),
    ("explain digits.keras dense1 --element a,b", "whole numbers are meant"),
])  # fmt: skip
def test_a_wrong_call_is_said_so(text, said, folder, capsys):
    before = sorted(folder.iterdir())
    assert said in " ".join(call(capsys, text, 2).split())
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before


@pytest.mark.parametrize(("text", "said"), [
    ("history .", ". cannot be read"),
    ("convert digits.keras -o o.safetensors --to torch --like mypkg.models:nothing", "nothing() gave None, no model"),
])  # fmt: skip
def test_what_is_no_file_or_no_model(text, said, folder, capsys):
    with (folder / "mypkg" / "models.py").open("a") as file:
        file.write("\n\ndef nothing():\n    return None\n")
    assert said in " ".join(call(capsys, text, 1).split())
    assert not (folder / "o.safetensors").exists()


def test_the_reasons_of_a_refused_port_stand_on_lines_of_their_own(folder, capsys):
    said = call(capsys, "port digits.keras mypkg.models:other_pool -o no.safetensors --keep-order", 1)
    assert "The fault lies between" in said
    assert "\\x0a" not in said


def test_port_takes_the_words_that_its_errors_ask_for(folder, capsys):
    port = "port digits.keras mypkg.models:unbiased -o one.safetensors"
    assert "--materialise" in call(capsys, port, 1)
    assert "the models compute the same" in call(capsys, f"{port} --materialise")
    edited(folder / "odd.keras", lambda config: layer(config, "conv1")["config"].update(own_key=3))
    port = "port odd.keras mypkg.models:extra -o two.safetensors --skip aux --no-compare --no-live"
    assert "--ignore-key own_key" in call(capsys, port, 1)
    assert "NumPy" in call(capsys, f"{port} --ignore-key own_key")


def test_a_callable_is_looked_at_like_a_file(folder, capsys):
    assert "bn1.running_mean" in call(capsys, "inspect mypkg.models:extra")
    assert "with weights" in call(capsys, "inspect mypkg.models:extra --stats", 0)
