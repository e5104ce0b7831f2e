"""A call to the system that fails: an error that says what to do, the old output as it was, no temporaries."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scenes import Scene, files, record, visible
from steps import EVERY, STRANGE, WORSE, disturbed, failing

from layoutx.convert import convert
from layoutx.errors import FileError, LayoutxError, UsageError
from layoutx.files import atomic, guarded
from layoutx.files.save import save

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
ROOT = Path(__file__).resolve().parents[2]
Scenes = Callable[..., Scene]
REMOVALS = {"unlink", "rmdir", "remove", "scandir", "listdir", "close", "__exit__", "fstat", "open"}


def every_fault(found: Scene, reads: bool) -> tuple[int, int]:
    """Let each call fail; how many were tried, and how many of them the work outlived with its output made."""
    tried = outlived = 0
    calls = disturbed(lambda: found.make(found.folder), reads=reads).calls
    for at in range(1, calls + 1, EVERY):
        numbers = [errno.EIO]
        for number in numbers:
            found.reset()
            ended = disturbed(lambda: found.make(found.folder), at, failing(number), reads)
            assert ended.status != STRANGE, f"{ended.call} with {errno.errorcode[number]}: {ended.said}"
            if number == errno.EIO:
                numbers += [n for n in WORSE.get(ended.call, ()) if n != errno.EIO]
            state = found.state()
            tried += 1
            outlived += not ended.status
            if ended.status:
                assert ended.status in (1, 2)
                assert ended.do, ended.said
                left = files(found.folder)
                clean = left == visible(left)
                assert clean or ended.call in REMOVALS or "shards are kept" in ended.do or "goes on" in ended.do, (
                    ended,
                    list(left),
                )
            else:
                assert state == "new", ended
            found.finish()
    return tried, outlived


@pytest.mark.parametrize("what", ["safetensors", "npz", "shards"])
def test_each_call_fails(scene: Scenes, what: str) -> None:
    found = scene(what)
    tried, outlived = every_fault(found, reads=False)
    assert tried * EVERY > 16
    assert outlived < tried
    assert "old" in found.states
    record(f"each of its calls to the system fails: {what}", tried, tried)


def test_each_read_fails(scene: Scenes) -> None:
    tried, _ = every_fault(scene("safetensors"), reads=True)
    record("each of its reads and writes fails: safetensors", tried, tried)


@pytest.mark.parametrize("name", ["m.safetensors", "m.npz"])
def test_a_disk_that_fills_up(tmp_path: Path, name: str) -> None:
    """The limit on file sizes stands in for a disk that is full at every size of the file."""
    source = ROOT / "examples" / "digits.keras"
    out = tmp_path / name
    convert(source, out, to="torch", live=False, verify="bytes")
    size, tried = out.stat().st_size, 0
    out.write_bytes(b"old")
    for most in (0, 1, 511, 4096, size // 2, size - 1):

        def work(most: int = most) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            convert(source, out, to="torch", live=False, verify="bytes")

        ended = disturbed(work)
        assert ended.status == 1, ended.said
        assert "cannot write" in ended.said
        assert name in ended.said
        assert "ulimit -f" in ended.do
        assert files(tmp_path) == {name: b"old"}
        tried += 1
    record(f"a disk that is full after some bytes: {name}", tried, tried)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_file_system(disk: Path) -> None:
    source = ROOT / "examples" / "digits.keras"
    for name in ("m.safetensors", "m.npz"):
        out = disk / name
        out.write_bytes(b"old")
        about = os.statvfs(disk)
        (disk / "ballast").write_bytes(b"x" * (about.f_bavail * about.f_frsize - 20_000))
        with pytest.raises(FileError, match="No space left") as caught:
            convert(source, out, to="torch", live=False, verify="bytes")
        assert "make room" in str(caught.value)
        assert sorted(files(disk)) == ["ballast", name]
        assert out.read_bytes() == b"old"
        (disk / "ballast").unlink()
        convert(source, out, to="torch", live=False, verify="bytes")
        assert sorted(files(disk)) == [name]
        out.unlink()
    record("a full file system", 2, 2)


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    """Before any work: a folder, a pipe, a device, a link to itself, no folder, a folder of others."""
    array = {"w": np.arange(3.0)}
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "loop.npz").symlink_to(tmp_path / "loop2.npz")
    (tmp_path / "loop2.npz").symlink_to(tmp_path / "loop.npz")
    (tmp_path / "device.npz").symlink_to("/dev/null")
    (tmp_path / "gone.npz").symlink_to(tmp_path / "nowhere" / "x.npz")
    before = sorted(os.listdir(tmp_path))
    cases = {
        "folder.npz": "is a folder",
        "pipe.npz": "is no file",
        "device.npz": "is no file",
        "loop.npz": "link to itself",
        "gone.npz": "no folder",
        "nowhere/x.npz": "no folder",
        "pipe.npz/x.npz": "no folder",
    }
    for name, why in cases.items():
        with pytest.raises(UsageError, match=why):
            save(tmp_path / name, array, {})
    assert sorted(os.listdir(tmp_path)) == before
    assert stat.S_ISFIFO((tmp_path / "pipe.npz").stat().st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    record("outputs that are a folder, a pipe, a device, a loop, or nowhere", len(cases), len(cases))


@pytest.mark.parametrize(("mode", "why"), [(0o555, "cannot be written"), (0o444, "cannot be entered")])
def test_a_folder_that_may_not_be_written(mode: int, why: str) -> None:
    place = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    (place / "m.npz").write_bytes(b"old")

    def work() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)
        save(place / "m.npz", {"w": np.arange(3.0)}, {})

    place.chmod(mode)
    try:
        ended = disturbed(work)
    finally:
        place.chmod(0o755)
    assert ended.status == 2, ended.said
    assert why in ended.said
    assert "choose" in ended.do
    assert files(place) == {"m.npz": b"old"}
    shutil.rmtree(place)


def test_a_folder_that_goes_meanwhile(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(FileError, match="cannot write") as caught, atomic.replacing(place / "m.npz"):
        shutil.rmtree(place)
    assert "the folder is gone" in caught.value.do


def test_an_output_that_becomes_a_folder_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot write") as caught, atomic.replacing(tmp_path / "m.npz"):
        (tmp_path / "m.npz").mkdir()
    assert "choose another" in caught.value.do
    assert files(tmp_path) == {}


def test_no_memory_and_no_file_handles(scene: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scene("safetensors")

    def few(extra: int) -> None:
        lowest = os.dup(0)  # what is opened next has this number
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + extra, lowest + extra))
        found.make(found.folder)

    for extra in range(6):
        ended = disturbed(partial(few, extra))
        assert ended.status in (0, 1, 2), ended.said
        assert not ended.status or ended.do
        assert found.state() == ("old" if ended.status else "new")
        found.reset()

    def mapped(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(guarded, "Map", mapped)
    with pytest.raises(LayoutxError, match="Cannot allocate memory"):
        found.make(found.folder)
    monkeypatch.undo()
    assert found.state() == "old"
    assert files(found.folder) == found.old


def test_a_disk_that_cannot_sync(scene: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scene("safetensors")

    def failed(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failed)
    with pytest.raises(FileError, match="Input/output error") as caught:
        found.make(found.folder)
    assert "the disk or its network failed" in caught.value.do
    assert files(found.folder) == found.old


def test_memory_that_runs_out_in_a_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.npz").write_bytes(b"old")
    with pytest.raises(FileError, match="cannot write") as caught, atomic.replacing(tmp_path / "m.npz"):
        raise MemoryError
    assert "free memory" in caught.value.do
    assert files(tmp_path) == {"m.npz": b"old"}


def run(*arguments: object, **how: object) -> subprocess.CompletedProcess[bytes]:
    call = [sys.executable, "-m", "layoutx", *map(str, arguments)]
    return subprocess.run(call, cwd=ROOT, check=False, timeout=300, stderr=subprocess.PIPE, **how)  # type: ignore[call-overload]


def test_a_report_that_nobody_reads_does_no_harm_to_the_output(tmp_path: Path) -> None:
    """stdout is full, or closed by `head`: the output is whole, the status tells, and there is no traceback."""
    out = tmp_path / "m.safetensors"
    call = ("convert", "examples/digits.keras", "-o", out, "--to", "torch", "--no-live", "--verify", "bytes")
    if Path("/dev/full").exists():
        with open("/dev/full", "wb") as full:
            done = run(*call, stdout=full)
        assert done.returncode == 1, done.stderr
        assert b"No space left" in done.stderr
        assert b"Traceback" not in done.stderr
        assert list(files(tmp_path)) == ["m.safetensors"]
        out.unlink()
    inward, outward = os.pipe()
    os.close(inward)
    done = run(*call, stdout=outward)
    os.close(outward)
    assert (done.returncode, done.stderr) == (141, b"")
    assert list(files(tmp_path)) == ["m.safetensors"]
