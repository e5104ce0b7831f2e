"""The licences of what layoutx and its tests need, as the installed packages state them: docs/licences.md.

python scripts/licences.py            write the page, with the Python of the test environment (scripts/run.py env test)
python scripts/licences.py --check    fail where it is not what the installed packages say
"""

from __future__ import annotations

import platform
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.markers import Environment, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
PERMISSIVE = {"MIT", "BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "0BSD", "Zlib", "CC0-1.0", "ISC", "PSF-2.0"}
# What the metadata say in words.
WORDS = {
    "Apache Software License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "MIT License": "MIT",
    "BSD License": "BSD",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD 3-Clause": "BSD-3-Clause",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
SILENT = {"namex": "Apache-2.0"}  # metadata without a licence: what its repository's licence file is
HEAD = """# Licences

Made by `scripts/licences.py` from the metadata of the installed packages. layoutx itself is under Apache-2.0. Nothing
of these packages is part of its wheel.

## What layoutx needs

Only permissive licences: `tests/test_supply.py` refuses others.

"""
REST = """
## What the tests need besides

The locked test environment (`requirements/test.lock`) on Linux x86-64. None of it is installed with layoutx; the
frameworks of the extras are among it.

"""


@dataclass(frozen=True, slots=True)
class Package:
    """One line of the page."""

    name: str
    version: str
    licence: str

    def row(self) -> str:
        return f"| {self.name} | {self.version} | {self.licence} |"


def locked(path: Path, **environment: str) -> dict[str, Requirement]:
    """The requirements of a lock file, by name, as they apply in one environment (here, if nothing else is said).

    Raises:
        ValueError: a line that is neither a requirement nor a hash, one without a hash, or a name that applies twice.
    """
    found: dict[str, Requirement] = {}
    here = {**default_environment(), "extra": "", **environment}
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    for entry in "\n".join(lines).replace("\\\n", " ").splitlines():
        text, *hashes = re.split(r"\s+--hash=", entry.strip())
        if not hashes or not all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes):
            raise ValueError(f"{path.name}: {text} has no hashes")
        one = Requirement(text)
        if one.marker is None or one.marker.evaluate(here):
            if canonicalize_name(one.name) in found:
                raise ValueError(f"{path.name}: {one.name} stands there twice")
            found[canonicalize_name(one.name)] = one
    return found


def core() -> Iterator[str]:
    """The names of all that an install of layoutx alone brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting, seen = list(project["dependencies"]), set()
    here: Environment = default_environment()
    while waiting:
        wanted = Requirement(waiting.pop())
        name = canonicalize_name(wanted.name)
        if name not in seen and (wanted.marker is None or wanted.marker.evaluate({**here, "extra": ""})):
            seen.add(name)
            waiting += distribution(name).requires or []
            yield name


def licence(package: Distribution) -> str:
    """What a package's metadata say: the SPDX expression, else the classifiers, else the first line of `License`."""
    about = package.metadata
    if expression := about.get("License-Expression"):
        return str(expression)
    classifiers = [line.split(" :: ")[-1] for line in about.get_all("Classifier", []) if line.startswith("License ::")]
    said = (about.get("License") or "").strip().splitlines()[:1]
    short = [line for line in said if len(line) < 30 and line != "UNKNOWN"]
    # A classifier such as "BSD License" says less than an SPDX name in the other field.
    if short and (not classifiers or "-" in short[0]):
        return WORDS.get(short[0], short[0])
    named = [WORDS.get(name, name) for name in classifiers if name != "OSI Approved"] or short
    return " OR ".join(named) or SILENT.get(canonicalize_name(package.name), "not said")


def packages() -> tuple[list[Package], list[Package]]:
    """What the core needs, and what the rest of the test environment is; packages that are not here are left out."""
    own = set(core())
    sides: tuple[list[Package], list[Package]] = ([], [])
    names = {*locked(ROOT / "requirements" / "test.lock"), "torch"}
    for name in sorted(names | own):
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        version = found.version.partition("+")[0]
        sides[name not in own].append(Package(name, version, licence(found)))
    return sides


def page() -> str:
    """The whole page."""
    head = "| package | version | licence |\n| --- | --- | --- |\n"
    texts = [head + "".join(one.row() + "\n" for one in side) for side in packages()]
    return HEAD + texts[0] + REST + texts[1]


def main(arguments: list[str]) -> int:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        print("the page lists the environment of Linux x86-64; this is another", file=sys.stderr)
        return 2
    if arguments == ["--check"]:
        current = PAGE.read_text(encoding="utf-8") == page()
        print("docs/licences.md is current" if current else "docs/licences.md is old: python scripts/licences.py")
        return 0 if current else 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
