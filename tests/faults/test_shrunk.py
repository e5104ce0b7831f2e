"""A source that becomes shorter while it is read: an error that says so, the old output, nothing else; never SIGBUS."""

from __future__ import annotations

import faulthandler
import gc
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from harm import OLD, SHRUNK, Reader
from scenes import record
from sources import command, copied

from layoutx.errors import FileError
from layoutx.files import blob, guarded, spool
from layoutx.files.guarded import SourceError, intact
from layoutx.files.open import open_store
from layoutx.files.written import write_all

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows lets nobody cut a mapped file")
MAPPED, FILLED = "layoutx.files.blob:mapped", "layoutx.move.filled:flat_of"
NEVER = 1 << 30
MOMENTS = {"first": 0.0, "middle": 0.5, "last": 1.0}


_CALLS: dict[str, int] = {}


def counted(reader: Reader, task: dict, place: str) -> int:
    """How often a task calls a function; told apart by what the task is, not by where its files lie."""
    key = re.sub(r"/[^ ']*/", "", f"{task} {place}")
    if key not in _CALLS:
        _CALLS[key] = reader.run({**task, "stop": [place, NEVER]}, lambda: None)["calls"]
        assert _CALLS[key] > 2
    return _CALLS[key]


@pytest.fixture
def shortened(reader: Reader, tmp_path: Path) -> Callable[..., None]:
    """`shortened(task, source, harm, place, share)`: a task whose source is cut at a share of the calls of a function.

    It ends with the error, and leaves the folder as it was.
    """

    def check(task: dict, source: Path, harm: Callable[[Path], None], place: str, share: float) -> None:
        calls = counted(reader, task, place)
        for path in tmp_path.iterdir():
            if path.name.startswith("out"):
                path.write_text("old")
        before = sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".parts"))
        found = reader.run({**task, "stop": [place, max(1, round(share * calls))]}, lambda: harm(source))
        assert found.get("reached"), found
        assert found.get("status") == 1, found
        assert source.name in found["said"], found
        assert "became shorter while it was read" in found["said"], found
        after = (path.name for path in tmp_path.iterdir() if not path.name.endswith(".parts"))  # kept for --resume
        assert sorted(after) == before
        assert all(path.read_text() == "old" for path in tmp_path.iterdir() if path.name.startswith("out"))

    return check


@pytest.mark.parametrize("harm", SHRUNK)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize(("format", "jobs"), [("safetensors", 1), ("safetensors", 2), ("weights.h5", 2), ("keras", 1)])
def test_a_conversion_ends_with_the_error(shortened, sources, tmp_path, format, jobs, moment, harm):
    source = copied(sources[format], tmp_path)
    task = {"argv": command(source, tmp_path / "out.safetensors", "--jobs", str(jobs), "--verify", "bytes")}
    shortened(task, source, harm, FILLED, MOMENTS[moment])


@pytest.mark.parametrize("out", ["out.npz", "out.safetensors"])
@pytest.mark.parametrize("format", ["safetensors", "npz", "keras"])
def test_proofs_and_whole_arrays_end_with_the_error(shortened, sources, tmp_path, format, out):
    source = copied(sources[format], tmp_path)
    task = {"argv": command(source, tmp_path / out, "--verify", "layers")}
    shortened(task, source, SHRUNK[0], MAPPED, 0.4)


@pytest.mark.parametrize("moment", ["first", "last"])
def test_shards_end_with_the_error_and_none_is_put_in_place(shortened, sources, tmp_path, moment):
    source = copied(sources["safetensors"], tmp_path)
    task = {"argv": command(source, tmp_path / "out.safetensors", "--max-shard-size", "1200KB")}
    shortened(task, source, SHRUNK[0], FILLED, MOMENTS[moment])


def test_a_torch_file_that_torch_itself_has_mapped(shortened, tmp_path):
    torch = pytest.importorskip("torch")
    state = {f"fc{i}.weight": torch.rand(509, 521) for i in range(3)}
    state |= {f"fc{i}.bias": torch.rand(509) for i in range(3)}
    source = tmp_path / "m.pt"
    torch.save(state, source)
    task = {"argv": command(source, tmp_path / "out.safetensors", "--verify", "bytes")}
    shortened(task, source, SHRUNK[0], FILLED, 0.3)


