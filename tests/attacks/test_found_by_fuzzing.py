"""What scripts/fuzz.py found, each as the smallest file that showed it."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from layoutx.errors import FileError
from layoutx.history.frames import HEADER, packed
from layoutx.history.reader import read

SLOT = {
    "layer": "fc", "name": "bias", "key": "fc.bias", "shape": [3], "dtype": "float32", "axes": ["output"], "unit": 0,
    "state": False, "about": "", "stored": "float32", "kept": [3], "nbytes": 12,
}  # fmt: skip
LAYER = {"name": "fc", "class": "Linear", "form": "torch.Linear", "kind": "dense"}
HEAD = {"format": 1, "framework": "torch", "what": "all", "layers": [LAYER], "slots": [SLOT]}
CORPUS = Path(__file__).resolve().parents[1] / "corpus"
DATA = struct.pack("<3f", 1, 2, 3)
STEP = {
    "step": 0, "epoch": 0, "time": 1.0, "logs": {"loss": 0.5}, "since": None, "measures": [[1.0, 2.0, None, 0]],
    "crc": [zlib.crc32(DATA)],
}  # fmt: skip


def history(path: Path, head: Any = HEAD, step: Any = STEP, note: Any = None) -> Path:
    """A history of one tensor and one moment, its checksums right."""
    data = packed("head", head, 0) + packed("step", step, len(DATA)) + DATA
    path.write_bytes(data + (b"" if note is None else packed("note", note, 0)))
    return path


def test_the_history_that_is_forged_below_is_one(tmp_path: Path) -> None:
    found = read(history(tmp_path / "a.lxh", note={"text": "said"}))
    assert found["fc"]["bias"][0].tolist() == [1, 2, 3]
    assert found.notes == ("said",)


def with_slot(**what: Any) -> dict[str, Any]:
    return {**HEAD, "slots": [{**SLOT, **what}]}


def without(found: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != key}


FORGED: dict[str, Callable[[], dict[str, Any]]] = {
    "a head without slots": lambda: {"head": without(HEAD, "slots")},
    "a layer without a name": lambda: {"head": {**HEAD, "layers": [without(LAYER, "name")]}},
    "a dtype that there is not": lambda: {"head": with_slot(stored="float31")},
    "a dtype of objects": lambda: {"head": with_slot(stored="object")},
    "a shape below zero": lambda: {"head": with_slot(shape=[-1])},
    "a tensor larger than the file": lambda: {"head": with_slot(kept=[1 << 60], nbytes=1 << 62)},
    "a size that is not its shape's": lambda: {"head": with_slot(nbytes=8)},
    "units counted along an axis that there is not": lambda: {"head": with_slot(unit=1)},
    "a moment that is text": lambda: {"step": {**STEP, "time": "noon"}},
    "a moment with measures of no tensor": lambda: {"step": {**STEP, "measures": []}},
    "a moment at step 10 to the 400": lambda: {"step": {**STEP, "step": 10**400}},
    "a metric that is a list": lambda: {"step": {**STEP, "logs": {"loss": [1]}}},
    "a note without text": lambda: {"note": {}},
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_history_whose_text_is_forged(forged: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    """KeyError, TypeError and OverflowError came out of `layoutx history`."""
    with pytest.raises(FileError, match=r"a\.lxh"):
        read(history(tmp_path / "a.lxh", **forged()))


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000], ids=lambda b: repr(b[:4]))
@pytest.mark.parametrize("kind", [b"head", b"step", b"\xcd\x00\x00\x00"], ids=repr)
def test_a_history_frame_that_is_no_json(kind: bytes, body: bytes, tmp_path: Path) -> None:
    """JSONDecodeError, UnicodeDecodeError and RecursionError: of a frame whose checksum is right."""
    header = HEADER.pack(b"lxhf", kind, len(body), 0, zlib.crc32(body))
    frame = header + struct.pack("<I", zlib.crc32(header)) + body
    path = tmp_path / "a.lxh"
    path.write_bytes(frame)
    with pytest.raises(FileError, match=r"a\.lxh"):
        read(path)
    behind = history(path).read_bytes()
    path.write_bytes(behind + frame)
    assert len(read(path)) == 1, json.dumps(STEP)


@pytest.mark.parametrize("key", ["batch_input_shape", "build_input_shape"])
@pytest.mark.parametrize("length", [{}, [], "six", 1e999, [[0]]], ids=repr)
def test_an_input_shape_that_is_no_shape(key: str, length: Any, refused: Any, tmp_path: Path) -> None:
    """TypeError, ValueError and OverflowError came out of a `.keras` config's batch_input_shape."""
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(CORPUS / "keras" / "two" / "a.keras") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == "config.json":
                config = json.loads(text)
                first = config["config"]["layers"][0]["config"]
                shape = first.pop("batch_input_shape")
                (first if key == "batch_input_shape" else config["config"])[key] = [None, length, *shape[2:]]
                text = json.dumps(config).encode()
            new.writestr(name, text)
    assert key in refused(path, deed="inspect")
