"""The built wheel: its bytes, its files, and its main job with the oldest and the newest core packages alone."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
CHECK = str(ROOT / "scripts" / "demo_check.py")
FRAMEWORKS = ("torch", "tensorflow", "keras", "onnx", "onnxruntime", "jax")

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment that holds the wheel and what the wheel itself asks for; `work` is an empty folder."""

    scripts: Path
    work: Path
    age: str

    def run(self, program: str, *arguments: str, status: int = 0) -> str:
        """What a program of the environment prints, started far from the checkout; it has to end with `status`."""
        # Neither PYTHONPATH nor the width of this terminal may reach it.
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LAYOUTX"))}
        call = [str(self.scripts / program), *arguments]
        done = subprocess.run(call, cwd=self.work, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == status, f"{' '.join(call)}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def in_the_tree() -> list[str]:
    """Every file that is, or would be, in the repository."""
    call = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return sorted(name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file())


def build(tree: Path, out: Path, umask: int = 0o022, **settings: str) -> tuple[Path, Path]:
    """The wheel and the sdist that a tree gives."""
    isolation = ["--no-isolation"] if importlib.util.find_spec("hatchling") else []
    call = [sys.executable, "-m", "build", "--wheel", "--sdist", *isolation, "--outdir", str(out), str(tree)]
    clean = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    done = subprocess.run(
        call, env=clean | settings, umask=umask, cwd=out.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def copied(to: Path, newer: bool = False) -> Path:
    """A copy of the tree, its files dated now or years ago."""
    for name in in_the_tree():
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
        target.chmod(0o600 | (0o111 & (ROOT / name).stat().st_mode))
        if not newer:
            os.utime(target, (1_000_000_000, 1_000_000_000))
    return to


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Wheel and sdist."""
    folder = tmp_path_factory.mktemp("one")
    (folder / "dist").mkdir()
    return build(copied(folder / "tree"), folder / "dist")


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, Path]) -> Path:
    return built[0]


@pytest.fixture(scope="module")
def sdist(built: tuple[Path, Path]) -> Path:
    return built[1]


@pytest.fixture(scope="module", params=["newest", "oldest"])
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Installed:
    folder = tmp_path_factory.mktemp(request.param)
    venv.EnvBuilder(symlinks=os.name != "nt").create(folder / "env")
    scripts = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    # scripts/run.py keeps the wheels of the core install, so that this needs no network; else pip looks for itself.
    kept = Path(sys.prefix) / "wheels" / request.param
    if kept.is_dir() and any(kept.iterdir()):
        source = ["--no-index", "--find-links", str(kept)]
    elif request.param == "newest":
        source = []
    else:
        pytest.skip("scripts/run.py keeps the oldest wheels for Python 3.11 on x86-64 only")
    pip = [sys.executable, "-m", "pip", "--python", str(scripts / "python")]
    call = [*pip, "install", "--quiet", "--disable-pip-version-check", *source, str(wheel)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    work = folder / "work"
    work.mkdir()
    return Installed(scripts, work, request.param)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    expected = [name for name in in_the_tree() if name.startswith("layoutx/")]
    expected += [f"layoutx/{name}" for name in in_the_tree() if name.startswith("specs/")]
    about = f"{wheel.name.split('-py3')[0]}.dist-info"
    expected += [f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")]
    with zipfile.ZipFile(wheel) as archive:
        assert sorted(archive.namelist()) == sorted(expected)
    assert {"layoutx/py.typed", "layoutx/specs/dense.yaml", "layoutx/page/page.css"} <= set(expected)
    kinds = {Path(name).suffix for name in expected if name.startswith("layoutx/")}
    assert kinds <= {".py", ".typed", ".yaml", ".json", ".css", ".js"}, "a kind of file that nobody expects there"


def test_the_sdist_holds_the_sources_and_nothing_else(sdist: Path) -> None:
    folders = ("layoutx/", "specs/", "docs/", "examples/", "scripts/", "requirements/", "tests/")
    alone = ("LICENSE", "pyproject.toml", ".gitignore", "PKG-INFO")
    expected = [n for n in [*in_the_tree(), "PKG-INFO"] if n.startswith(folders) or n in alone or top_markdown(n)]
    with tarfile.open(sdist) as archive:
        found = [member.name.split("/", 1)[1] for member in archive.getmembers()]
        assert all(member.isfile() for member in archive.getmembers())
    assert sorted(found) == sorted(expected)


def top_markdown(name: str) -> bool:
    return "/" not in name and name.endswith(".md")


def test_two_builds_give_the_same_bytes(built: tuple[Path, Path], tmp_path: Path) -> None:
    """In another folder, from files of another date, under another umask, time zone and language."""
    (tmp_path / "dist").mkdir()
    tree = copied(tmp_path / "a" / "longer name" / "tree", newer=True)
    again = build(tree, tmp_path / "dist", umask=0o077, TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7")
    assert [path.name for path in again] == [path.name for path in built]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in built]


def test_the_sdist_gives_the_same_wheel(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(sdist.read_bytes())) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (tree,) = tmp_path.iterdir()
    (tmp_path / "dist").mkdir()
    again, _ = build(tree, tmp_path / "dist")
    assert again.read_bytes() == wheel.read_bytes()


def test_the_environment_is_clean(installed: Installed) -> None:
    code = f"import importlib.util as u; print([n for n in {FRAMEWORKS!r} if u.find_spec(n)])"
    assert installed.run("python", "-c", code) == "[]\n"
    home = installed.run("python", "-c", "import layoutx; print(layoutx.__file__)").strip()
    assert not Path(home).is_relative_to(ROOT)


def test_the_versions_are_those_of_the_lock(installed: Installed) -> None:
    """Those that pip chose freely from the metadata of the wheel: the lower bounds are true."""
    lock = (ROOT / "requirements" / f"{installed.age}.lock").read_text(encoding="utf-8")
    code = "import importlib.metadata as m; print(*sorted(f'{d.name}=={d.version}' for d in m.distributions()))"
    names = ["numpy", "h5py", "safetensors", "ml-dtypes", "pyyaml", "rich", "xxhash"]
    found = {one.lower().replace("_", "-") for one in installed.run("python", "-c", code).split()}
    chosen = {one for one in found if one.split("==")[0] in names}
    assert len(chosen) == len(names)
    assert all(one in lock for one in chosen), chosen


def test_version(installed: Installed) -> None:
    assert installed.run("layoutx", "--version").split() == ["layoutx", "0.1.0"]


def test_specs_are_found(installed: Installed) -> None:
    printed = installed.run("layoutx", "specs")
    assert "keras.LSTM" in printed
    assert "torch.LSTM" in printed
    installed.run("layoutx", "specs", "check")


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


def test_the_digits_are_shown_and_come_back(installed: Installed) -> None:
    digits, there, back = ROOT / "examples" / "digits.keras", "there.safetensors", "back.keras"
    assert "conv1" in installed.run("layoutx", "inspect", str(digits))
    assert "kernel" in installed.run("layoutx", "explain", str(digits), "dense1")
    assert "pixels" in installed.run("layoutx", "explain", str(ROOT / "examples" / "after.h5"))
    assert "kernel" in installed.run(
        "layoutx", "plan", "keras.LSTM", "torch.LSTM", "--size", "input=7", "--size", "hidden=5"
    )
    installed.run("layoutx", "convert", str(digits), "-o", there, "--to", "torch")
    installed.run("layoutx", "convert", there, "-o", back, "--to", "keras", "--like", str(digits))
    installed.run("layoutx", "diff", str(digits), back)


ROUND_TRIP = """
import numpy as np, ml_dtypes
from layoutx.files.open import open_store
from layoutx.files.save import save
bits = np.random.default_rng(0).integers(0, 256, 5 * 8, dtype=np.uint8)
dtypes = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
arrays = {f"block.{i}": bits.view(dtype).reshape(5, -1) for i, dtype in enumerate(dtypes)}
for ending in ("safetensors", "npz", "msgpack", "pdparams"):
    held = {name: a for name, a in arrays.items() if ending == "safetensors" or a.dtype.kind in "fiu"}
    save(f"trip.{ending}", held, {})
    tensors = open_store(f"trip.{ending}").tensors
    assert {n: (t.read().dtype, t.read().tobytes()) for n, t in tensors.items()} == {
        n: (a.dtype, a.tobytes()) for n, a in held.items()}, ending
    print(ending, len(held))
"""


def test_every_dtype_survives_every_format(installed: Installed) -> None:
    assert installed.run("python", "-c", ROUND_TRIP).split()[::2] == ["safetensors", "npz", "msgpack", "pdparams"]
