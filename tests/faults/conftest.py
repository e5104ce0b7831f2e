"""`scene("npz")`: an old output that is replaced while something goes wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from scenes import Scene, scene_of


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    """Makes scenes in a folder of the test's own; nothing waits for the disk, which only a power failure shows."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    return partial(scene_of, tmp_path)
