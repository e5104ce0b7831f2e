"""Hostile TensorFlow Lite models: flatbuffers whose offsets point anywhere, made here byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest


class Flat:
    """A flatbuffer written front to back: tables first, what they point to behind them."""

    def __init__(self) -> None:
        self.raw = bytearray(struct.pack("<I", 0) + b"TFL3")

    def table(self, *codes: str) -> tuple[int, list[int]]:
        """A table of fields of these struct codes ("" where one is left out): its place, and that of each field."""
        vtable, size = len(self.raw), 4 + sum(struct.calcsize("<" + code) for code in codes)
        self.raw += struct.pack("<HH", 4 + 2 * len(codes), size)
        at, places = 4, []
        for code in codes:
            self.raw += struct.pack("<H", at if code else 0)
            places.append(at)
            at += struct.calcsize("<" + code)
        here = len(self.raw)
        self.raw += struct.pack("<i", here - vtable) + bytes(size - 4)
        return here, [here + place for place in places]

    def put(self, at: int, code: str, value: Any) -> None:
        struct.pack_into("<" + code, self.raw, at, value)

    def point(self, at: int, target: int) -> None:
        self.put(at, "I", (target - at) & 0xFFFFFFFF)

    def vector(self, at: int, code: str, *values: Any, count: int | None = None) -> int:
        """A vector that the field at `at` points to; its place."""
        here = len(self.raw)
        self.raw += struct.pack("<I", len(values) if count is None else count)
        self.raw += struct.pack(f"<{len(values)}{code}", *values)
        self.point(at, here)
        return here


def model(path: Path, **forged: Any) -> Path:
    """A model of one tensor, float32 of shape [2], in buffer 1; `forged` changes one thing in it."""
    flat = Flat()
    root, fields = flat.table("I", "I", "I", "I", "I")  # version, operator codes, graphs, description, buffers
    flat.put(0, "I", root)
    graphs = flat.vector(fields[2], "I", *[0] * forged.get("graphs", 1), count=forged.get("graphs_count"))
    buffers = flat.vector(fields[4], "I", 0, 0, count=forged.get("buffers_count"))
    graph, own = flat.table("I")
    for i in range(forged.get("graphs", 1)):
        flat.point(graphs + 4 + 4 * i, graph)
    tensors = flat.vector(own[0], "I", *[0] * forged.get("tensors", 1), count=forged.get("tensors_count"))
    tensor, parts = flat.table(
        "I", "b", "I", "I", "I", "b", "I"
    )  # shape, type, buffer, name, quantization, -, sparsity
    for i in range(forged.get("tensors", 1)):
        flat.point(tensors + 4 + 4 * i, forged.get("tensor_at", tensor))
    flat.vector(parts[0], "i", *forged.get("shape", (2,)), count=forged.get("shape_count"))
    flat.put(parts[1], "b", forged.get("type", 0))
    flat.put(parts[2], "I", forged.get("buffer", 1))
    name = forged.get("name", b"w")
    flat.vector(parts[3], f"{len(name)}s", name, count=forged.get("name_count", len(name)))
    for field, key in ((4, "quantized"), (6, "sparse")):
        if key not in forged:
            flat.put(tensor - struct.unpack_from("<i", flat.raw, tensor)[0] + 4 + 2 * field, "H", 0)
    if "quantized" in forged:
        inner, places = flat.table("I", "I", "I", "I", "", "", "i")
        flat.point(parts[4], inner)
        for place in places[:2]:
            flat.vector(place, "f")
        flat.vector(places[2], "f", *forged["quantized"], count=forged.get("scales_count"))
        flat.vector(places[3], "q", 0)
    empty, _ = flat.table()
    data, of = flat.table("I", "Q", "Q")
    flat.point(buffers + 4, empty)
    flat.point(buffers + 8, data)
    flat.vector(of[0], "f", 1.5, -2.5, count=forged.get("data_count", 8))
    flat.put(of[1], "Q", forged.get("offset", 0))
    flat.put(of[2], "Q", forged.get("size", 0))
    for at, code, value in forged.get("patches", ()):
        flat.put({"root": 0, "graph": graph, "tensor": tensor, "fields": fields[2]}[at], code, value)
    path.write_bytes(flat.raw)
    return path


def test_the_plain_file_of_these_tests(refused: Any, tmp_path: Path) -> None:
    assert refused(model(tmp_path / "a.tflite"), fine=True) == "1 tensors"


FORGED: dict[str, dict[str, Any]] = {
    "a root behind the end": {"patches": [("root", "I", 1 << 20)]},
    "a root at 2^32": {"patches": [("root", "I", 0xFFFFFFFF)]},
    "a vtable before the file": {"patches": [("graph", "i", 1 << 20)]},
    "a vtable behind the file": {"patches": [("graph", "i", -(1 << 30))]},
    "a vtable at the far end": {"patches": [("tensor", "i", -(1 << 31))]},
    "a vector of graphs behind the end": {"patches": [("fields", "I", 1 << 30)]},
    "a vector of 2^31 graphs": {"graphs_count": 1 << 31},
    "a vector of 2^32 tensors": {"tensors_count": 0xFFFFFFFF},
    "a vector of 2^31 buffers": {"buffers_count": 1 << 31},
    "a vector of 2^31 axes": {"shape_count": 1 << 31},
    "a name of 2^31 characters": {"name_count": 1 << 31},
    "numbers of 2^31 bytes": {"data_count": 1 << 31},
    "a buffer that is not there": {"buffer": 2},
    "a buffer of number 2^32": {"buffer": 0xFFFFFFFF},
    "a place behind the end": {"offset": 1 << 40, "size": 8},
    "a place of 2^64": {"offset": (1 << 64) - 1, "size": 8},
    "a size of 2^64": {"offset": 16, "size": (1 << 64) - 1},
    "a shape larger than its bytes": {"shape": (3,)},
    "a shape smaller than its bytes": {"shape": (1,)},
    "a shape of 10^18": {"shape": (10**9, 10**9)},
    "a negative shape": {"shape": (-2,)},
    "two negative axes": {"shape": (-1, -2)},
    "forty axes": {"shape": (2, *[1] * 39)},
    "quantised, without scales that fit": {"quantized": (0.5, 0.25, 0.125)},
    "2^31 scales": {"quantized": (0.5,), "scales_count": 1 << 31},
    "a million graphs that are one": {"graphs": 1_000_000},
    "a million tensors that are one": {"tensors": 1_000_000},
}


@pytest.mark.parametrize("attack", FORGED)
def test_forged_flatbuffers(refused: Any, tmp_path: Path, attack: str) -> None:
    assert len(refused(model(tmp_path / "a.tflite", **FORGED[attack]))) < 2000


@pytest.mark.parametrize("size", [8, 12, 20, 60])
def test_a_model_that_ends_early(refused: Any, tmp_path: Path, size: int) -> None:
    path = model(tmp_path / "a.tflite")
    path.write_bytes(path.read_bytes()[:size])
    refused(path)


@pytest.mark.parametrize("number", [-128, -1, 21, 127])
def test_a_type_that_is_none(refused: Any, tmp_path: Path, number: int) -> None:
    """It is listed as left out, and never read."""
    assert refused(model(tmp_path / "a.tflite", type=number), fine=True) == "0 tensors"


def test_graphs_that_share_a_vector_of_tensors_without_end(refused: Any, tmp_path: Path) -> None:
    """A thousand graphs of a thousand tensors each, all of them the same table: a million names in a few kilobytes."""
    refused(model(tmp_path / "a.tflite", graphs=3_000, tensors=3_000, name=b"a" * 10))


def test_a_vector_of_two_million_tables(refused: Any, tmp_path: Path) -> None:
    """As long as the file: every four bytes are taken for a table."""
    path = model(tmp_path / "a.tflite", tensors=2_000_000)
    refused(path)
