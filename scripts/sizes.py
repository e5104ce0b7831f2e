"""Lines of every module, longest first: the first line is the next refactoring.

python scripts/sizes.py [FOLDER ...]      default: layoutx
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def sizes(folder: Path) -> list[tuple[int, Path]]:
    """(lines, path) of the Python files under a folder, longest first."""
    found = [(len(path.read_text(encoding="utf-8").splitlines()), path) for path in folder.rglob("*.py")]
    return sorted(found, key=lambda pair: (-pair[0], pair[1]))


def main(folders: list[str]) -> None:
    """Print one line a module, then the total."""
    found = sorted((pair for folder in folders for pair in sizes(ROOT / folder)), key=lambda pair: -pair[0])
    for lines, path in found:
        print(f"{lines:5d}  {path.relative_to(ROOT)}")
    print(f"{sum(lines for lines, _ in found):5d}  in {len(found)} modules")


if __name__ == "__main__":
    main(sys.argv[1:] or ["layoutx"])
