"""A sharded conversion that was stopped goes on: with what is done and still what it was, and with nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from scenes import Scene, files, record, source
from steps import EVERY, disturbed

from layoutx.files.leftovers import JOURNAL, work_folder
from layoutx.job import shards
from layoutx.job.published import RECORD

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
Scenes = Callable[..., Scene]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards that are made, as they are made."""
    found: list[str] = []
    real = shards.make
    monkeypatch.setattr(shards, "make", lambda part: found.append(part.path.name) or real(part))
    return found


def stopped(found: Scene, many: int) -> Path:
    """Kill a run when it has noted `many` finished shards; the folder of those."""
    for at in range(15, 400, 2):
        found.reset()
        if not disturbed(lambda: found.make(found.folder), at).killed:
            break
        work = work_folder(found.folder / "m.safetensors")
        if (work / JOURNAL).is_file() and len(json.loads((work / JOURNAL).read_text())["done"]) == many:
            (own,) = (one for one in work.iterdir() if one.is_dir())
            return own
    raise AssertionError("it was never at that point")


def test_it_goes_on_from_every_moment(scene: Scenes, made: list[str]) -> None:
    """Killed at any call, then resumed: the same bytes as of one run, and no finished shard is made again."""
    found = scene("shards")
    tried = 0
    for at in range(1, 400, EVERY):
        found.reset()
        if not disturbed(lambda: found.make(found.folder), at).killed:
            break
        work = work_folder(found.folder / "m.safetensors")
        going = (work / JOURNAL).is_file() and not (work / RECORD).is_file()  # what is recorded is put in place first
        done = set(json.loads((work / JOURNAL).read_text())["done"]) if going else set()
        made.clear()
        found.make(found.folder, resume=True)
        assert files(found.folder) == found.new
        assert not done & set(made)
        tried += 1
    assert tried * EVERY > 50
    record("killed at a call to the system and resumed", tried, tried)


def test_every_flipped_byte_of_a_finished_shard_is_seen(scene: Scenes, made: list[str]) -> None:
    found = scene("shards")
    own = stopped(found, 1)
    (shard,) = own.glob("m-00001*")
    whole, keep = shard.read_bytes(), files(found.folder)
    tried = 0
    for at in range(0, len(whole), 20 * EVERY - 19):
        for name, data in keep.items():
            (found.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (found.folder / name).write_bytes(data)
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        made.clear()
        found.make(found.folder, resume=True)
        assert files(found.folder) == found.new, f"byte {at}"
        assert shard.name in made
        tried += 1
    record("a finished shard with one flipped bit, resumed", tried, tried)


@pytest.mark.parametrize("harm", ["truncated", "longer", "gone", "journal", "no journal"])
def test_a_damaged_shard_is_made_again(scene: Scenes, made: list[str], harm: str) -> None:
    found = scene("shards")
    own = stopped(found, 1)
    (shard,) = own.glob("m-00001*")
    journal = own.parent / JOURNAL
    made.clear()
    if harm == "truncated":
        os.truncate(shard, shard.stat().st_size - 1)
    elif harm == "longer":
        os.truncate(shard, shard.stat().st_size + 8)
    elif harm == "gone":
        shard.unlink()
    elif harm == "journal":
        journal.write_text(journal.read_text()[:-3])
    else:
        journal.unlink()
    found.make(found.folder, resume=True)
    assert files(found.folder) == found.new
    assert shard.name in made


@pytest.mark.parametrize("change", ["source", "dtype", "size", "verify", "no resume"])
def test_another_job_takes_nothing_of_it(scene: Scenes, made: list[str], tmp_path: Path, change: str) -> None:
    """Another source, dtype, size of shards, level of verification: all is made again."""
    found = scene("shards")
    stopped(found, 1)
    made.clear()
    how = {
        "dtype": {"dtype": "f32", "max_shard_size": 600},
        "size": {"max_shard_size": 1100},
        "verify": {"verify": "none"},
    }.get(change, {})
    if change == "source":
        source(tmp_path / "b.safetensors", 5)
    (tmp_path / "one").mkdir()
    found.make(found.folder, resume=change != "no resume", **how)
    again = list(made)
    found.make(tmp_path / "one", **how)
    assert files(found.folder) == files(tmp_path / "one")
    assert len(again) == 2


def test_shards_never_take_the_place_of_their_source(scene: Scenes, tmp_path: Path) -> None:
    """An index converted to an output whose shards have the names of its own."""
    from layoutx.convert import convert
    from layoutx.errors import UsageError

    found = scene("shards")
    before = files(found.folder)
    with pytest.raises(UsageError, match="the output is the source itself"):
        convert(
            found.folder / "m.safetensors.index.json",
            found.folder / "m.safetensors",
            to="flax",
            from_="torch",
            like=tmp_path / "a.safetensors",
            live=False,
            max_shard_size=1200,
        )
    assert files(found.folder) == before