READING = {
    "port": """
import torch
sizes = (521, 509, 503, 499)
layers = torch.nn.ModuleDict({f"fc{i}": torch.nn.Linear(a, b) for i, (a, b) in enumerate(zip(sizes, sizes[1:]))})
lx.port(SOURCE, layers, compare=False, verify="none")
""",
    "diff": "lx.diff(SOURCE, OTHER)",
    "relate": "lx.relate(SOURCE, OTHER)",
}


@pytest.mark.parametrize("what", ["port", "diff", "relate"])
def test_what_only_reads_ends_with_the_error_too(shortened, sources, tmp_path, what):
    source = copied(sources["safetensors"], tmp_path)
    if what == "port":
        pytest.importorskip("torch")
    code = READING[what].replace("SOURCE", repr(str(source))).replace("OTHER", repr(str(sources["safetensors"])))
    shortened({"code": code}, source, SHRUNK[0], MAPPED, 0.5)


def test_a_report_ends_with_the_error(shortened, sources, tmp_path):
    source = copied(sources["weights.h5"], tmp_path)
    (tmp_path / "out.html").write_text("old")
    task = {"argv": ["report", str(source), "-o", str(tmp_path / "out.html")]}
    shortened(task, source, SHRUNK[0], MAPPED, 0.5)


@pytest.mark.parametrize("seed", range(int(os.environ.get("LAYOUTX_SHRUNK", "6"))))
def test_at_any_moment(sources, tmp_path, seed, reader):
    chance = random.Random(seed)
    format = chance.choice(["safetensors", "weights.h5", "keras"])
    source, out = copied(sources[format], tmp_path), tmp_path / "out.safetensors"
    out.write_text("old")
    before = sorted(path.name for path in tmp_path.iterdir())
    cut = threading.Timer(chance.uniform(0, 0.25), os.truncate, [source, chance.randrange(source.stat().st_size)])
    cut.start()
    task = {"argv": command(source, out, "--jobs", str(chance.choice([1, 2]))), "stop": [MAPPED, NEVER]}
    found = reader.run(task, lambda: None)
    cut.join()
    fine = found.get("status") == 0 and len(open_store(out).tensors) == 6
    told = found.get("status") == 1 and out.read_text() == "old" and source.name in found["said"]
    assert fine or told, found
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    record("a source cut at a random moment", 1, 1)


@pytest.fixture
def mapped(tmp_path: Path) -> tuple[Path, np.ndarray]:
    path = tmp_path / "numbers"
    path.write_bytes(np.arange(1 << 17, dtype=np.int64).tobytes())
    with path.open("rb") as file:
        return path, np.frombuffer(guarded.guarded(file.fileno(), path), np.int64)


@intact()
def read(path: Path, numbers: np.ndarray, left: int = 0) -> np.ndarray:
    """Numbers whose file is cut just before."""
    os.truncate(path, left)
    return numbers.copy()


def test_zeros_take_the_place_of_what_is_gone_and_the_rest_stays(mapped):
    path, numbers = mapped
    with pytest.raises(SourceError, match="numbers became shorter"):
        read(path, numbers, 300_000)
    assert np.array_equal(numbers[:37_500], np.arange(37_500))
    assert not numbers[38_000:].any()


def test_many_threads_meet_the_same_hole(mapped):
    path, numbers = mapped
    sums: list[int] = []

    @intact()
    def added() -> None:
        os.truncate(path, 0)
        threads = [threading.Thread(target=lambda: sums.append(int(numbers.sum()))) for _ in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()

    with pytest.raises(SourceError):
        added()
    assert sums == [0] * 8


def test_a_write_from_what_is_gone_is_the_same_error(mapped, tmp_path):
    path, numbers = mapped
    handle = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT)

    @intact()
    def written() -> None:
        os.truncate(path, 0)
        write_all(handle, numbers.view(np.uint8), 0)

    with pytest.raises(SourceError, match="became shorter") as caught:
        written()
    assert isinstance(caught.value.__cause__, OSError)
    os.close(handle)


