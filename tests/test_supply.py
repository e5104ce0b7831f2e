"""What is installed beside layoutx: locked with hashes, within the stated ranges, under licences that permit."""

from __future__ import annotations

import platform
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from layoutx.files.torch_file import OLDEST
from scripts.licences import PAGE, PERMISSIVE, core, locked, packages, page

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
LOCKS = ("test", "oldest", "newest")
MACHINES = [
    {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.9", "platform_machine": machine}
    for minor in (11, 12, 13)
    for machine in ("x86_64", "aarch64")
]
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython"}
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MADE_BY_RUN = (Path(sys.prefix) / "layoutx-stamp").exists()  # scripts/run.py made this environment


def pinned(requirement: Requirement) -> str:
    """The one version that a requirement allows."""
    (only,) = requirement.specifier
    assert only.operator == "=="
    assert "*" not in only.version
    return only.version


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: f"{m['python_version']}-{m['platform_machine']}")
@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_one_version_of_everything_with_hashes(name: str, machine: dict[str, str]) -> None:
    found = locked(FOLDER / f"{name}.lock", **LINUX, **machine)
    assert len(found) >= 7
    assert "torch" not in found, "its CPU and CUDA builds differ: requirements/torch.txt"
    assert all(pinned(one) for one in found.values())


@pytest.mark.parametrize(
    "text",
    [
        "numpy==2.0\n",
        "numpy==2.0 \\\n    --hash=sha256:12\n",
        f"numpy==2.0 --hash=sha256:{'0' * 64}\nnumpy==2.1 --hash=sha256:{'1' * 64}\n",
    ],
)
def test_a_hole_in_a_lock_is_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.lock").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"no hashes|twice"):
        locked(tmp_path / "a.lock")


def test_the_lock_holds_what_is_asked_for() -> None:
    here = locked(FOLDER / "test.lock")
    for line in (FOLDER / "test.in").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "-r")):
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate():
                assert pinned(here[canonicalize_name(one.name)]) == pinned(one)


def test_the_lock_is_within_the_ranges_of_the_project() -> None:
    """Of the core, and of every extra whose packages the tests install."""
    here = locked(FOLDER / "test.lock")
    torch = {"torch": Requirement((FOLDER / "torch.txt").read_text(encoding="utf-8").splitlines()[-1])}
    texts = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    compared = set()
    for one in map(Requirement, texts):
        name = canonicalize_name(one.name)
        if found := (here | torch).get(name):
            assert pinned(found) in one.specifier, str(one)
            compared.add(name)
    left = {canonicalize_name(Requirement(text).name) for text in texts} - compared
    assert left <= {"tensorflow"}, "tested with tensorflow-cpu"


def test_the_oldest_lock_is_the_lower_bounds() -> None:
    oldest = locked(FOLDER / "oldest.lock", **LINUX, **MACHINES[0])
    newest = locked(FOLDER / "newest.lock", **LINUX, **MACHINES[0])
    for one in map(Requirement, PROJECT["dependencies"]):
        (bound,) = one.specifier
        assert bound.operator == ">=", "an upper bound would keep a user from mending what another package breaks"
        name = canonicalize_name(one.name)
        (of_bound, lowest), (_, highest) = (bound.version, pinned(oldest[name])), ("", pinned(newest[name]))
        assert re.match(rf"{re.escape(of_bound)}(\.\d+)*$", lowest), f"{one} is tested with {lowest}"
        assert lowest != highest


def test_what_is_installed_is_what_the_lock_says() -> None:
    absent, other = [], []
    for name, one in locked(FOLDER / "test.lock").items():
        try:
            other += [] if version(name) == pinned(one) else [f"{name} {version(name)}, not {pinned(one)}"]
        except PackageNotFoundError:
            absent.append(name)
    assert other == []
    assert absent == [] or not MADE_BY_RUN


def test_the_lock_is_complete() -> None:
    """It is installed without following what packages ask for, so it has to hold all of that."""
    here = locked(FOLDER / "test.lock")
    missing = []
    for name in [*here, "torch"]:
        try:
            wanted = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        for one in wanted:
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                found = here.get(canonicalize_name(one.name))
                of_cuda = name == "torch" and found is None and re.match(r"nvidia|cuda|triton", one.name)
                if not of_cuda and (found is None or pinned(found) not in one.specifier):
                    missing.append(f"{name} wants {one}")
    # It would overwrite the files of tensorflow-cpu, which is the same.
    assert set(missing) <= {"tf-keras wants tensorflow<2.22,>=2.21", "paddlepaddle wants opt_einsum==3.3.0"}, missing


def test_the_core_is_small_and_permissive() -> None:
    names = set(core())
    assert {"numpy", "h5py", "mdurl"} <= names
    assert len(names) <= 10
    for one in packages()[0]:
        assert set(re.split(r" AND | OR ", one.licence)) <= PERMISSIVE, one


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="lists Linux x86-64")
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="lists Python 3.11")
def test_the_licence_page_is_current() -> None:
    said = PAGE.read_text(encoding="utf-8")
    assert MADE_BY_RUN is False or said == page()
    for side in packages():
        for one in side:
            assert one.row() in said, "python scripts/licences.py"
    rows = {line.split("|")[1].strip() for line in said.splitlines() if line.startswith("|")} - {"package", "---"}
    assert rows == {*locked(FOLDER / "test.lock"), "torch"}


def test_torch_is_read_safely_by_the_extra() -> None:
    """torch before 2.6 runs code from a file even with `weights_only` (CVE-2025-32434)."""
    assert PROJECT["optional-dependencies"]["torch"] == [f"torch>={OLDEST[0]}.{OLDEST[1]}"]
