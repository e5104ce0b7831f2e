"""The lock files: every version the tests install, with the hashes of all its files.

    python scripts/lock.py            write requirements/*.lock; versions in them stay where they still fit
    python scripts/lock.py --anew     take the newest of everything that requirements/test.in leaves open

test.lock is the test environment. oldest.lock and newest.lock are the core install, at the lower bounds of
pyproject.toml and without upper ones: tests/test_wheel.py installs the wheel with both. Needs `uv` and the network.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
USUAL = ["--universal", "--generate-hashes", "--no-header", "--no-annotate", "--fork-strategy", "fewest"]
LOCKS = {
    "test": ["requirements/test.in", "--python-version", "3.11", "--no-emit-package", "torch"],
    "oldest": ["pyproject.toml", "--python-version", "3.11", "--resolution", "lowest-direct"],
    "newest": ["pyproject.toml", "--python-version", "3.11", "--resolution", "highest"],
}
HEAD = "# Made by scripts/lock.py of {}: edit that, and run it again.\n"


def lock(name: str, arguments: list[str], anew: bool) -> None:
    """Write one lock file."""
    path = FOLDER / f"{name}.lock"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.lock"  # not the file itself: what uv prints about a failure must not end there
        if path.exists() and not anew:
            out.write_bytes(path.read_bytes())
        call = ["uv", "pip", "compile", *arguments, *USUAL, "--config-file", "requirements/uv.toml"]
        call += ["--no-python-downloads", "--quiet", "--output-file", str(out)]
        subprocess.run(call, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        lines = [line for line in out.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    path.write_text(HEAD.format(arguments[0]) + "\n".join(lines) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--anew"]):
        print(__doc__, file=sys.stderr)
        return 2
    for name, own in LOCKS.items():
        lock(name, own, anew=bool(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