def test_what_zeros_lead_to_is_told_as_what_it_was(mapped):
    path, numbers = mapped

    @intact()
    def refused() -> None:
        os.truncate(path, 0)
        if not numbers.any():
            raise FileError("all numbers are zero")

    with pytest.raises(SourceError, match="became shorter") as caught:
        refused()
    assert isinstance(caught.value.__cause__, FileError)


def test_an_error_of_the_disk_is_told_as_one(mapped, monkeypatch):
    path, numbers = mapped
    size = path.stat().st_size
    monkeypatch.setattr(guarded, "_size", lambda _: size)
    with pytest.raises(SourceError, match="could not be read to its end"):
        read(path, numbers)


def test_a_map_that_broke_is_given_to_nobody_again(tmp_path):
    path = tmp_path / "numbers"
    path.write_bytes(bytes(1 << 16))
    first = blob.mapped(path)
    with pytest.raises(SourceError):
        read(path, np.frombuffer(first, np.uint8))
    path.write_bytes(bytes(1 << 16))
    os.utime(path, (OLD, OLD))
    second = blob.mapped(path)
    assert blob.mapped(path) is second is not first
    with intact():  # what broke before is not told again
        assert not any(second)


def test_maps_are_forgotten_when_they_go(tmp_path):
    path = tmp_path / "numbers"
    path.write_bytes(bytes(1 << 16))
    gc.collect()  # else maps of other tests may go in between
    known = len(guarded._known)
    found = blob.mapped(path)
    assert len(guarded._known) == known + 1
    del found
    assert len(guarded._known) == known


def test_a_full_disk_under_a_temporary_file(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "_folders", [tmp_path])
    monkeypatch.delenv("TMPDIR", raising=False)
    handles = []
    monkeypatch.setattr(spool, "take_room", lambda handle, nbytes: handles.append(os.dup(handle)))
    room = spool.room(1 << 20, Path("big.npz"))

    @intact()
    def filled() -> None:
        os.truncate(handles[0], 0)  # as a full file system has no page for it
        room[:] = 1

    with pytest.raises(SourceError, match=r"no room to unpack big\.npz"):
        filled()
    os.close(handles[0])


LONELY = """
import faulthandler, os, signal, sys
from pathlib import Path
import numpy as np
from layoutx.files.guarded import guarded, intact
path = Path(sys.argv[1])
path.write_bytes(bytes(1 << 20))
with path.open("rb") as file:
    ours = guarded(file.fileno(), path)
"""


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("os.truncate(path, 0); ours[0]", -signal.SIGBUS),  # outside of `intact`: nobody would be told
        ("with intact(): os.kill(os.getpid(), signal.SIGBUS)", -signal.SIGBUS),
        (
            "import mmap\nwith path.open('rb') as file: other = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
            "with intact(): os.truncate(path, 0); other[0]",
            -signal.SIGBUS,
        ),
        ("faulthandler.enable()\nwith intact(): os.truncate(path, 0); ours[0]", 1),
        (
            "signal.signal(signal.SIGBUS, lambda *_: os._exit(77))\n"
            "with intact(): os.kill(os.getpid(), signal.SIGBUS); [None for _ in range(9)]",
            77,
        ),
    ],
    ids=["outside", "sent", "not ours", "faulthandler", "python's handler"],
)
def test_other_handlers_get_what_is_theirs(tmp_path, code, ended):
    command = [sys.executable, "-c", LONELY + code, str(tmp_path / "numbers")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert found.returncode == ended, found.stderr
    assert ended != 1 or "became shorter" in found.stderr


def test_the_handler_comes_first_again_after_others(mapped):
    path, numbers = mapped
    was = faulthandler.is_enabled()
    faulthandler.enable()
    try:
        with pytest.raises(SourceError):
            read(path, numbers)
    finally:
        if not was:
            faulthandler.disable()
