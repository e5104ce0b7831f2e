"""The bench runs: its tables have every row, every output is right, a wrong one is noticed. Nothing is timed here."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "scripts"))
from benching import contenders as who  # noqa: E402
from benching import hot  # noqa: E402
from benching.agreed import differences, held  # noqa: E402
from benching.figures import Figure  # noqa: E402
from benching.kinds import KINDS, Model, many_small  # noqa: E402
from benching.made import made, zipped  # noqa: E402
from benching.measured import FailedError, taken  # noqa: E402
from benching.page import replaced  # noqa: E402

SMALL = 300_000


def model(kind: str) -> Model:
    return many_small(50) if kind == "small" else KINDS[kind](SMALL)


def bench(*more: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, str(ROOT / "scripts" / "bench.py"), "--runs", "1", "--tensors", "40", "--floor", "8", *more]
    return subprocess.run(call, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    """What a bench of tiny files printed, its JSON, and the folder that it worked in."""
    folder = tmp_path_factory.mktemp("bench")
    kept = folder / "kept.json"
    kinds = ("dense", "attention", "small")
    done = bench("--sizes", "0.2", "0.3", "--kinds", *kinds, "--dir", str(folder), "--json", str(kept), "--quick")
    assert kept.exists(), done.stderr[-3000:]
    return done.stdout, json.loads(kept.read_text(encoding="utf-8")), folder


@pytest.mark.slow
def test_the_table_has_every_row(run: tuple[str, dict[str, Any], Path]) -> None:
    said, kept, _ = run
    ours = {who.OURS, who.DEFAULT}
    expected = {
        "head": {who.CP, who.NUMPY, who.NUMPY_TORCH, who.TORCH, who.CHECKED, *ours},
        "head .keras": {who.CP, *ours},
        "head back": {who.CP, who.BACK, *ours},
        "attention": {who.CP, who.NUMPY, who.TORCH, *ours},
        "attention back": {who.CP, *ours},
        "small": {who.CP, who.NUMPY, who.NUMPY_TORCH, *ours},
    }
    for key, names in expected.items():
        assert names <= kept["sessions"][key].keys(), key
    assert "dense 200000" in kept["sessions"]
    judged = [one["name"] for one in kept["figures"] if one["must"] is not None]
    for word in ("no verification", "default verification", "torch script", "back", "memory", "small"):
        assert any(word in name or (word == "back" and "→ .weights.h5" in name) for name in judged), word
    assert {"Figures", "Scaling with size", "The machine, GB/s"} <= set(said.splitlines())


@pytest.mark.slow
def test_every_output_is_right(run: tuple[str, dict[str, Any], Path]) -> None:
    said, kept, folder = run
    assert kept["wrong"] == []
    assert "all are equal" in said
    assert [path.name for path in folder.iterdir()] == ["kept.json"], "the files of the bench go with it"


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(KINDS))
def test_keras_loads_what_is_made(kind: str, tmp_path: Path) -> None:
    """Every weight of the model is in the file, and the way through Keras gives what the script gives."""
    pytest.importorskip("keras")
    files = made(model(kind), tmp_path)
    by_hand, through = tmp_path / "numpy.safetensors", tmp_path / "keras.safetensors"
    taken(who.by_hand(files, who.NUMPY).command(files.weights, by_hand))
    zipped(files)
    taken(who.by_hand(files, who.KERAS).command(files.keras, through))
    assert differences(by_hand, through) == []


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_way_back_gives_the_file_again(kind: str, tmp_path: Path) -> None:
    files = made(model(kind), tmp_path)
    there, back = tmp_path / "there.safetensors", tmp_path / "back.weights.h5"
    taken(who.by_hand(files, who.NUMPY).command(files.weights, there))
    taken(who.by_hand(files, who.BACK).command(there, back))
    assert differences(files.weights, back) == []
    zipped(files)
    assert differences(files.keras, back) == []
    assert not files.weights.exists()


def test_one_wrong_byte_is_noticed(tmp_path: Path) -> None:
    files = made(model("attention"), tmp_path)
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    taken(who.by_hand(files, who.NUMPY).command(files.weights, one))
    other.write_bytes(one.read_bytes())
    assert differences(one, other) == []
    name, at = next((n, h) for n, h in held(one).items() if len(h.shape) == 2)
    with other.open("r+b") as file:
        file.seek(at.offset + at.nbytes - 1)
        last = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([last[0] ^ 1]))
    assert differences(one, other) == [f"{name}: other numbers"]


def test_a_missing_tensor_and_another_shape_are_noticed(tmp_path: Path) -> None:
    def written(name: str, entries: dict[str, Any]) -> Path:
        path = tmp_path / name
        header = json.dumps(entries).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + np.arange(6, dtype=np.float32).tobytes())
        return path

    whole = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    one = written("one.safetensors", {"a": whole})
    assert differences(one, written("two.safetensors", {"a": whole, "b": whole})) == ["b is in one file only"]
    turned = written("three.safetensors", {"a": {**whole, "shape": [3, 2]}})
    assert differences(one, turned) == ["a: F32 (2, 3), F32 (3, 2)"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_memory_is_taken_before_large_sources_and_freed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "LARGE", 16 << 20)
    monkeypatch.setattr(hot, "HELD", 0.5)

    def held() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))

    begun, seen = held(), []
    monkeypatch.setattr(hot.time, "sleep", lambda seconds: seen.append((seconds, held())))
    assert hot.heat(8 << 20) == 0
    assert not seen
    if not (taken := hot.heat(64 << 20)):
        pytest.skip("Linux before 5.14 has no MADV_POPULATE_WRITE")
    assert taken == 160 << 20
    assert seen[0][0] == 0.5
    assert seen[0][1] - begun > 150 << 20
    assert held() - begun < 8 << 20


def test_no_more_memory_is_taken_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "HELD", 0)
    monkeypatch.setattr(hot, "available", lambda: 8 << 20)
    assert hot.heat(2 << 30) in (0, 4 << 20)
    monkeypatch.setattr(hot, "available", lambda: 0)
    assert hot.heat(2 << 30) == 0


def test_a_contender_that_fails_says_why() -> None:
    with pytest.raises(FailedError, match="no such thing"):
        taken([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_memory_is_that_of_the_process() -> None:
    code = "import time; held = b'1' * 50_000_000; time.sleep(1); print(0.5)"
    found = taken([sys.executable, "-c", code])
    assert found.work == 0.5
    assert 50_000_000 < found.memory < 70_000_000
    assert found.wall > 1


@pytest.mark.parametrize(
    ("measured", "times", "expected"),
    [(0.9, False, "aim"), (1.2, False, "ok"), (1.4, False, "MISSES"), (1.2, True, "ok"), (0.9, True, "MISSES")],
)
def test_verdicts(measured: float, times: bool, expected: str) -> None:
    bounds = (1.0, 1.3) if times else (1.3, 1.0)
    assert Figure("a figure", measured, None, *bounds, times=times).verdict == expected


def test_a_page_keeps_what_stands_around_its_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench: begin -->\nold\n<!-- bench: end -->\nafter\n", encoding="utf-8")
    replaced(page, "new")
    expected = "before\n<!-- bench: begin -->\n\nnew\n\n<!-- bench: end -->\nafter\n"
    assert page.read_text(encoding="utf-8") == expected
    page.write_text("no markers", encoding="utf-8")
    with pytest.raises(ValueError, match="bench: begin"):
        replaced(page, "new")
