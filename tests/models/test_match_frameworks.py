"""One path for all frameworks: files of names, graphs and live models are paired by the same function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch_models
from keras_models import trained

from layoutx.convert import convert
from layoutx.match import match, place_of


@pytest.mark.parametrize("to", ["flax", "torch", "tf1"])
@pytest.mark.parametrize("name", ["cnn", "bilstm"])
def test_files_of_names(name: str, to: str, tmp_path: Path) -> None:
    """A converted file holds the same numbers under other names, in another layout: every layer is found again."""
    path = tmp_path / {"flax": "o.msgpack", "torch": "o.safetensors", "tf1": "o.npz"}[to]
    if to == "tf1" and name == "bilstm":
        pytest.skip("TF1 has no form of a whole Bidirectional without a wrapper")
    trained(name).save(tmp_path / "m.keras")
    convert(tmp_path / "m.keras", path, to=to, live=False)
    options: dict[str, Any] = {"to": to} if to != "flax" else {}
    found = match(tmp_path / "m.keras", path, **options)
    layers = {layer.name for layer in trained(name).layers if layer.weights}
    assert {p.source.name for p in found.joint.pairs} == layers, found.text()
    assert not found.joint.open
    assert all(pair.reason.startswith("the same numbers") for pair in found.joint.pairs)
    back = match(path, tmp_path / "m.keras", from_=to if to != "flax" else "")
    assert {p.target.name for p in back.joint.pairs} == layers
    assert not back.joint.lost


def test_a_flax_file_and_a_torch_module(tmp_path: Path) -> None:
    trained("transformer").save(tmp_path / "m.keras")
    convert(tmp_path / "m.keras", tmp_path / "o.msgpack", to="flax", live=False)
    module = torch_models.Transformer().double()
    from layoutx.port import port

    port(trained("transformer"), module, live=False)
    found = match(tmp_path / "o.msgpack", module)
    pairs = {p.source.name: place_of(p) for p in found.joint.pairs}
    assert pairs["norm1"] == "ln_a"
    assert pairs["norm2"] == "ln_b"
    assert pairs["ff1"] == "wide"
    back = match(module, tmp_path / "o.msgpack")
    assert {place_of(p): p.source.name for p in back.joint.pairs}["norm1"] == "ln_a"
