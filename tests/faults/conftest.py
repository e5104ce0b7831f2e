"""`scene("npz")`: an old output that is replaced while something goes wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from harm import Reader
from scenes import Scene, scene_of
from sources import made


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    """Makes scenes in a folder of the test's own; nothing waits for the disk, which only a power failure shows."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    return partial(scene_of, tmp_path)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    """A process that reads while its files are harmed."""
    found = Reader()
    yield found
    found.end()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A source of each kind, to be copied before it is harmed."""
    return made(tmp_path_factory.mktemp("sources"))
