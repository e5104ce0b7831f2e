"""Where specs come from: a folder of the user's, the environment, an installed package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layoutx.errors import SpecError
from layoutx.lang.show import show
from layoutx.spec.registry import load_registry, registry, spec_folders

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


def test_a_spec_that_is_changed_is_read_again(folder: Path) -> None:
    """In one process, as in a notebook where somebody writes a spec."""
    first = registry([folder])
    assert registry([folder]) is first
    (folder / "gate.yaml").write_text(SPEC.replace('"gate: features"', '"gate: -features"', 1), encoding="utf-8")
    (stored,) = registry([folder]).form("keras.Gate").tensors
    assert show(stored.cases[0].value) == "gate: -features"


def test_one_relative_name_in_two_folders_is_two_registries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = folder.parent.parent / "other" / "specs"
    other.mkdir(parents=True)
    (other / "gate.yaml").write_text(SPEC.replace('"gate: features"', '"gate: -features"', 1), encoding="utf-8")
    for place, layout in ((folder, "gate: features"), (other, "gate: -features")):
        monkeypatch.chdir(place.parent)
        (stored,) = registry(["specs"]).form("keras.Gate").tensors
        assert show(stored.cases[0].value) == layout
