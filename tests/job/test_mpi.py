"""Shards made by a real MPI job of three processes: `mpiexec -n 3 python -m mpi4py.futures script.py`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import files, same

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from pathlib import Path

from cluster import converted
from mpi4py.futures import MPIPoolExecutor

from layoutx.errors import ConversionError
from layoutx.job import executors


def refused(part):
    raise ConversionError(f"no {part.path.name}", where="here", do="that")


if __name__ == "__main__":
    source, folder, refuse = sys.argv[1:]
    if refuse == "refuse":
        executors.make = refused
    with MPIPoolExecutor() as executor:
        print(executor.submit(pow, 2, 10).result(), executor.num_workers)
        try:
            converted(Path(source), Path(folder), executor=executor)
        except ConversionError as error:
            print(error)
"""


def run(tmp_path, source, refuse=""):
    """What the script prints, line by line."""
    pytest.importorskip("mpi4py")
    launcher = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if launcher is None:
        pytest.skip("no mpiexec")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    done = subprocess.run(
        [launcher, "-n", "3", sys.executable, "-m", "mpi4py.futures", script, source, tmp_path / "out", refuse],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_mpi(tmp_path, source, wanted):
    assert run(tmp_path, source) == ["1024 2"]
    same(files(tmp_path / "out"), wanted)


def test_what_a_worker_refuses_is_said_as_layoutx_says_it(tmp_path, source):
    first, *told = run(tmp_path, source, "refuse")
    assert first == "1024 2"
    assert told[0].startswith("no m-")
    assert told[1:] == ["  here", "  that"]
    assert files(tmp_path / "out") == {}
