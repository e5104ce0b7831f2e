"""The file of a history: whole or cut off at any byte, damaged, of another run, written by two."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layoutx as lx
from layoutx.cli import main
from layoutx.errors import FileError, UsageError
from layoutx.history.frames import LENGTH, whole


class Toy:
    """A torch module of two layers whose weights are set by hand."""

    def __new__(cls, units: int = 5) -> Any:
        import torch

        torch.manual_seed(3)
        return torch.nn.Sequential(torch.nn.Linear(7, units), torch.nn.ReLU(), torch.nn.Linear(units, 3))


def recorded(path: Path, moments: int = 4, **options: Any) -> list[np.ndarray]:
    """A history of some moments, and the first weight at each of them."""
    import torch

    module = Toy()
    kept = []
    with lx.History(path, **options).watch(module) as history:
        kept.append(module[0].weight.detach().numpy().copy())
        for step in range(1, moments):
            with torch.no_grad():
                for p in module.parameters():
                    p.add_(torch.randn_like(p))
            history.record(step, loss=1 / step)
            kept.append(module[0].weight.detach().numpy().copy())
    return kept


def test_every_bit_comes_back_under_its_name(tmp_path: Path) -> None:
    kept = recorded(tmp_path / "run.lxh")
    found = lx.History.read(tmp_path / "run.lxh")
    track = found["0"]["weight"]
    assert track.axes == ("step", "output", "input")
    assert track.shape == (4, 5, 7)
    assert np.asarray(track).tobytes() == np.stack(kept).tobytes()
    assert track[-1].tobytes() == kept[-1].tobytes()
    assert track[1:3].shape == (2, 5, 7)
    assert found.steps.tolist() == [0, 1, 2, 3]
    assert np.isnan(found.logs["loss"][0])
    assert found.logs["loss"][1:].tolist() == [1, 1 / 2, 1 / 3]
    np.testing.assert_allclose(track.norms, [np.linalg.norm(w.astype(float)) for w in kept], rtol=1e-12)
    moved = [np.linalg.norm(b.astype(float) - a) for a, b in pairwise(kept)]
    np.testing.assert_allclose(track.moved[1:], moved, rtol=1e-12)
    np.testing.assert_allclose(track.update[1:], moved / track.norms[:-1], rtol=1e-12)
    assert track.unit == "output"
    np.testing.assert_allclose(track.units(), np.linalg.norm(np.stack(kept), axis=2), rtol=1e-6)
    assert found["0"]["bias"].about == "one number a unit"
    with pytest.raises(UsageError, match="no layer is called"):
        found["nope"]
    with pytest.raises(UsageError, match="has no tensor"):
        found["0"]["kernel"]


def test_a_file_cut_off_at_any_byte_gives_all_moments_before(tmp_path: Path) -> None:
    kept = recorded(tmp_path / "run.lxh", 3)
    data = (tmp_path / "run.lxh").read_bytes()
    frames, torn = whole(tmp_path / "run.lxh")
    assert torn == 0
    last = frames[-2].end
    cut = tmp_path / "cut.lxh"
    for size in range(last, len(data)):
        cut.write_bytes(data[:size])
        found = lx.History.read(cut)
        assert len(found) == 2
        assert found.torn == size - last
        assert found["0"]["weight"][-1].tobytes() == kept[1].tobytes()
    assert "cut off" in str(found)
    for size in range(frames[0].end):
        cut.write_bytes(data[:size])
        with pytest.raises(FileError):
            lx.History.read(cut)


def test_a_cut_file_is_continued_behind_its_last_whole_moment(tmp_path: Path) -> None:
    recorded(tmp_path / "run.lxh", 3)
    path = tmp_path / "run.lxh"
    path.write_bytes(path.read_bytes()[:-5] + bytes(100_000))  # blocks that were reserved and never filled
    with lx.History(path, resume=True).watch(Toy()) as history:
        assert history.steps == 1
        history.record(9)
    found = lx.History.read(path)
    assert found.steps.tolist() == [0, 1, 9]
    assert found.torn == 0
    assert found.notes == ("continued after step 1",)
    assert np.isnan(found["0"]["weight"].moved[2])  # nobody knows what happened between


def test_damage_is_found(tmp_path: Path) -> None:
    recorded(tmp_path / "run.lxh", 3)
    path = tmp_path / "run.lxh"
    frames, _ = whole(path)
    data = bytearray(path.read_bytes())
    data[frames[1].start] ^= 1
    path.write_bytes(data)
    found = lx.History.read(path)
    with pytest.raises(FileError, match="damaged"):
        found["0"]["weight"][0]
    found["0"]["weight"][1]
    data[frames[-1].end - 1] ^= 1  # a power failure: the length was kept, the data not
    path.write_bytes(data)
    assert len(lx.History.read(path)) == 2
    data[frames[-1].start - len("}") - 1] ^= 1
    path.write_bytes(data)
    assert len(lx.History.read(path)) == 2
    data[: LENGTH // 2] = bytes(LENGTH // 2)
    path.write_bytes(data)
    with pytest.raises(FileError, match="not a history"):
        lx.History.read(path)


def test_two_runs_are_not_put_into_one_file(tmp_path: Path) -> None:
    path = tmp_path / "run.lxh"
    recorded(path, 2)
    with pytest.raises(UsageError, match="is there already"):
        lx.History(path)
    with pytest.raises(UsageError, match="another model"):
        lx.History(path, resume=True).watch(Toy(units=6))
    with pytest.raises(UsageError, match="another model"):
        lx.History(path, resume=True, what="summary").watch(Toy())
    history = lx.History(path, resume=True).watch(Toy())
    with pytest.raises(UsageError, match="another run writes"):
        lx.History(path, resume=True).watch(Toy())
    history.close()
    lx.History(path, resume=True).watch(Toy()).close()


def test_wrong_calls(tmp_path: Path) -> None:
    for options in ({"by": "day"}, {"what": "some"}, {"store": "int8"}, {"every": 0}, {"layers": "0"}):
        with pytest.raises(UsageError):
            lx.History(tmp_path / "run.lxh", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no folder"):
        lx.History(tmp_path / "none" / "run.lxh")
    with pytest.raises(UsageError, match="no layer is called"):
        lx.History(tmp_path / "run.lxh", layers=["fc*"]).watch(Toy())
    with pytest.raises(UsageError, match="nothing is watched"):
        lx.History(tmp_path / "run.lxh").record(1)
    with pytest.raises(UsageError, match="there is no file"):
        lx.History.read(tmp_path / "run.lxh")
    with lx.History(tmp_path / "run.lxh").watch(Toy()) as history:
        history.record(5)
        with pytest.raises(UsageError, match="step 5 was recorded before"):
            history.record(4)
    assert lx.History.read(tmp_path / "run.lxh").steps.tolist() == [0, 5]


def test_chosen_layers_sixteen_bits_and_summaries(tmp_path: Path) -> None:
    kept = np.stack(recorded(tmp_path / "all.lxh", layers=["0"]))
    assert list(lx.History.read(tmp_path / "all.lxh")) == ["0"]
    for name in ("float16", "bfloat16"):
        recorded(tmp_path / f"{name}.lxh", store=name)
        half = lx.History.read(tmp_path / f"{name}.lxh")
        assert half["0"]["weight"].dtype.name == name
        np.testing.assert_array_equal(np.asarray(half["0"]["weight"]), kept.astype(half["0"]["weight"].dtype))
        np.testing.assert_array_equal(
            half["0"]["weight"].norms, lx.History.read(tmp_path / "all.lxh")["0"]["weight"].norms
        )
    recorded(tmp_path / "summary.lxh", what="summary")
    short = lx.History.read(tmp_path / "summary.lxh")
    np.testing.assert_allclose(short["0"]["weight"].units(), np.linalg.norm(kept, axis=2), rtol=1e-6)
    with pytest.raises(UsageError, match="holds summaries"):
        short["0"]["weight"][0]
    assert (tmp_path / "all.lxh").stat().st_size > 0


def test_a_narrow_dtype_that_overflows_is_told(tmp_path: Path) -> None:
    import torch

    module = Toy()
    with torch.no_grad():
        module[0].weight[0, 0] = 1e30
        module[2].weight[1, 1] = float("nan")
    with lx.History(tmp_path / "run.lxh", store="float16").watch(module):
        pass
    found = lx.History.read(tmp_path / "run.lxh")
    assert found["0"]["weight"].largest[0] == pytest.approx(1e30)
    assert np.isinf(found["0"]["weight"][0][0, 0])
    assert found["2"]["weight"].broken.tolist() == [1]
    assert "1 numbers are NaN or infinite; the first at step 0" in str(found)


def test_a_full_disk_ends_the_history_and_not_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from layoutx.history import writer

    module = Toy()
    history = lx.History(tmp_path / "run.lxh").watch(module)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "append", full)
    with pytest.warns(UserWarning, match="the history ends at step 0"):
        history.record(1)
    history.record(2)
    monkeypatch.undo()
    history.close()
    assert lx.History.read(tmp_path / "run.lxh").steps.tolist() == [0]


KILLED = """
    import os, sys, torch
    import layoutx as lx
    from layoutx.history import frames, writer

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(70, 50), torch.nn.Linear(50, 30))
    history = lx.History(sys.argv[1]).watch(module)
    write = frames.append

    def killed(file, kind, text, arrays=()):
        if text.get("step") == 3:
            raw = open(file.name, "ab", buffering=0)
            whole = frames.packed(kind, {**text, "crc": [0]}, 1 << 14)
            raw.write(whole + bytes(1 << 13))
            os.kill(os.getpid(), 9) if sys.argv[2] == "kill" else os._exit(7)
        write(file, kind, text, arrays)

    writer.append = killed
    for step in range(1, 9):
        with torch.no_grad():
            module[0].weight.add_(1)
        history.record(step)
    """


@pytest.mark.parametrize(("how", "status"), [("kill", -9), ("exit", 7)])
def test_a_process_that_dies_in_the_middle_of_a_write_loses_that_moment_only(
    tmp_path: Path, how: str, status: int, root: Path
) -> None:
    call = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "run.lxh"), how]
    done = subprocess.run(call, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    found = lx.History.read(tmp_path / "run.lxh")
    assert found.steps.tolist() == [0, 1, 2]
    assert found.torn > 1 << 13
    np.testing.assert_allclose(found["0"]["weight"][2] - found["0"]["weight"][0], 2, rtol=1e-6)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    recorded(tmp_path / "run.lxh")
    assert main(["history", str(tmp_path / "run.lxh")]) == 0
    text = capsys.readouterr().out
    assert "4 moments, steps 0 to 3" in text
    assert all(len(line) < 100 for line in text.splitlines())
    assert main(["history", str(tmp_path / "run.lxh"), "--json", "--only", "2"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [layer["layer"] for layer in data["layers"]] == ["2"]
    assert data["logs"]["loss"][0] is None
    assert main(["history", str(tmp_path / "none.lxh")]) == 2
    (tmp_path / "bad.lxh").write_bytes(b"no history at all" * 9)
    assert main(["history", str(tmp_path / "bad.lxh")]) == 1


def test_a_tensor_that_broke_has_no_norm_and_is_not_called_still(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path, module = tmp_path / "b.lxh", torch.nn.Sequential(torch.nn.Linear(5, 3))
    history = lx.History(path).watch(module)
    with history, torch.no_grad():
        history.record(1, loss=2.5)
        module[0].weight.fill_(float("nan"))
        history.record(2, loss=float("nan"))
        history.record(3, loss=float("nan"))
    found = lx.History.read(path)
    weight = found["0"]["weight"]
    assert np.isnan(weight.norms[-1])
    assert np.isnan(weight.largest[-1])
    assert weight.broken[-1] == 15
    text = " ".join(found.text().split())
    assert "loss 2.5 → NaN; NaN or infinite numbers in 1 tensor, the first at step 2" in text
    assert text.count("did not move at all") == 1  # the bias alone
    assert len(repr(found["0"])) < 1000
    found.plot(tmp_path / "b.png")


def test_a_history_is_no_model_and_the_error_says_what_it_is(tmp_path: Path) -> None:
    from layoutx.errors import FileError
    from layoutx.history.frames import MAGIC

    (tmp_path / "run.lxh").write_bytes(MAGIC + bytes(60))
    with pytest.raises(FileError, match=r"history of a training(.|\n)*layoutx history run.lxh"):
        lx.inspect(tmp_path / "run.lxh")
