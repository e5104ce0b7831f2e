"""Progress: who hears it, what a terminal shows of it, and that nothing else is ever written for it."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from layoutx.cli import main
from layoutx.errors import UsageError
from layoutx.progress import heard, steps, tell
from layoutx.show.progress import Meter, closed, metered, reported

ROOT = Path(__file__).resolve().parent.parent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nobody_hears_what_nobody_asked_for():
    tell(1, 2, "conv")  # raises nothing, writes nothing
    assert list(steps([3, 5], str)) == [3, 5]


def test_a_listener_hears_each_step_before_it_is_done():
    told: list[tuple[int, int, str]] = []
    with heard(lambda *said: told.append(said)):
        for _ in steps(["a", "b"], lambda name: f"doing {name}"):
            told.append((-1, -1, "done"))
    tell(0, 9, "later")
    assert told == [(0, 2, "doing a"), (-1, -1, "done"), (1, 2, "doing b"), (-1, -1, "done")]


def test_no_listener_given_leaves_the_one_there_is():
    told: list[str] = []
    with heard(lambda done, many, what: told.append(what)), metered(None):
        tell(0, 1, "inner")
    assert told == ["inner"]


def test_a_main_function_reports_to_its_own_listener():
    @reported
    def job(progress=None):
        tell(0, 1, "x")
        return 7

    told: list[str] = []
    assert job() == 7
    assert job(progress=lambda done, many, what: told.append(what)) == 7
    assert told == ["x"]
    with pytest.raises(UsageError, match="progress is 'yes'"):
        job(progress="yes")


def drawn(monkeypatch, patience: float = 0.0, **env: str) -> str:
    for name in ("NO_COLOR", "TERM", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "90", **env}.items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    meter = Meter(terminal, patience)
    with heard(meter):
        tell(4, 53, "comparing conv2\x1b[31m")
        time.sleep(0.25)
    closed()
    return terminal.getvalue()


def test_a_terminal_shows_layer_number_and_time(monkeypatch):
    shown = drawn(monkeypatch)
    assert "5 of 53" in shown
    assert "comparing conv2\\x1b[31m" in shown
    assert "0:00:0" in shown
    assert shown.rstrip().endswith("\x1b[2K")  # gone at the end


def test_short_jobs_show_nothing(monkeypatch):
    assert "53" not in drawn(monkeypatch, patience=60.0)


def test_colours_only_where_they_are_wanted(monkeypatch):
    assert "\x1b[36m" in drawn(monkeypatch) or "\x1b[33m" in drawn(monkeypatch)
    plain = drawn(monkeypatch, NO_COLOR="1")
    assert "5 of 53" in plain
    assert "\x1b[36m" not in plain
    assert "\x1b[33m" not in plain


def test_no_terminal_no_progress():
    pipe = io.StringIO()
    meter = Meter(pipe, 0.0)
    meter(0, 2, "conv")
    meter.close()
    assert pipe.getvalue() == ""


def test_a_closed_meter_stays_closed(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    meter = Meter(terminal, 0.0)
    meter(0, 2, "conv")
    meter.close()
    before = terminal.getvalue()
    meter(1, 2, "later")
    assert terminal.getvalue() == before


SLOW = """
import sys, time
import layoutx.show.progress as progress
progress.PATIENCE = 0.0
progress.Meter.__init__.__defaults__ = (None, 0.0)
import layoutx.cli.commands as commands
from layoutx.progress import steps

def slow(args):
    for _ in steps(range(3), lambda n: f"layer {n}"):
        time.sleep(0.2)
    commands._print(args, "the result")
    return 0

import layoutx.cli.options as options
real = options._inspect
commands.inspect = slow
from layoutx.cli import main
sys.exit(main(sys.argv[1:]))
"""


def in_terminal(*arguments: str) -> tuple[str, str]:
    """What a command writes to stdout, a pipe, and to stderr, a terminal."""
    leader, follower = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    call = [sys.executable, "-c", SLOW, *arguments]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=follower, env=env) as process:
        os.close(follower)
        said = b""
        with contextlib.suppress(OSError):  # the terminal is closed
            while part := os.read(leader, 65536):  # meanwhile: it has room for a few seconds of a line that moves
                said += part
        os.close(leader)
        assert process.stdout
        return process.stdout.read().decode(), said.decode()


def test_a_command_in_a_terminal():
    out, err = in_terminal("inspect", "x.h5")
    assert out == "the result\n"
    assert "3 of 3" in err
    assert "layer 2" in err
    assert "the result" not in err


def test_json_is_silent():
    assert in_terminal("inspect", "x.h5", "--json") == ("the result\n", "")


def test_validate_tells_layers_and_a_pipe_gets_nothing(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    (tmp_path / "told_nets.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n    torch.manual_seed(1)\n    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    np.save("x.npy", np.random.default_rng(1).normal(size=(2, 3)).astype("float32"))
    told: list[tuple[int, int, str]] = []
    with heard(lambda *said: told.append(said)):
        assert main(["validate", "told_nets:net", "told_nets:net", "--inputs", "x.npy", "--json"]) == 0
    assert (1, 2, "comparing 2") in told
    assert any(what.startswith("running the target") for _, _, what in told)
    assert capsys.readouterr().err == ""


def test_every_job_tells_its_layers():
    torch = pytest.importorskip("torch")
    import layoutx as lx

    def net(shift=0.0):
        torch.manual_seed(1)
        made = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).double()
        with torch.no_grad():
            made[2].weight[1, 3] += shift
        return made

    x = np.random.default_rng(1).normal(size=(2, 3))
    jobs = {
        "comparing 2": lambda hear: lx.validate(net(), net(), x, progress=hear),
        "relating 2": lambda hear: lx.relate(net(), net(), progress=hear),
        "joining 2": lambda hear: lx.match(net(), net(), progress=hear),
        "moving and proving 2": lambda hear: lx.port(net(), net(), x, progress=hear),
        "trying the known mistakes on 2": lambda hear: lx.diagnose(net(), net(0.5), x, progress=hear),
        "running Sequential (torch)": lambda hear: lx.record(net(), x, progress=hear),
    }
    silent = {}
    for words, job in jobs.items():
        told: list[str] = []
        job(lambda done, many, what, told=told: told.append(what))
        silent[words] = words not in told
    assert silent == dict.fromkeys(jobs, False)


def test_values_are_taken_by_validate_and_diagnose():
    from layoutx.cli.options import parser
    from layoutx.cli.validate import keywords

    for command in ("validate", "diagnose"):
        args = parser().parse_args(
            [command, "a.h5", "b.pt2", "--set", "c.k=3", "--backend", "theano", "--running-std", "std"]
        )
        assert keywords(args)["values"] == {"c.k": 3, "backend": "theano", "running_std": "std"}
