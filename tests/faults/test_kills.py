"""A process that is killed at any call to the system leaves the old output or the new one, and nothing for long."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scenes import HOW, Scene, files, record
from steps import EVERY, disturbed

from layoutx.files import atomic
from layoutx.files.save import save

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
ROOT = Path(__file__).resolve().parents[2]
Scenes = Callable[..., Scene]


def every_kill(found: Scene) -> int:
    """Kill the work at each of its calls; at how many."""
    for tried, at in enumerate(range(1, 10_000, EVERY)):
        found.reset()
        ended = disturbed(lambda: found.make(found.folder), at)
        state = found.state()
        if not ended.killed:
            assert (ended.status, state) == (0, "new"), ended.said
            return tried
        found.finish()
    raise AssertionError("it has no end")


@pytest.mark.parametrize("what", sorted(HOW))
def test_killed_at_every_call(scene: Scenes, what: str) -> None:
    found = scene(what)
    tried = every_kill(found)
    assert tried * EVERY > 16
    assert {"old", "new"} <= set(found.states), found.states
    record(f"killed at each of its calls to the system: {what}", tried, tried)


def test_folders_killed_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A DCP checkpoint is a folder: exchanged with the old one in one step, or moved aside and put back."""
    pytest.importorskip("torch", reason="DCP checkpoints are torch's")
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    for swaps in (True, False):
        with monkeypatch.context() as patch:
            if not swaps:
                patch.setattr(atomic, "swap", lambda *_: False)
            found = folder_scene(tmp_path / str(swaps))
            tried = every_kill(found)
            if EVERY == 1:
                assert ("none" in found.states) is not swaps, found.states
            record(
                f"killed at each of its calls to the system: a folder, {'exchanged' if swaps else 'moved'}",
                tried,
                tried,
            )


def folder_scene(home: Path) -> Scene:
    """An old DCP checkpoint that is replaced."""
    states = []
    for name, seed in (("old", 1), ("new", 2), ("out", 1)):
        (home / name).mkdir(parents=True)
        save(home / name / "m.dcp", {"w": np.random.default_rng(seed).normal(size=(3, 5))}, {"layoutx": "{}"})
        states.append(files(home / name))
    values = {"w": np.random.default_rng(2).normal(size=(3, 5))}
    return Scene(
        home / "out", lambda folder: save(folder / "m.dcp", values, {"layoutx": "{}"}), *states[:2], absent=True
    )
