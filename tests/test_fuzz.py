"""A short run of the fuzzer with a fixed seed: nothing but layoutx's own errors comes out of any reader."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from layoutx.errors import FileError
from scripts.fuzzing.bytewise import MUTATIONS, mutated
from scripts.fuzzing.corpus import ROOT, Case, cases, readers
from scripts.fuzzing.cover import Lines
from scripts.fuzzing.runs import fuzzed
from scripts.fuzzing.shaped import changed
from scripts.fuzzing.smaller import smaller
from scripts.fuzzing.verdict import verdict

# Readers that share a process, with inputs of each; what imports TensorFlow or orbax gets few.
RUNS = (
    {"layout": 400, "safetensors": 300, "npz": 150, "msgpack": 250, "paddle": 200, "onnx": 200, "tflite": 150},
    {"mapping": 200, "history": 300, "spec": 30, "index": 50, "keras": 30, "weights": 30, "h5": 30},
    {"torch": 80, "torch_old": 80, "pt2": 40, "dcp": 80, "orbax": 15, "tf_checkpoint": 30, "saved_model": 15},
)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: next(iter(run)))
def test_nothing_but_own_errors_comes_out(run: dict[str, int], tmp_path: Path) -> None:
    tallies, findings = fuzzed([[(name, inputs, 600.0) for name, inputs in run.items()]], 7, 1, tmp_path)
    assert not findings, "\n".join(one.text() for one in findings)
    assert {tally.reader: tally.inputs for tally in tallies} == run
    for tally in tallies:
        assert tally.refused + tally.opened == tally.inputs
        record(tally.reader, tally.inputs, tally.refused, tally.opened)
    assert sum(tally.refused for tally in tallies) > 100, "mutations that change nothing"
    assert sum(tally.opened for tally in tallies) > 20, "mutations that leave nothing whole"


def record(reader: str, inputs: int, refused: int, opened: int) -> None:
    """A line for the table of docs/security.md, where LAYOUTX_RECORDS names a folder."""
    if folder := os.environ.get("LAYOUTX_RECORDS"):
        line = json.dumps({"fuzz": reader, "inputs": inputs, "refused": refused, "opened": opened})
        with (Path(folder) / f"fuzz-{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def test_every_reader_takes_part() -> None:
    assert sorted(name for run in RUNS for name in run) == sorted(readers())


def test_a_foreign_error_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from layoutx.lang import parse

    assert seen(tmp_path, "kernel: input") == "opened"
    assert seen(tmp_path, "kernel: (input") == "refused"
    monkeypatch.setattr(parse, "parse", lambda text: {}[text])
    assert seen(tmp_path, "kernel: input") == "KeyError"


def test_memory_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from layoutx.lang import parse

    def greedy(text: str) -> None:
        held = bytearray(300 << 20)
        held[::4096] = bytes(len(held[::4096]))
        raise FileError("too late")

    monkeypatch.setattr(parse, "parse", greedy)
    assert seen(tmp_path, "kernel: input") == "memory"


def test_the_script_prints_a_table_and_opens_a_finding_again(tmp_path: Path) -> None:
    call = [sys.executable, str(ROOT / "scripts" / "fuzz.py")]
    done = subprocess.run([*call, "--inputs", "20", "--only", "layout"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[1].split()[:2] == ["layout", "20"]
    (tmp_path / "a.txt").write_text("kernel: (input", encoding="utf-8")
    again = [*call, "--replay", str(tmp_path / "a.txt"), "--only", "layout"]
    assert subprocess.run(again, capture_output=True, text=True, check=True).stdout.startswith("refused")


def seen(folder: Path, text: str) -> str:
    path = folder / "a.txt"
    path.write_text(text, encoding="utf-8")
    return verdict("layout", path).kind


VICTIM = """
import os, signal, sys
from scripts.fuzzing import verdict, victim
def deed(path, deep):
    if len(path.read_bytes()) > 250:
        {act}
victim.Job.tried.__defaults__ = (0.2,)
verdict.DEEDS["layout"] = deed
victim.main(__import__("json").loads(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("act", "kind"),
    [("os.kill(os.getpid(), signal.SIGSEGV)", "crash"), ("while True: pass", "hang"), ("0 / 0", "ZeroDivisionError")],
)
def test_a_crash_and_a_hang_are_found_and_the_run_goes_on(
    act: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every long input; those after it are tried all the same."""
    from scripts.fuzzing import runs

    code = VICTIM.format(act=act)
    (tmp_path / "victim.py").write_text(code, encoding="utf-8")
    start = runs.subprocess.Popen

    def popen(call: list[str], env: dict[str, str], **settings: Any) -> object:
        own = [call[0], str(tmp_path / "victim.py"), call[-1]]
        return start(own, env={**env, "PYTHONPATH": str(runs.ROOT)}, **settings)

    monkeypatch.setattr(runs.subprocess, "Popen", popen)
    (tally,), findings = fuzzed([[("layout", 60, 600.0)]], 1, 1, tmp_path / "out")
    assert tally.inputs == 60
    assert {one.kind for one in findings} == {kind}
    assert json.loads((findings[0].folder / "finding.json").read_text())["reader"] == "layout"


def test_equal_seeds_give_equal_inputs() -> None:
    for reader in readers():
        pool = cases(reader)[:3]
        first, again, other = (changed(random.Random(seed), pool[0], pool[-1]) for seed in (3, 3, 4))
        assert first == again, reader
        assert first != other, reader


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.__name__)
def test_each_mutation_changes_something(mutation: object) -> None:
    data, results = bytes(range(64)), set()
    for seed in range(20):
        new = bytearray(data)
        mutation(random.Random(seed), new, b"other bytes")  # type: ignore[operator]
        results.add(bytes(new))
    assert len(results - {data}) > 5


def test_short_inputs_are_mutated_too() -> None:
    assert {mutated(random.Random(seed), b"a") for seed in range(50)} - {b"a"}
    assert mutated(random.Random(1), b"") == b""


def test_new_lines_are_seen_once() -> None:
    from layoutx.lang.parse import parse

    lines, fresh = Lines(), []
    for text in ("kernel: input", "kernel: output", "kernel: (input output)", "kernel: (a b)"):
        lines.fresh = False
        sys.settrace(lines.call)
        parse(text)
        sys.settrace(None)
        fresh.append(lines.fresh)
    assert fresh == [True, False, True, False]


def test_a_finding_is_made_smaller() -> None:
    parent = Case("x", "x", {"a": b"0" * 100, "b": b"kept"}, "a")
    case = Case("x", "x", {"a": b"0" * 40 + b"BAD" + b"0" * 90, "b": b"else"}, "a")
    small = smaller(case, parent, lambda one: b"BAD" in one.files["a"], patience=5)
    assert small.files == {"a": b"BAD", "b": b"kept"}
    same_length = Case("x", "x", {"a": b"0" * 40 + b"B" + b"x" * 59, "b": b"kept"}, "a")
    small = smaller(same_length, parent, lambda one: one.files["a"][40:41] == b"B", patience=5)
    assert small.files["a"] == b"0" * 40 + b"B" + b"0" * 59
