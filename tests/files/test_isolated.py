"""What is asked of a process that may die: its answers, its end in every way, and the process that comes after it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layoutx.errors import FileError, LayoutxError, UsageError
from layoutx.files import child, isolated
from layoutx.files.apart import Lent

HERE = "test_isolated:"
FILE = Path("some/x.h5")


# what the other process does; it finds this module as the tests do


def echo(lent: Lent | None, **args: Any) -> Iterator[bytes]:
    """The arguments, and the process."""
    yield json.dumps(args).encode()
    yield str(os.getpid()).encode()


def many(lent: Lent | None, count: int, size: int) -> Iterator[bytes]:
    for k in range(count):
        yield bytes([k % 256]) * size


def borrows(lent: Lent | None, spans: list[list[int]]) -> Iterator[bytes]:
    assert lent is not None
    for offset, size in spans:
        yield lent(offset, size)


def dies(lent: Lent | None, by: int) -> Iterator[bytes]:
    yield b"a part"
    os.kill(os.getpid(), by)
    yield b"another"


def leaves(lent: Lent | None) -> Iterator[bytes]:
    os._exit(3)
    yield b""


def loops(lent: Lent | None) -> Iterator[bytes]:
    yield b"a part"
    while True:
        pass


def sleeps(lent: Lent | None, seconds: float) -> Iterator[bytes]:
    time.sleep(seconds)
    yield b"late"


def grows(lent: Lent | None) -> Iterator[bytes]:
    held = [bytearray(1 << 20) for _ in range(4000)]
    yield str(len(held)).encode()


def writes(lent: Lent | None, path: str) -> Iterator[bytes]:
    with open(path, "w") as file:
        file.write("x" * 10)
    yield b"written"


def prints(lent: Lent | None) -> Iterator[bytes]:
    print("this is no answer", flush=True)
    print("nor this", file=sys.stderr, flush=True)
    os.write(1, b"nor this")
    yield b"an answer"


def refuses(lent: Lent | None) -> Iterator[bytes]:
    yield b"a part"
    raise FileError("x is no good", where=["here", "and here"], why="because", do="this")


def stumbles(lent: Lent | None) -> Iterator[bytes]:
    yield b""
    raise KeyError("stumbled")


def raw(lent: Lent | None, text: str) -> Iterator[bytes]:
    """A process that was taken over says what it likes."""
    for handle in range(3, 64):
        try:
            os.write(handle, bytes.fromhex(text))
        except OSError:
            continue
    os._exit(0)
    yield b""


def ask(work: str, **args: Any) -> list[bytes]:
    more = {key: args.pop(key) for key in ("lent", "largest", "memory") if key in args}
    found: list[bytes] = []
    isolated.ask(HERE + work, args, lambda part: found.append(bytes(part)), FILE, "HDF5", **more)
    return found


@pytest.fixture(autouse=True, params=["forked", "started"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways to such a process."""
    if request.param == "forked" and sys.platform != "linux":
        pytest.skip("it is forked on Linux only")
    if request.param == "forked" and threading.active_count() > 1:
        pytest.skip("there are other threads")
    monkeypatch.setattr(child, "_can_fork", lambda: request.param == "forked")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    isolated.close()
    yield request.param
    isolated.close()


def pid() -> int:
    return int(ask("echo")[1])


def test_answers_come_from_another_process_which_is_kept() -> None:
    text, first = ask("echo", a=1, b=["é\udcff", None])
    assert json.loads(text) == {"a": 1, "b": ["é\udcff", None]}
    assert int(first) != os.getpid()
    assert pid() == int(first)
    assert ask("many", count=50, size=100_000) == [bytes([k]) * 100_000 for k in range(50)]
    assert pid() == int(first)


def test_it_borrows_bytes_of_this_process() -> None:
    held = os.urandom(300_000)
    spans = [[0, 10], [100_000, 150_000], [299_999, 1], [5, 0]]
    assert ask("borrows", spans=spans, lent=memoryview(held)) == [held[a : a + n] for a, n in spans]
    with pytest.raises(FileError, match="wanted"):
        ask("borrows", spans=[[299_999, 2]], lent=held)


@pytest.mark.parametrize("by", ["SIGSEGV", "SIGABRT", "SIGKILL", "SIGBUS"])
def test_its_death_is_an_error_and_another_takes_its_place(by: str) -> None:
    before = pid()
    with pytest.raises(FileError, match=by) as caught:
        ask("dies", by=int(getattr(signal, by)))
    assert "x.h5" in caught.value.what
    assert str(FILE) in caught.value.where
    assert "crashed" in str(caught.value)
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)  # no zombie is left
    assert pid() != before


def killed() -> int:
    """The process that is kept, which is dead now and not waited for."""
    before, kept = pid(), isolated._kept
    assert kept
    os.kill(before, signal.SIGKILL)
    while not kept.gone():
        time.sleep(0.001)
    return before


def test_a_death_between_two_questions_is_no_fault_of_the_next_file() -> None:
    """By whom memory is taken, say: another process answers."""
    before = killed()
    assert pid() != before
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)  # no zombie is left


