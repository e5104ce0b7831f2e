"""Fill the command blocks of the pages in docs/ with their real output; with --check, fail where a page is stale.

A block starts with a line `$ layoutx ...` or `$ python ...` inside a ```console fence; what follows is replaced by its
output, run in a folder that has the repository's examples, docs and scripts, and a `build` of its own for each page.
Numbers that depend on the machine (times, rounding errors) are compared as patterns.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs/*.md", "docs/questions/*.md", "docs/guides/*.md")
BLOCK = re.compile(r"```console\n(.*?)```", re.S)
WIDTH = "96"
MODULES = os.pathsep.join([str(ROOT), str(ROOT / "examples")])  # rows_torch:Rows


def rendered(page: str, out: Path) -> str:
    """The page with every command's output as it is now; `out` is where the commands run."""
    return BLOCK.sub(lambda match: f"```console\n{_block(match[1], out)}```", page)


def place(folder: Path) -> Path:
    """A folder to run commands in: examples, docs and scripts as in the repository, and an empty `build`."""
    (folder / "build").mkdir(parents=True)
    for name in ("examples", "docs", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def _block(text: str, out: Path) -> str:
    commands = [line for line in text.splitlines() if line.startswith("$ ")]
    return "".join(f"{command}\n{_output(command[2:], out)}" for command in commands)


def _output(command: str, out: Path) -> str:
    words = shlex.split(command)
    program = [sys.executable, "-m", "layoutx"] if words[0] == "layoutx" else [sys.executable]
    env = {**os.environ, "COLUMNS": WIDTH, "NO_COLOR": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": MODULES}
    done = subprocess.run([*program, *words[1:]], cwd=out, env=env, capture_output=True, text=True, check=False)
    text = done.stdout if done.returncode == 0 else done.stdout + done.stderr
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines()) + "\n"


def settled(text: str) -> str:
    """The text without what differs between machines: times, sizes of rounding errors, white space."""
    text = re.sub(r"\b\d+\.\d+ s\b", "T s", text)
    # a report names versions and this machine's paths, a certificate differences, which are not the same everywhere
    text = re.sub(r"\b\d+\.\d+ [kM]B\b", "M MB", text)
    text = re.sub(r"\b[\d,]+ (explanations|ways) tried\b", r"N \1 tried", text)
    text = re.sub(r"\b\d(\.\d+)?e-\d+\b|\blive 0\b", "EPS", text)
    text = re.sub(r"live EPS", "EPS", text)
    text = re.sub(r"(torch|keras|onnx) \d+\.\d+\.\d+(\+\w+)?", r"\1 V", text)
    return re.sub(r"\s+", " ", text)


def main() -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(page for pattern in PAGES for page in ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            old = path.read_text(encoding="utf-8")
            new = rendered(old, place(Path(folder) / name.replace("/", "-")))
            if check and settled(old) != settled(new):
                stale.append(name)
                (Path(folder) / "new.md").write_text(new, encoding="utf-8")
                subprocess.run(["diff", str(path), str(Path(folder) / "new.md")], check=False)
            elif not check:
                path.write_text(new, encoding="utf-8")
    for name in stale:
        print(f"{name} is stale: run python scripts/example_page.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
