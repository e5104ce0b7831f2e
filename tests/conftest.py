"""What every test can count on: quiet single-threaded frameworks, one Hypothesis profile, the real model files."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

# Before any test module imports a framework. Two workers share the machine: more threads only get in each other's way.
for _name, _value in {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "NO_COLOR": "1",
    "COLUMNS": "100",
}.items():
    os.environ.setdefault(_name, _value)

import pytest
from hypothesis import HealthCheck, settings

# No deadline: a shared machine is slow at times, and that is no failure; no chance: what fails, fails again.
settings.register_profile(
    "layoutx", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("layoutx")

ROOT = Path(__file__).resolve().parent.parent
SEED = 11
SEEDING = {
    "random": "seed",
    "numpy": "random.seed",
    "torch": "manual_seed",
    "tensorflow": "random.set_seed",
    "keras": "utils.set_random_seed",
}


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of real model files that LAYOUTX_MODELS names; without one the test is skipped."""
    folder = os.environ.get("LAYOUTX_MODELS", "")
    if not folder:
        pytest.skip("LAYOUTX_MODELS names no folder of real model files")
    if not Path(folder).is_dir():
        pytest.fail(f"LAYOUTX_MODELS={folder} is not a folder")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def read_again() -> Iterator[None]:
    """Count what conversions inside the tests read again and compare, for scripts/security_page.py."""
    folder = os.environ.get("LAYOUTX_RECORDS")
    if not folder:
        yield
        return
    from layoutx.files import save
    from layoutx.move import again

    counts, read, difference = Counter[str](), again._read, save._difference

    def counted_read(file: int, offset: int, size: int) -> Any:
        counts["bytes"] += size
        return read(file, offset, size)

    def counted_difference(store: Any, name: str, arrays: Any) -> str:
        counts["bytes"] += arrays[name].nbytes if name in arrays else 0
        return difference(store, name, arrays)

    again._read, save._difference = counted_read, counted_difference
    yield
    again._read, save._difference = read, difference
    with (Path(folder) / f"verified-{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"verified": "read again and compared before the rename", **counts}) + "\n")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Weights that nobody seeded are the same whatever ran before in this process, and whatever Keras drew for them."""
    for name, seeding in SEEDING.items():
        if module := sys.modules.get(name):
            attrgetter(seeding)(module)(SEED)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Leave a line for scripts/security_page.py about what this machine cannot try."""
    folder = os.environ.get("LAYOUTX_RECORDS")
    if folder and report.skipped and report.nodeid.startswith(("tests/attacks/", "tests/faults/")):
        why = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        with (Path(folder) / f"skipped-{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"skipped": report.nodeid, "why": why}) + "\n")