def test_a_death_that_is_seen_when_it_is_asked_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It died in the moment in which it was looked at: an error of layoutx, never a broken pipe."""
    before = killed()
    monkeypatch.setattr(child.Child, "gone", lambda self: False)
    with pytest.raises(FileError, match="SIGKILL"):
        pid()
    assert pid() != before


def test_an_exit_is_an_error() -> None:
    with pytest.raises(FileError, match="exit status 3"):
        ask("leaves")


def test_a_loop_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYOUTX_LIMIT_COMPUTING", "100")
    with pytest.raises(FileError, match="may never end") as caught:
        ask("loops")
    assert "LAYOUTX_LIMIT_COMPUTING" in caught.value.do
    assert pid()


def test_waiting_is_no_loop_and_silence_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYOUTX_LIMIT_COMPUTING", "100")
    assert ask("sleeps", seconds=0.3) == [b"late"]
    monkeypatch.setattr(child, "PATIENCE", 0.2)
    with pytest.raises(FileError, match="silent"):
        ask("sleeps", seconds=30)


def test_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYOUTX_LIMIT_COMPUTING", "20000")
    with pytest.raises(FileError, match="MemoryError") as caught:
        ask("grows")
    assert "LAYOUTX_LIMIT_MEMORY" in caught.value.do
    assert ask("many", count=1, size=10_000_000)
    if sys.platform == "linux":  # a fork of a large process has room of its own, but not so much
        with pytest.raises(FileError, match="MemoryError"):
            ask("many", count=1, size=1 << 30, memory=1 << 20)


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit")
def test_it_writes_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="OSError"):
        ask("writes", path=str(tmp_path / "x"))


def test_what_it_prints_is_no_answer(capfd: pytest.CaptureFixture[str]) -> None:
    assert ask("prints") == [b"an answer"]
    assert capfd.readouterr() == ("", "")


def test_errors_of_layoutx_come_through_and_keep_the_process() -> None:
    before = pid()
    with pytest.raises(FileError) as caught:
        ask("refuses")
    assert (caught.value.what, caught.value.where) == ("x is no good", ("here", "and here"))
    assert (caught.value.why, caught.value.do) == ("because", "this")
    assert pid() == before


def test_other_errors_are_file_errors_and_end_it() -> None:
    """Who met a damaged file may be damaged."""
    before = pid()
    with pytest.raises(FileError, match="KeyError: 'stumbled'"):
        ask("stumbles")
    assert pid() != before


@pytest.mark.parametrize(
    "text",
    ["70ffffffffffffff7f", "7a0000000000000000", "6f0100000000000000" + "7b", "6f0200000000000000" + "7b7d", "70"],
    ids=["a size", "a kind", "half an error", "an empty error", "half a head"],
)
def test_nonsense_is_an_error(text: str) -> None:
    with pytest.raises((FileError, ValueError, KeyError)):  # the reader wraps the latter two
        ask("raw", text=text)
    assert pid()


def test_an_answer_that_is_left_takes_the_process_along() -> None:
    """What else it had to say would be taken for the next answer."""
    before = pid()

    def each(part: bytearray) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        isolated.ask(HERE + "many", {"count": 100, "size": 100_000}, each, FILE, "HDF5")
    assert pid() != before


def test_a_part_that_is_too_long_is_an_error() -> None:
    with pytest.raises(FileError, match="it sent 1000 bytes"):
        ask("many", count=1, size=1000, largest=999)


def test_what_cannot_be_imported_is_nobodys_file() -> None:
    with pytest.raises(UsageError, match="cannot be started") as caught:
        isolated.ask("nowhere.to_be:found", {}, print, FILE, "HDF5")
    assert "LAYOUTX_ISOLATE=0" in caught.value.do


def test_threads_ask_in_turn(way: str) -> None:
    wanted = [bytes([k]) * 1000 for k in range(200)]
    found: list[Any] = []

    def run() -> None:
        found.append(ask("many", count=200, size=1000))

    pid()
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_has_a_process_of_its_own() -> None:
    mine = pid()
    read, write = os.pipe()
    fork = os.fork()
    if not fork:
        try:
            os.write(write, str(pid()).encode())
            isolated.close()
        finally:
            os._exit(0)
    os.close(write)
    theirs = int(os.read(read, 100))
    os.close(read)
    os.waitpid(fork, 0)  # this one, and no other test's
    assert theirs != mine
    assert pid() == mine


def test_without_it_all_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYOUTX_ISOLATE", "0")
    assert pid() == os.getpid()
    with pytest.raises(FileError, match="x is no good"):
        ask("refuses")
    assert ask("borrows", spans=[[1, 2]], lent=b"abcd") == [b"bc"]


SCRIPT = """
import os, sys
open({mark!r}, "a").write("once ")
from pathlib import Path
from layoutx.files import child, isolated
{before}
def main():
    found = []
    isolated.ask("test_isolated:echo", {{}}, lambda part: found.append(bytes(part)), Path("x"), "HDF5")
    Path({out!r}).write_bytes(found[1])
main()
"""


@pytest.mark.parametrize("before", ["", "for n in range(3): os.close(n)"], ids=["plain", "without standard streams"])
def test_it_ends_with_its_asker_and_runs_no_main_module(tmp_path: Path, way: str, before: str) -> None:
    mark, out = tmp_path / "mark", tmp_path / "out"
    before += f"\nchild._can_fork = lambda: {way == 'forked'}"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(mark=str(mark), out=str(out), before=before))
    places = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]
    subprocess.run([sys.executable, str(script)], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(places)})
    assert mark.read_text() == "once "
    last = time.monotonic() + 60
    while running(int(out.read_text())):
        assert time.monotonic() < last, "the process outlived the one that asked it"
        time.sleep(0.02)


def running(process: int) -> bool:
    """Whether it is there and has not ended: in a container, nobody may wait for what has lost its parent."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:  # it went between the two lines, or the system has no /proc
        return not Path("/proc/self/stat").exists()


def test_every_error_is_layoutxs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr(child, "_can_fork", lambda: False)
    with pytest.raises(LayoutxError, match="cannot be started"):
        ask("echo")
