"""What dead runs left of an output goes with the next run to it; what is alive, or another's, stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from scenes import Scene, files, record
from steps import disturbed

import layoutx as lx
from layoutx.files import leftovers
from layoutx.files.atomic import replacing, replacing_folder
from layoutx.files.leftovers import DAY, OLD, held, let_go, scratch, temporary_of
from layoutx.files.open import open_store
from layoutx.files.save import save

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
Scenes = Callable[..., Scene]


def dead(target: Path, folder: bool = False) -> Path:
    """A temporary of a run that was killed while it wrote."""

    def work() -> None:
        with temporary_of(target, folder) as place:
            (place / "part" if folder else place).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    before = set(os.listdir(target.parent))
    assert disturbed(work).killed
    (made,) = set(os.listdir(target.parent)) - before
    return target.parent / made


@pytest.mark.parametrize("folder", [False, True])
def test_the_next_run_removes_what_a_dead_one_left(tmp_path: Path, folder: bool) -> None:
    left = dead(tmp_path / "m.npz", folder)
    assert left.exists()
    save(tmp_path / "m.npz", {"w": np.arange(3.0)}, {})
    assert os.listdir(tmp_path) == ["m.npz"]


def test_other_outputs_temporaries_stay(tmp_path: Path) -> None:
    """Also of names that begin alike, and of what only looks like one."""
    kept = {dead(tmp_path / name).name for name in ("n.npz", "m.npz.npz", "xm.npz", "m")}
    for name in (".m.npz.tmp", ".m.npz.12345.tmp", ".m.npz.0123456z.tmp", "m.npz.01234567.tmp", ".m.npz.01234567"):
        (tmp_path / name).write_bytes(b"mine")
        kept.add(name)
    (tmp_path / ".m.npz.01234567.tmp").symlink_to(tmp_path / "n")
    save(tmp_path / "m.npz", {"w": np.arange(3.0)}, {})
    assert set(os.listdir(tmp_path)) == {"m.npz", ".m.npz.01234567.tmp", *kept}


@pytest.mark.parametrize("folder", [False, True])
def test_a_living_runs_temporary_stays(tmp_path: Path, folder: bool) -> None:
    target = tmp_path / "m.npz"
    with temporary_of(target, folder) as living:
        os.utime(living, (time.time() - 9 * DAY,) * 2)
        save(target, {"w": np.arange(3.0)}, {})
        assert living.exists()
    assert os.listdir(tmp_path) == ["m.npz"]


def test_a_living_process_is_alive(tmp_path: Path) -> None:
    """As above, with the temporary in another process."""
    inward, outward = os.pipe()
    child = os.fork()
    if not child:
        with temporary_of(tmp_path / "m.npz"):
            os.write(outward, b"x")
            signal.pause()
    os.read(inward, 1)
    save(tmp_path / "m.npz", {"w": np.arange(3.0)}, {})
    assert len(os.listdir(tmp_path)) == 2
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    save(tmp_path / "m.npz", {"w": np.arange(3.0)}, {})
    assert os.listdir(tmp_path) == ["m.npz"]


def test_a_child_of_a_dead_run_holds_nothing(tmp_path: Path) -> None:
    """Workers outlive who forked them; what he wrote is dead all the same."""
    inward, outward = os.pipe()
    child = os.fork()
    if not child:
        with temporary_of(tmp_path / "m.npz"):
            worker = os.fork()
            if not worker:  # what it says is said by a process that runs, and has let go of what it must not hold
                os.write(outward, str(os.getpid()).encode())
                signal.pause()
            signal.pause()
    worker = int(os.read(inward, 20))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        save(tmp_path / "m.npz", {"w": np.arange(3.0)}, {})
        assert os.listdir(tmp_path) == ["m.npz"]
    finally:
        os.kill(worker, signal.SIGKILL)


def test_without_locks_a_day_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network file system that has none, a fresh temporary may be alive."""
    monkeypatch.setattr(leftovers, "_lock", lambda handle, alone: None)
    young, aged, folder = (dead(tmp_path / "m.npz", kind) for kind in (False, False, True))
    for path in (aged, folder):
        os.utime(path, (time.time() - 2 * DAY,) * 2)
    save(tmp_path / "m.npz", {"w": np.arange(3.0)}, {})
    assert set(os.listdir(tmp_path)) == {"m.npz", young.name}


