"""Where specs come from: a folder of the user's, the environment, an installed package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layoutx.errors import SpecError
from layoutx.spec.registry import load_registry, spec_folders

SPEC = """kind: gate
about: "y = x * gate."
roles: {gate: "features"}
forms:
  keras.Gate: {source: "mypackage 1.0", tensors: {gate: "gate: features"}}
  torch.Gate: {source: "mypackage 1.0", tensors: {weight: "gate: features"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "mypackage" / "specs"
    place.mkdir(parents=True)
    (place / "gate.yaml").write_text(SPEC, encoding="utf-8")
    (tmp_path / "mypackage" / "__init__.py").touch()
    return place


def test_a_folder_given_by_hand(folder: Path) -> None:
    assert "torch.Gate" in load_registry(spec_folders([folder])).forms


def test_a_folder_of_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYOUTX_SPECS", str(folder))
    assert "keras.Gate" in load_registry(spec_folders()).forms


@pytest.mark.parametrize("value", ["mypackage:specs", "mypackage.specs"])
def test_a_folder_of_an_installed_package(folder: Path, value: str) -> None:
    root = folder.parent.parent
    info = root / "mypackage-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[layoutx.specs]\nmypackage = {value}\n", encoding="utf-8")
    code = "from layoutx.spec.registry import registry; print(registry().form('torch.Gate').kind)"
    paths = os.pathsep.join([str(root), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "gate"


def test_two_files_for_one_kind(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "gate.yaml").write_text(SPEC, encoding="utf-8")
    with pytest.raises(SpecError, match="two spec files describe the kind 'gate'") as caught:
        load_registry(spec_folders([folder, other]))
    assert str(folder) in str(caught.value)
    assert str(other) in str(caught.value)
