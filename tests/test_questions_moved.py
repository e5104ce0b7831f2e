"""The pages of questions 6 and 7 are real runs: their code is executed, their outputs compared; --fill writes them.

python tests/test_questions_moved.py --fill
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("6-did-not-change.md", "7-history.md")
BLOCK = re.compile(r"```(python|shell-session|output)\n(.*?)```", re.S)
WIDTH = "96"


def rendered(text: str) -> str:
    """The page with all outputs as they are now; the current folder takes the files."""
    space: dict[str, Any] = {}
    printed = ""

    def block(found: re.Match[str]) -> str:
        nonlocal printed
        kind, body = found[1], found[2]
        if kind == "python":
            printed = _ran(body, space)
        elif kind == "shell-session":
            commands = [line for line in body.splitlines() if line.startswith("$ ")]
            body = "".join(f"{line}\n{_called(line[2:])}" for line in commands)
        else:
            body = printed
        return f"```{kind}\n{body}```"

    return BLOCK.sub(block, text)


def _ran(code: str, space: dict[str, Any]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "page", "exec"), space)
    return out.getvalue()


def _called(command: str) -> str:
    from layoutx.cli import main

    name, *words = shlex.split(command)
    assert name == "layoutx"
    out = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        with contextlib.redirect_stdout(out):
            assert main(words) == 0
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return out.getvalue()


def settled(text: str) -> str:
    """Without what differs between machines: the digits of what training computed, and white space."""
    text = re.sub(r"\b\d+(\.\d+)?e-\d+\b|\b\d+\.\d+\b", "N", text)
    text = re.sub(r"\b\d+ %", "N %", text)
    return re.sub(r"\s+", " ", text.replace("N %", "N%"))


@pytest.mark.parametrize("page", PAGES)
def test_the_page_is_a_real_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "questions" / page).read_text(encoding="utf-8")
    assert settled(rendered(text)) == settled(text)


def fill() -> None:
    """Write the outputs into the pages."""
    import tempfile

    for page in PAGES:
        path = ROOT / "docs" / "questions" / page
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            new = rendered(path.read_text(encoding="utf-8"))
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__" and "--fill" in sys.argv:
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    fill()
