"""The golden plans are what the specs mean now; a change of a spec shows as a diff of tests/golden."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from layoutx.spec.load import load_spec
from layoutx.spec.registry import builtin_folder
from scripts import golden_plans


@pytest.mark.parametrize("kind", sorted(golden_plans.specs().kinds))
def test_golden_plans_are_up_to_date(kind: str) -> None:
    name = f"{kind}.txt"
    path = golden_plans.GOLDEN / name
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    now = golden_plans.golden(golden_plans.specs().kinds[kind])
    diff = "\n".join(difflib.unified_diff(before.splitlines(), now.splitlines(), name, f"{name} now", lineterm=""))
    if diff:
        pytest.fail(f"{diff}\nrun `python scripts/golden_plans.py` if this is what you meant", pytrace=False)


def test_no_golden_file_is_left_over() -> None:
    files = {path.stem for path in golden_plans.GOLDEN.glob("*.txt")}
    assert files == set(golden_plans.specs().kinds)


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("lstm", "(gate[i f g o] hidden) input", "(gate[i g f o] hidden) input"),
        ("dense", "kernel: output input", "kernel: input output"),
        ("conv", "kernel: (group out) in ...", "kernel: (out group) in ..."),
        ("conv", "kernel: ... in (group out)", "kernel: -... in (group out)"),
        ("gru", "{b_input | b_recurrent} (gate", "{b_recurrent | b_input} (gate"),
    ],
)
def test_a_mistake_in_a_spec_changes_a_golden_plan(kind: str, right: str, wrong: str, tmp_path: Path) -> None:
    text = (builtin_folder() / f"{kind}.yaml").read_text(encoding="utf-8")
    assert right in text
    spoiled = tmp_path / f"{kind}.yaml"
    spoiled.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    now = {f"{kind}.txt": golden_plans.golden(load_spec(spoiled))}
    assert golden_plans.golden(load_spec(builtin_folder() / f"{kind}.yaml")) != now[f"{kind}.txt"]
    (tmp_path / "golden").mkdir()
    golden = golden_plans.golden(load_spec(builtin_folder() / f"{kind}.yaml"))
    (tmp_path / "golden" / f"{kind}.txt").write_text(golden, encoding="utf-8")
    diff = golden_plans.stale(now, tmp_path / "golden")
    assert diff.startswith(f"--- tests/golden/{kind}.txt\n+++ {kind}.txt now\n")


def test_check_says_what_is_stale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(golden_plans, "GOLDEN", tmp_path)
    assert golden_plans.main([]) == 0
    assert golden_plans.main(["--check"]) == 0
    assert capsys.readouterr().out == ""
    dense = tmp_path / "dense.txt"
    dense.write_text(dense.read_text(encoding="utf-8").replace(".T", ""), encoding="utf-8")
    (tmp_path / "gone.txt").write_text("a kind that is no more\n", encoding="utf-8")
    assert golden_plans.main(["--check"]) == 1
    shown = capsys.readouterr().out
    assert "+  weight = kernel.T kernel; bias = bias bias" in shown
    assert "-a kind that is no more" in shown
