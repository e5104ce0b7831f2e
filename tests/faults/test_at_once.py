"""Two runs to one output at once: a file is that of the last one, shards are made by one of them."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scenes import Scene, files, record, visible
from steps import STRANGE

from layoutx.errors import FileError, LayoutxError
from layoutx.files import atomic
from layoutx.files.save import save
from layoutx.job.published import at_work

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
Scenes = Callable[..., Scene]


def together(works: Sequence[Callable[[], object]]) -> list[int]:
    """Do works in processes that start at the same moment; their exit statuses."""
    inward, outward = os.pipe()
    children = []
    for work in works:
        child = os.fork()
        if not child:
            os.close(outward)
            os.read(inward, 1)  # until the other end is closed
            status = STRANGE
            try:
                work()
                status = 0
            except LayoutxError as error:
                status = error.exit_code if "another run" in str(error) else STRANGE
            finally:
                os._exit(status)
        children.append(child)
    os.close(inward)
    os.close(outward)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


@pytest.mark.parametrize("swaps", [True, False])
def test_two_runs_to_one_file_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool) -> None:
    """Both end well, and what is there is whole and one of the two."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    pytest.importorskip("torch", reason="the folder is a DCP checkpoint")
    if not swaps:
        monkeypatch.setattr(atomic, "swap", lambda *_: False)
    values = [{"w": np.random.default_rng(seed).normal(size=(7, 11))} for seed in range(3)]
    tried = 0
    for name in ("m.npz", "m.dcp"):
        wanted = []
        for number, value in enumerate(values):
            (tmp_path / f"{name}{number}").mkdir()
            save(tmp_path / f"{name}{number}" / name, value, {"layoutx": "{}"})
            wanted.append(files(tmp_path / f"{name}{number}"))
        out = tmp_path / name.replace("m", "out")
        out.mkdir()
        for _ in range(4):
            works = [partial(save, out / name, value, {"layoutx": "{}"}) for value in values]
            assert together(works) == [0, 0, 0]
            assert files(out) in wanted
            tried += 1
    record(f"three runs to one output at once{'' if swaps else ', folders moved aside'}", tried, tried)


def test_two_runs_to_the_same_shards(scene: Scenes) -> None:
    """One of them is refused, or they come one after the other; the shards belong together."""
    found = scene("shards")
    seen = []
    for _ in range(5):
        found.reset()
        ended = together([lambda: found.make(found.folder), lambda: found.make(found.folder)])
        assert ended in ([0, 0], [0, 1], [1, 0])
        assert files(found.folder) == found.new
        seen.append(sum(ended))
    record("two runs to the same shards at once", len(seen), len(seen))


def test_shards_that_another_run_makes_are_refused(scene: Scenes) -> None:
    found = scene("shards")
    with at_work(found.folder / "m.safetensors"):
        for resume in (False, True):
            with pytest.raises(FileError, match=r"another run makes m\.safetensors now") as caught:
                found.make(found.folder, resume=resume)
            assert "wait until it has ended" in caught.value.do
            assert visible(files(found.folder)) == found.old
    found.finish()


def test_random_kills_and_a_second_run(scene: Scenes) -> None:
    """Of two runs to one file, one is killed at some moment; the other ends well, and nothing else is left."""
    found = scene("safetensors")
    chance = random.Random(7)
    for _ in range(6):
        found.reset()
        victim = os.fork()
        if not victim:
            try:
                while True:
                    found.make(found.folder)
            finally:
                os._exit(STRANGE)
        time.sleep(chance.random() * 0.1)
        os.kill(victim, signal.SIGKILL)
        found.make(found.folder)
        os.waitpid(victim, 0)
        found.finish()
