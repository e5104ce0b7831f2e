"""docs/questions/8: every output is what it is today, in the shell and in Python; every finding is in the table."""

from __future__ import annotations

import doctest
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("keras")
pytest.importorskip("torch")
pytest.importorskip("tensorflow")

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "questions" / "8-which-layers-matter.md"


def filler() -> ModuleType:
    """scripts/example_page.py, which runs the commands of a page."""
    spec = importlib.util.spec_from_file_location("example_page", ROOT / "scripts" / "example_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_commands_say_this_today(tmp_path: Path) -> None:
    page = filler()
    old = PAGE.read_text(encoding="utf-8")
    new = page.rendered(old, page.place(tmp_path / "run"))
    assert page.settled(old) == page.settled(new)


def test_the_python_says_this_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    done = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert done.attempted > 10
    assert done.failed == 0


def test_every_finding_is_in_the_table() -> None:
    rules = set()
    for path in [*(ROOT / "layoutx" / "verify" / "stats").glob("*.py"), ROOT / "layoutx" / "stats.py"]:
        text = path.read_text(encoding="utf-8")
        rules |= set(re.findall(r'Finding\(\s*"([^"]+)"', text))
        rules |= set(re.findall(r'"((?:exploding|vanishing) candidates)"', text))
    table = PAGE.read_text(encoding="utf-8")
    assert len(rules) >= 15
    assert {rule for rule in rules if not re.search(rf"(?m)^\|[^|]*\b{rule}\b", table)} == set()
