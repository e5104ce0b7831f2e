"""The built wheel, installed alone into a clean environment, does the main job from outside the checkout."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
SPECS = sorted(path.name for path in (ROOT / "specs").iterdir())
CHECK = str(ROOT / "scripts" / "demo_check.py")
FRAMEWORKS = ("torch", "tensorflow", "keras", "onnx", "onnxruntime", "jax")

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment that holds the wheel and what the wheel itself asks for; `work` is an empty folder."""

    scripts: Path
    work: Path

    def run(self, program: str, *arguments: str, status: int = 0) -> str:
        """What a program of the environment prints, started far from the checkout; it has to end with `status`."""
        # Neither PYTHONPATH nor the width of this terminal may reach it.
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LAYOUTX"))}
        call = [str(self.scripts / program), *arguments]
        done = subprocess.run(call, cwd=self.work, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == status, f"{' '.join(call)}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    isolation = ["--no-isolation"] if importlib.util.find_spec("hatchling") else []
    call = [sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", str(out), str(ROOT)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("clean")
    venv.EnvBuilder(symlinks=os.name != "nt").create(folder / "env")
    scripts = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    # scripts/run.py keeps the wheels of the core install, so that this needs no network; else pip looks for itself.
    kept = Path(sys.prefix) / "wheels"
    source = ["--no-index", "--find-links", str(kept)] if kept.is_dir() else []
    pip = [sys.executable, "-m", "pip", "--python", str(scripts / "python")]
    call = [*pip, "install", "--quiet", "--disable-pip-version-check", *source, str(wheel)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    work = folder / "work"
    work.mkdir()
    return Installed(scripts, work)


def test_the_wheel_holds_the_specs_and_the_type_marker(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert SPECS, "no spec files in the checkout"
    assert sorted(Path(name).name for name in names if name.startswith("layoutx/specs/")) == SPECS
    assert "layoutx/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"layoutx"}


def test_the_environment_is_clean(installed: Installed) -> None:
    code = f"import importlib.util as u; print([n for n in {FRAMEWORKS!r} if u.find_spec(n)])"
    assert installed.run("python", "-c", code) == "[]\n"
    home = installed.run("python", "-c", "import layoutx; print(layoutx.__file__)").strip()
    assert not Path(home).is_relative_to(ROOT)


def test_version(installed: Installed) -> None:
    assert installed.run("layoutx", "--version").split() == ["layoutx", "0.1.0"]


def test_specs_are_found(installed: Installed) -> None:
    printed = installed.run("layoutx", "specs")
    assert "keras.LSTM" in printed
    assert "torch.LSTM" in printed


def test_the_digits_are_converted(installed: Installed) -> None:
    out = installed.work / "digits.safetensors"
    installed.run("layoutx", "convert", str(ROOT / "examples" / "digits.keras"), "-o", str(out), "--to", "torch")
    printed = installed.run("python", CHECK, str(out))
    assert "in NumPy" in printed
    assert "360 of 360 predictions equal" in printed

    # The check can fail: the rows of dense1 in another order, of the same shape.
    weights = load_file(out)
    weights["dense1.weight"] = np.ascontiguousarray(weights["dense1.weight"][:, ::-1])
    save_file(weights, installed.work / "wrong.safetensors")
    printed = installed.run("python", CHECK, str(installed.work / "wrong.safetensors"), status=1)
    assert "SOMETHING ELSE" in printed
