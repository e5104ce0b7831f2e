"""The picture shows where numbers live: its blocks tile the stored array, and its SVG is well-formed and safe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import layoutx as lx
from layoutx.plan.plan import Plan
from layoutx.show.picture import Block, Drawing, Link, Picture, Spot, picture, runs
from layoutx.show.svg import described, svg

PAIRS: list[tuple[str, str, Mapping[str, int]]] = [
    ("keras.Dense", "torch.Linear", {"input": 7, "output": 5}),
    ("keras.LSTM", "torch.LSTM", {"input": 7, "hidden": 5}),
    ("keras.LSTM", "onnx.LSTM", {"input": 7, "hidden": 5}),
    ("torch.GRU", "keras.GRU", {"input": 6, "hidden": 11}),
    ("keras.Conv2D", "torch.Conv2d", {"kh": 3, "kw": 5, "in": 7, "out": 11, "group": 1}),
    ("keras.BatchNormalization", "torch.BatchNorm2d", {"channel": 13}),
    (
        "keras.MultiHeadAttention",
        "torch.MultiheadAttention",
        {"embed_q": 6, "embed_k": 6, "embed_v": 6, "out": 6, "kv": 2, "head": 3, "value": 3},
    ),
]


def made(pair: tuple[str, str, Mapping[str, int]]) -> Plan:
    source, target, sizes = pair
    return lx.plan(source, target, sizes=sizes)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p[0]}-{p[1]}")
def test_the_blocks_of_a_drawing_tile_its_plane(pair: Any) -> None:
    found = picture(made(pair).source, made(pair))
    for drawing in (*found.here, *found.there):
        covered = np.zeros((drawing.rows, drawing.columns), int)
        for block in drawing.blocks:
            for top, bottom in block.rows:
                for left, right in block.columns:
                    covered[top:bottom, left:right] += 1
        assert np.all(covered == 1), drawing.tensor


def test_a_gate_is_where_part_finds_it() -> None:
    plan = made(PAIRS[1])
    place = plan.source.places[("w_input", (("direction", "forward"), ("gate", "f")))]
    steps = tuple((plan.source.sizes[axis], step) for axis, step in place.block.strides.items())
    found = picture(plan.source, plan, Spot(place.tensor, place.block.offset, steps, "w_input.forward.f"))
    assert found.here[0].spot == (((0, 7),), ((5, 10),))
    text = svg(found)
    assert text.count('class="spot"') == 1
    assert "block kernel faded" in text
    assert 'class="kernel"' in text  # the one line that is not faded


def test_labels_are_spelled_as_each_framework_does() -> None:
    found = picture(made(PAIRS[1]).source, made(PAIRS[1]))
    assert [b.label for b in found.here[0].blocks] == ["i", "f", "c", "o"]
    assert [b.label for b in found.there[0].blocks] == ["i", "f", "g", "o"]


def test_what_has_no_source_is_drawn_empty() -> None:
    assert 'class="block bias empty"' in svg(picture(made(PAIRS[1]).source, made(PAIRS[1])))
    assert "empty" not in svg(picture(made(PAIRS[0]).source, made(PAIRS[0]))).partition("</style>")[2]


def test_interleaved_numbers_are_runs() -> None:
    assert runs(1, [(4, 3)], 12) == (((0, 1),), ((1, 2), (4, 5), (7, 8), (10, 11)))
    assert runs(23, [(2, -12), (12, -1)], 12) == (((0, 2),), ((0, 12),))


def test_an_axis_that_turns_is_a_dashed_line() -> None:
    block = Block("w", "w", "", ((0, 1),), ((0, 4),))
    side = Drawing("t", ("a",), (4,), 0, (block,))
    shown = svg(Picture("a.A", (side,), "b.B", (side,), (Link(("t", "w"), ("t", "w"), True),)))
    assert 'class="kernel turned"' in shown


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p[0]}-{p[1]}")
def test_the_svg_is_one_element_of_400_units(pair: Any) -> None:
    root = ElementTree.fromstring(svg(picture(made(pair).source, made(pair)), standalone=True))
    assert root.get("width") == "400"
    assert root.get("viewBox", "").startswith("0 0 400 ")
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        assert float(text.get("x", "0")) >= 0


def test_a_long_axis_is_broken_and_keeps_its_size() -> None:
    plan = lx.plan("torch.LSTM", "onnx.LSTM", sizes={"input": 5, "hidden": 7})
    texts = re.findall(r'class="dim" x="236"[^>]*>([^<]*)<', svg(picture(plan.source, plan)))
    assert texts[-2:] == ["→ b_input+b_recurrent×gate", "   ×hidden 56"]
    assert all(len(text) * 6 <= 400 - 236 for text in texts)


def test_a_long_name_is_set_narrower() -> None:
    block = Block("w", "w", "", ((0, 1),), ((0, 4),))
    side = Drawing("t", ("a",), (4,), 0, (block,))
    shown = svg(Picture("flax.Dense", (side,), "flax.MultiHeadDotProductAttention", (side,)))
    assert re.findall(r'textLength="(\d+)"[^>]*>([^<]*)', shown) == [("160", "flax.MultiHeadDotProductAttention")]


def test_hostile_names_stay_text() -> None:
    evil = '</svg><script>alert("x")</script>'
    block = Block(evil, evil, evil, ((0, 1),), ((0, 400),))
    side = Drawing(evil, (evil,), (400,), 0, (block,))
    shown = svg(Picture(evil, (side,), evil, (side,), code=(evil,)))
    assert "<script" not in shown
    assert shown.count("</svg>") == 1
    ElementTree.fromstring(shown)


def test_the_sentence_names_sides_and_axes() -> None:
    found = described(picture(made(PAIRS[0]).source, made(PAIRS[0])))
    here, there = "keras.Dense: kernel (input 7, output 5), bias (output 5)", "torch.Linear: weight (output 5, input 7)"
    assert found == f"{here} to {there}, bias (output 5)"
