"""The kept registry is the one that the spec files say, and never stands in its way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layoutx.spec.kept import cache_folder, keep, kept, taken
from layoutx.spec.registry import Registry, builtin_folder, load_registry

SPEC = """kind: twice
about: "y = 2 x kernel"
roles:
  kernel: {axes: "input output"}
forms:
  mine.Twice:
    config: {units: null}
    sizes: {units: output}
    tensors:
      kernel: "kernel: input output"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("LAYOUTX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_kept_registry_is_the_one_that_was_read(home: Path) -> None:
    read = load_registry([builtin_folder()])
    place = kept([builtin_folder()])
    assert place is not None
    keep(place, read)
    found = taken(place)
    assert found is not None
    again = Registry(*found)
    assert list(again.kinds) == list(read.kinds)
    assert list(again.forms) == list(read.forms)
    assert dict(again.kinds) == dict(read.kinds)
    assert dict(again.forms) == dict(read.forms)
    assert dict(again.frameworks) == dict(read.frameworks)


def test_only_the_kinds_that_are_asked_for_are_read(home: Path) -> None:
    place = kept([builtin_folder()])
    assert place is not None
    keep(place, load_registry([builtin_folder()]))
    found = taken(place)
    assert found is not None
    again = Registry(*found)
    assert "torch.LSTM" in again.forms
    assert not again.kinds.read  # type: ignore[attr-defined]
    assert again.kind_of("torch.LSTM").name == "lstm"
    assert list(again.kinds.read) == ["lstm"]  # type: ignore[attr-defined]


def test_an_edited_spec_is_another_registry(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "twice.yaml").write_text(SPEC)
    first = kept([folder])
    (folder / "twice.yaml").write_text(SPEC.replace("2 x", "3 x"))
    os.utime(folder / "twice.yaml", ns=(1, 1))
    assert first != kept([folder])


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_file_is_as_if_it_were_not_there(home: Path, damage: str) -> None:
    place = kept([builtin_folder()])
    assert place is not None
    keep(place, load_registry([builtin_folder()]))
    data = place.read_bytes()
    changed = data[:40] + bytes([data[40] ^ 1]) + data[41:]
    place.write_bytes({"cut": data[:-1], "changed": changed, "empty": b""}[damage])
    assert taken(place) is None


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="file modes of POSIX")
def test_what_others_can_write_is_not_read(home: Path) -> None:
    place = kept([builtin_folder()])
    assert place is not None
    keep(place, load_registry([builtin_folder()]))
    place.chmod(0o666)
    assert taken(place) is None


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYOUTX_CACHE", "")
    assert cache_folder() is None
    assert kept([builtin_folder()]) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    keep(tmp_path / "file" / "registry-0.pickle", load_registry([builtin_folder()]))


def test_a_folder_that_is_missing_is_nobody_elses_registry(home: Path, tmp_path: Path) -> None:
    assert kept([builtin_folder(), tmp_path / "missing"]) is None
