"""The pages of questions 1 to 5 are true: every command is run again, every Python line is a doctest.

`python tests/test_questions_explained.py --fill` writes the outputs of the commands anew.
"""

from __future__ import annotations

import doctest
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(p for p in (ROOT / "docs" / "questions").glob("[1-5]-*.md"))


def script() -> Any:
    """scripts/example_page.py, which runs the commands of a page."""
    spec = importlib.util.spec_from_file_location("example_page", ROOT / "scripts" / "example_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_commands_of_a_page_print_what_it_shows(page: Path, tmp_path: Path) -> None:
    runner, text = script(), page.read_text(encoding="utf-8")
    assert runner.settled(runner.rendered(text, runner.place(tmp_path / "run"))) == runner.settled(text)
    lines = [line for block in runner.BLOCK.findall(text) for line in block.splitlines() if not line.startswith("$ ")]
    assert max(map(len, lines)) < 100
    assert not any("Error" in line for line in lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_python_of_a_page_is_true(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert tried
    assert failed == 0


def test_there_are_five_pages() -> None:
    assert len(PAGES) == 5


if __name__ == "__main__" and "--fill" in sys.argv:
    import tempfile

    pages = script()
    for path in PAGES:
        with tempfile.TemporaryDirectory() as folder:
            text = pages.rendered(path.read_text(encoding="utf-8"), pages.place(Path(folder) / "run"))
            path.write_text(text, encoding="utf-8")
