"""Ctrl-C and SIGTERM at any moment: one line, the shell's exit status, the output as it was or whole, nothing left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scenes import files, record, source

from layoutx.cli import interrupts, main
from layoutx.cli.interrupts import Interrupts

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other signals")
ROOT = Path(__file__).resolve().parents[2]
# As `layoutx`, with a mark on stdout when signals are listened to: before, they are Python's own.
CODE = """
import os, sys
from layoutx.cli import interrupts, main
interrupts.PATIENCE = 60.0
own = interrupts.Interrupts.__enter__
def enter(self):
    found = own(self)
    os.write(2, b"ready\\n")
    return found
interrupts.Interrupts.__enter__ = enter
sys.exit(main())
"""


def started(*arguments: object) -> subprocess.Popen[str]:
    """A command that is listening to signals."""
    done = subprocess.Popen(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert done.stderr is not None
    assert done.stderr.readline() == "ready\n"
    return done


@pytest.fixture(scope="module")
def duration(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds of the conversion, from the moment on at which it listens."""
    out = tmp_path_factory.mktemp("once") / "m.safetensors"
    done, began = started(*call(out)), time.monotonic()
    assert done.wait() == 0
    return time.monotonic() - began


def call(out: Path, *more: object) -> tuple[object, ...]:
    plain = ("--to", "torch", "--no-live", "--verify", "bytes")
    return ("convert", "examples/digits.keras", "-o", out, *plain, *more)


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_at_random_moments(tmp_path: Path, duration: float, number: int, twice: bool) -> None:
    chance, tried, out = random.Random(number + twice), 0, tmp_path / "m.safetensors"
    out.write_bytes(b"old")
    for _ in range(40 if os.environ.get("LAYOUTX_FAULTS") == "all" else 2):
        done = started(*call(out, "--jobs", 2))
        time.sleep(chance.random() * duration)
        done.send_signal(number)
        if twice:
            time.sleep(chance.random() * 0.05)
            done.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, said = done.communicate(timeout=30)
        assert time.monotonic() - began < 5 + 9 * duration  # a busy machine is slow at the conversion, too
        assert "Traceback" not in said, said
        assert list(files(tmp_path)) == ["m.safetensors"]
        whole = out.read_bytes() != b"old"
        if done.returncode == 0:
            assert whole
        else:
            first = said.splitlines()[0]
            # of two signals that wait for a busy process the kernel gives it the lower number first
            assert done.returncode in {128 + number, 128 + (signal.SIGINT if twice else number)}
            assert first == f"interrupted: {'m.safetensors is whole, it was finished before' if whole else OLD}"
            assert len(said.splitlines()) == 1
        out.write_bytes(b"old")
        tried += 1
    record(f"{signal.Signals(number).name}{', and a second one,' if twice else ''} at a random moment", tried, tried)


