"""`layoutx port --verify`: the words that `lx.port` takes, and what the report then says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("torch", reason="the target is a torch module")
from safetensors.numpy import save_file

from layoutx.cli import main

MODULE = (
    "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3))\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of weights, and a module of the user's that builds the target."""
    rng = np.random.default_rng(5)
    shapes = {"0.weight": (5, 5), "0.bias": (5,), "2.weight": (3, 5), "2.bias": (3,)}
    save_file(
        {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}, tmp_path / "m.safetensors"
    )
    (tmp_path / "ported_here.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("level", "said"),
    [
        ("auto", "bit-exact"),
        ("layers", "bit-exact"),
        ("bytes", "bit-exact by its plan"),
        ("none", "bit-exact by its plan"),
    ],
)
def test_levels(folder: Path, level: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["port", "m.safetensors", "ported_here:make", "-o", "out.safetensors", "--from", "torch", "--json"]
    assert main([*call, "--no-compare", "--verify", level]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert {layer["proof"]["round_trip"] for layer in layers} == {said}
    before, after = load_file(folder / "m.safetensors"), load_file(folder / "out.safetensors")
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)


@pytest.mark.parametrize(
    "call",
    [
        ["port", "m.safetensors", "ported_here:make"],
        ["convert", "m.safetensors", "--to", "torch", "--like", "m.safetensors"],
    ],
)
def test_what_keeps_its_start_is_named(folder: Path, call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    call = [*call, "-o", "out.safetensors", "--from", "torch", "--verify", "none", "--report", "page.html"]
    assert main([*call, "--skip", "2"]) == 0
    said = capsys.readouterr().out
    assert "2 of 4 source tensors used, 2 of 4 target keys written." in said
    assert "2 target keys keep what the target held: 2." in said
    assert "2 target keys keep what the target held: 2." in (folder / "page.html").read_text()


def test_the_result_as_a_page(folder: Path) -> None:
    call = ["port", "m.safetensors", "ported_here:make", "-o", "out.safetensors", "--from", "torch", "--no-compare"]
    assert main([*call, "--report", "out.safetensors"]) == 2
    assert not (folder / "out.safetensors").exists()
    assert main([*call, "--report", "page.html"]) == 0
    text = (folder / "page.html").read_text(encoding="utf-8")
    assert "<h2>Layers that were moved</h2>" in text
    assert "<h2>Where the numbers live</h2>" in text


def test_the_output_is_not_the_source(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "m.safetensors").read_bytes()
    assert main(["port", "m.safetensors", "ported_here:make", "-o", "m.safetensors", "--from", "torch"]) == 2
    assert "the output is m.safetensors itself" in capsys.readouterr().err
    assert (folder / "m.safetensors").read_bytes() == before


def test_another_word(folder: Path) -> None:
    call = ["port", "m.safetensors", "ported_here:make", "-o", "out.safetensors", "--verify", "some"]
    assert main(call) == 2
    assert not (folder / "out.safetensors").exists()
