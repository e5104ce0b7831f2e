"""`layoutx record` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from layoutx.cli import main
from layoutx.verify.running.recorded import read_recording

MODULE = """
import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("torch")
    (tmp_path / "recorded_net.py").write_text(MODULE)
    (tmp_path / "recorded_lacks.py").write_text("import nowhere_to_be_found")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(2, 3)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_it_writes_and_says_what(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "recorded_net:net", "--inputs", "x.npy", "-o", "acts.safetensors"]) == 0
    text = capsys.readouterr().out
    assert "2×3" in text
    assert "4 calls" in text
    assert all(len(line) < 100 for line in text.splitlines())
    found = read_recording(folder / "acts.safetensors")
    assert [call.layer for call in found.calls] == ["0", "1", "2", ""]
    assert found.dtype == "float64"


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["record", "recorded_net:net", "--inputs", "x.npy", "-o", "a.safetensors", "--own-dtype", "--json"]
    assert main(call) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["dtype"] == "float32"
    assert found["calls"][0] == {"layer": "0", "class": "Linear", "number": 0, "in": [[2, 3]], "out": [[2, 5]]}


def test_the_output_is_not_the_inputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"x": np.load("x.npy")}, "x.safetensors")
    before = Path("x.safetensors").read_bytes()
    assert main(["record", "recorded_net:net", "--inputs", "x.safetensors", "-o", "x.safetensors"]) == 2
    assert "the output is x.safetensors itself" in capsys.readouterr().err
    assert Path("x.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["recorded_net:net"], "give inputs"),
        (["recorded_net:net", "--inputs", "none.npy"], "there is no file"),
        (["recorded_net:nett", "--inputs", "x.npy"], "give package.module:callable; near it is net"),
        (["recorded_nett:net", "--inputs", "x.npy"], "in the folder that holds recorded_nett"),
        (["recorded_lacks:net", "--inputs", "x.npy"], "install nowhere_to_be_found, which recorded_lacks imports"),
        (["x.npy", "--inputs", "x.npy"], "holds weights"),
    ],
)
def test_a_wrong_call(folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str) -> None:
    assert main(["record", *more, "-o", "a.safetensors"]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "a.safetensors").exists()