def test_a_sweep_takes_no_file_before_its_lock_is_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other run sweeps between the making of a temporary and its lock: another one is made."""
    lock, swept = leftovers._lock, []

    def late(handle: int, alone: bool) -> bool | None:
        if not swept:
            swept.append(True)
            leftovers.sweep(tmp_path / "m.npz")
        return lock(handle, alone)

    monkeypatch.setattr(leftovers, "_lock", late)
    save(tmp_path / "m.npz", {"w": np.arange(3.0)}, {})
    assert swept
    assert os.listdir(tmp_path) == ["m.npz"]


def test_an_old_folder_that_was_moved_aside_comes_back(tmp_path: Path) -> None:
    """Killed between two renames, where folders cannot be exchanged; the next run fails, and the old one is there."""
    left = dead(tmp_path / "m.orbax", folder=True)
    (left / OLD).mkdir()
    (left / OLD / "w").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "m.orbax", lambda _: True):
        raise ZeroDivisionError
    assert files(tmp_path) == {"m.orbax/w": b"old"}


def test_the_data_of_a_large_onnx_model_goes_with_it(tmp_path: Path) -> None:
    """It lies beside the model from its first byte on, under a name that is not hidden."""
    left = dead(tmp_path / "m.onnx")
    token = left.name.split(".")[-2]
    (tmp_path / f"m.onnx.{token}.data").write_bytes(b"half")
    (tmp_path / "m.onnx.89abcdef.data").write_bytes(b"of the model that is there")
    with replacing(tmp_path / "m.onnx") as place:
        place.write_bytes(b"new")
    assert sorted(os.listdir(tmp_path)) == ["m.onnx", "m.onnx.89abcdef.data"]


def test_scratch_folders_of_dead_runs_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead(tmp_path / "layoutx", folder=True)
    with scratch() as folder:
        (folder / "w").write_bytes(b"x")
        assert os.listdir(tmp_path) == [folder.name]
    assert os.listdir(tmp_path) == []


def test_names_that_are_as_long_as_names_can_be(tmp_path: Path) -> None:
    for name in ("m" * 251 + ".npz", "重" * 83 + ".npz"):
        save(tmp_path / name, {"w": np.arange(3.0)}, {})
        dead(tmp_path / name)
        save(tmp_path / name, {"w": np.arange(5.0)}, {})
    assert len(os.listdir(tmp_path)) == 2


def test_conversions_to_names_that_are_as_long_as_names_can_be(tmp_path: Path) -> None:
    """Where shards would lie is looked at beside every output, and orbax lengthens the name that it is given."""
    pytest.importorskip("orbax.checkpoint")
    save_file({"w": np.arange(3.0, dtype="f4")}, tmp_path / "m.safetensors", metadata={"format": "flax"})
    for name in ("m" * 243 + ".safetensors", "重" * 81 + ".safetensors", "m" * 249 + ".orbax"):
        dtype = "f16" if name.endswith(".safetensors") else None
        lx.convert(tmp_path / "m.safetensors", tmp_path / name, to="flax", dtype=dtype)
        assert [*open_store(tmp_path / name).tensors] == ["w"]
    assert len(os.listdir(tmp_path)) == 4


def test_a_work_folder_is_held_by_one(tmp_path: Path) -> None:
    first = held(tmp_path / "work")
    assert first is not None
    assert held(tmp_path / "work") is None
    let_go(first)
    again = held(tmp_path / "work")
    assert again is not None
    let_go(again)


def test_shards_of_a_stopped_run_go_with_the_next_single_file(scene: Scenes) -> None:
    found = scene("shards")
    for at in range(20, 60, 8):
        found.reset()
        assert disturbed(lambda: found.make(found.folder), at).killed
        found.make(found.folder, max_shard_size=None)
        left = files(found.folder)
        assert not [name for name in left if name.startswith(".")]
        assert "m.safetensors" in left


def test_files_without_a_name_go_with_their_process(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom layoutx.files.spool import room, spooling\n"
        "with spooling(Path(sys.argv[1])):\n"
        "    made = room(1 << 20, Path('x'))\n    made[:] = 1\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == []
    record("temporaries of dead, living and other runs told apart", 14, 14)


def test_a_store_keeps_nothing_of_runs_that_died_long_ago(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Objects are as old as they say; younger ones may be another run's, and other names are others'."""
    fsspec = pytest.importorskip("fsspec", reason="remote files")
    from layoutx.files.remote import located
    from layoutx.files.remote_write import upload

    fs = fsspec.filesystem("memory")
    fs.pipe({f"/leftovers/{name}": b"x" for name in (OURS, "n.npz.01234567.tmp", "m.npz.0123456z.tmp", "m.npz")})
    (tmp_path / "m.npz").write_bytes(b"new")
    upload(tmp_path / "m.npz", located("memory://leftovers/m.npz"), again=True)
    assert fs.exists(f"/leftovers/{OURS}")
    fs.store[f"/leftovers/{OURS}"].modified -= timedelta(days=2)
    upload(tmp_path / "m.npz", located("memory://leftovers/m.npz"), again=True)
    assert sorted(one.rsplit("/", 1)[-1] for one in fs.ls("/leftovers", detail=False)) == [
        *("m.npz", "m.npz.0123456z.tmp", "n.npz.01234567.tmp")
    ]
    fs.rm("/leftovers", recursive=True)


OURS = "m.npz.01234567.tmp"