OLD = "the old m.safetensors is as it was"
EARLY = """
own = interrupts.Interrupts.__enter__
def enter(self):
    found = own(self)
    os.kill(os.getpid(), signal.NAME)
    return found
interrupts.Interrupts.__enter__ = enter
"""
FORGOTTEN = """
own = interrupts.Interrupts.about
def about(self, output):
    interrupts.Interrupts.about = own
    os.kill(os.getpid(), signal.NAME)
interrupts.Interrupts.about = about
"""
LATE = """
own = interrupts.Interrupts.__exit__
def leave(self, *what):
    interrupts.Interrupts.__exit__ = own
    os.kill(os.getpid(), signal.NAME)
    own(self, *what)
interrupts.Interrupts.__exit__ = leave
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("moment", "became"),
    [(EARLY, OLD), (FORGOTTEN, OLD), (LATE, "m.safetensors is whole, it was finished before")],
    ids=["before the first line", "before anything is remembered", "after the last line"],
)
def test_signals_at_the_first_and_the_last_moment(tmp_path: Path, moment: str, became: str, number: int) -> None:
    """Between the lines of `main`, where no random moment comes by."""
    out = tmp_path / "m.safetensors"
    out.write_bytes(b"old")
    code = "import os, signal, sys\nfrom layoutx.cli import interrupts, main\n"
    code += moment.replace("NAME", signal.Signals(number).name) + "sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, call(out))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (done.returncode, done.stderr) == (128 + number, f"interrupted: {became}\n")
    assert (out.read_bytes() == b"old") is (became == OLD)


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A conversion here that sends itself signals when it reads its output again: each of the list, in turn."""
    from layoutx.move import again

    sent: list[str] = []
    heard: list[int] = []
    real, hear = again._read, Interrupts._heard

    def read(*given: Any) -> Any:
        for name in sent:
            many, last = len(heard), time.monotonic() + 10
            os.kill(os.getpid(), getattr(signal, name))
            while len(heard) == many and time.monotonic() < last:  # else they are heard in the order of their numbers
                time.sleep(0.001)
        return real(*given)

    def noted(self: Interrupts, number: int, frame: Any) -> None:
        heard.append(number)
        hear(self, number, frame)

    monkeypatch.setattr(again, "_read", read)
    monkeypatch.setattr(Interrupts, "_heard", noted)
    monkeypatch.setattr(interrupts, "PATIENCE", 60.0)
    before = {name: signal.signal(getattr(signal, name), signal.SIG_DFL) for name in ("SIGTERM", "SIGHUP")}
    before["SIGINT"] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield sent
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


@pytest.mark.parametrize(
    ("sent", "status"),
    [(["SIGINT"], 130), (["SIGTERM"], 143), (["SIGHUP"], 129), (["SIGTERM", "SIGINT", "SIGTERM"], 143)],
)
def test_what_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], waiting: list[str], sent: list[str], status: int
) -> None:
    waiting += sent
    given = source(tmp_path / "a.safetensors", 1)
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "m.safetensors"
    own = ["convert", str(given), "-o", str(out), "--to", "torch", "--from", "flax", "--no-live", "--verify", "bytes"]
    for jobs in ("1", "2"):
        assert main([*own, "--jobs", jobs]) == status
        assert capsys.readouterr() == ("", "interrupted: m.safetensors was not written\n")
        assert files(tmp_path / "out") == {}
    waiting.clear()
    assert main(own) == 0
    capsys.readouterr()
    waiting += sent
    assert main(own) == status
    assert capsys.readouterr() == ("", f"interrupted: {OLD}\n")
    assert list(files(tmp_path / "out")) == ["m.safetensors"]


def test_finished_shards_are_kept_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], waiting: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from layoutx.job import shards

    given = source(tmp_path / "a.safetensors", 1)
    out = tmp_path / "m.safetensors"
    own = ["convert", str(given), "-o", str(out), "--to", "torch", "--from", "flax", "--no-live", "--verify", "bytes"]
    own += ["--max-shard-size", "1.2KB"]
    real, made = shards.make, []

    def make(part: shards.Part) -> object:
        if made:
            os.kill(os.getpid(), signal.SIGINT)
        made.append(part)
        return real(part)

    monkeypatch.setattr(shards, "make", make)
    assert main(own) == 130
    assert capsys.readouterr().err == (
        "interrupted: m.safetensors was not written; finished shards are kept, go on with --resume\n"
    )
    monkeypatch.setattr(shards, "make", real)
    assert main([*own, "--resume"]) == 0
    assert [name for name in files(tmp_path) if name.startswith(".")] == []


class Slow:
    """Something whose end takes an interrupt with it."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)


def test_an_interrupt_that_a_destructor_swallows_comes_again() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with Interrupts() as interrupts:
            held = [Slow()]
            with pytest.raises(KeyboardInterrupt):
                (held.clear(), time.sleep(2))
            assert interrupts.number == signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_nobody_hears_stays_unheard() -> None:
    """A process that a shell put behind it ignores SIGINT, and does so with layoutx too."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGINT)
        assert not interrupts.number
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
