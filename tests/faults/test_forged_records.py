"""A folder of a stranger may hold what a killed run would have left: nothing but parts of the output is touched."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import FileError
from layoutx.files.leftovers import work_folder
from layoutx.files.open import open_store
from layoutx.job.published import RECORD

DIGITS = Path(__file__).parents[2] / "examples" / "digits.keras"
OUTPUT = "m.safetensors"


def converted(folder: Path, most: str = "10KB") -> None:
    lx.convert(DIGITS, folder / OUTPUT, to="torch", live=False, max_shard_size=most)


@pytest.mark.parametrize(
    "record",
    [
        {"from": "", "files": [], "stale": ["../mine.txt"]},
        {"from": "", "files": [], "stale": ["notes.txt"]},
        {"from": "..", "files": [], "stale": []},
        {"from": "../..", "files": ["m.safetensors"], "stale": []},
        {"from": "x", "files": ["../mine.txt"], "stale": []},
        {"from": "x", "files": "m.safetensors", "stale": []},
        {"from": 3, "files": [], "stale": []},
        {"from": "x", "files": [7], "stale": []},
        {},
        [],
        None,
    ],
)
def test_a_record_that_names_other_files(tmp_path: Path, record: object) -> None:
    folder = tmp_path / "model"
    work = work_folder(folder / OUTPUT)
    work.mkdir(parents=True)
    (work / RECORD).write_text(json.dumps(record) if record is not None else "{ no json")
    (tmp_path / "mine.txt").write_text("mine")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="not one that layoutx wrote") as caught:
        converted(folder)
    assert str(work) in str(caught.value)
    assert (tmp_path / "mine.txt").read_text() == (folder / "notes.txt").read_text() == "mine"


def test_an_index_that_names_a_file_of_mine_as_its_shard(tmp_path: Path) -> None:
    """An output goes whole when it is replaced, but only what is called as a part of it."""
    mine = tmp_path / "notes.txt"
    mine.write_text("mine")
    index = {"metadata": {"layoutx": "{}"}, "weight_map": {"a": "notes.txt", "b": "m-00001-of-00002.safetensors"}}
    (tmp_path / f"{OUTPUT}.index.json").write_text(json.dumps(index))
    (tmp_path / "m-00001-of-00002.safetensors").write_bytes(b"an old part")
    converted(tmp_path, "1GB")
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [OUTPUT, "notes.txt"]
    assert all(np.isfinite(array.read()).all() for array in open_store(tmp_path / OUTPUT).tensors.values())


@pytest.mark.parametrize("most", ["10KB", "1GB"])
def test_a_work_folder_that_is_a_link(tmp_path: Path, most: str) -> None:
    """A checkout may hold links: what they point to is none of the run's."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "model"
    elsewhere.mkdir()
    folder.mkdir()
    (elsewhere / "mine.txt").write_text("mine")
    work_folder(folder / OUTPUT).symlink_to(elsewhere)
    with pytest.raises(FileError, match="symbolic links") as caught:
        converted(folder, most)
    assert ".parts" in str(caught.value)
    assert [path.name for path in elsewhere.iterdir()] == ["mine.txt"]


def test_a_lock_that_is_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    work = work_folder(folder / OUTPUT)
    work.mkdir(parents=True)
    (work / "lock").symlink_to(tmp_path / "made")
    with pytest.raises(FileError, match="symbolic links"):
        converted(folder)
    assert not (tmp_path / "made").exists()


def test_temporaries_that_are_links(tmp_path: Path) -> None:
    """They look like those of a dead run, and stay: nothing behind them is touched."""
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    (tmp_path / f".{OUTPUT}.01234567.tmp").symlink_to(tmp_path / "mine.txt")
    (tmp_path / f".{OUTPUT}.89abcdef.tmp").symlink_to(tmp_path / "folder")
    converted(tmp_path, "1GB")
    assert (tmp_path / "mine.txt").read_text() == (tmp_path / "folder" / "mine.txt").read_text() == "mine"
