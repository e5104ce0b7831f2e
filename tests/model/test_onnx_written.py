"""Norms spelled out by several operators: which ways of writing them are known, and what only looks like one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_onnx_model import layers, node, saved

from layoutx.files.open import open_store
from layoutx.model.onnx_model import onnx_records

pytest.importorskip("onnx", reason="ONNX files need the onnx package")
Nodes = list[Any]
ONE = np.float32(1)
NUMBERS = {"two": np.float32(2), "eps": np.float32(1e-3), "one": ONE, "half": np.float32(0.5), "less": np.float32(-0.5)}
CENTRED = [node("ReduceMean", "x", "m", axes=[-1]), node("Sub", "x m", "d")]
SQUARES = node("Pow", "d two", "q")
MEAN = node("ReduceMean", "q", "v", axes=[-1])
ROOT = [node("Add", "v eps", "e"), node("Sqrt", "e", "s")]
SCALED = [node("Div", "d s", "n"), node("Mul", "n w", "z"), node("Add", "z b", "y")]
LAYER = [*CENTRED, SQUARES, MEAN, *ROOT, *SCALED]


def found(path: Path, nodes: Nodes, shape: tuple[Any, ...] = (2, 3, 7), opset: int = 17, **weights: Any) -> Any:
    """(form, config, tensors) of every layer."""
    held = {"w": (7,), "b": (7,), **NUMBERS, **weights}
    used = {name for one in nodes for name in one.input}
    made = layers(path, nodes, shape, opset, **{n: w for n, w in held.items() if n in used})
    return [(r.form, dict(r.config), {slot: t.name for slot, t in r.tensors.items()}) for r in made]


LAYER_NORM = ("onnx.LayerNormalization", {"axis": -1, "epsilon": 1e-3}, {"Scale": "w", "B": "b"})
RMS_NORM = ("onnx.RMSNormalization", {"axis": -1, "epsilon": 1e-3}, {"scale": "w"})


@pytest.mark.parametrize(
    "nodes",
    [
        LAYER,
        [*CENTRED, node("Mul", "d d", "q"), MEAN, *ROOT, *SCALED],
        [*CENTRED, node("Cast", "d", "c", to=11), node("Pow", "c two", "q"), MEAN, *ROOT, *SCALED],
        [*CENTRED, node("Sub", "x m", "d2"), node("Pow", "d2 two", "q"), MEAN, *ROOT, *SCALED],
        [*CENTRED, SQUARES, MEAN, node("Add", "eps v", "e"), node("Pow", "e half", "s"), *SCALED],
        [
            *CENTRED, SQUARES, MEAN, *ROOT, node("Reciprocal", "s", "r"), node("Mul", "r d", "n"),
            node("Mul", "w n", "z"), node("Add", "b z", "y"),
        ],
        [*CENTRED, SQUARES, MEAN, *ROOT, node("Div", "one s", "r"), node("Mul", "d r", "n"), *SCALED[1:]],
        [*CENTRED, SQUARES, MEAN, ROOT[0], node("Pow", "e less", "r"), node("Mul", "d r", "n"), *SCALED[1:]],
        [node("Cast", "x", "h", to=1), node("ReduceMean", "h", "m", axes=[2]), node("Sub", "h m", "d"), *LAYER[2:]],
    ],
)  # fmt: skip
def test_ways_to_write_a_layer_norm(tmp_path: Path, nodes: Nodes) -> None:
    assert found(tmp_path, nodes) == [LAYER_NORM]


def test_scales_with_leading_ones_and_axes_given_as_an_input(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", "x axes", "m"), CENTRED[1], SQUARES, node("ReduceMean", "q axes", "v"), *LAYER[4:]]
    assert found(tmp_path, nodes, opset=18, axes=np.array([-1]), w=(1, 1, 7), b=(1, 7)) == [LAYER_NORM]


def test_a_layer_norm_without_a_bias(tmp_path: Path) -> None:
    nodes = [*LAYER[:-2], node("Mul", "n w", "y")]
    assert found(tmp_path, nodes) == [(*LAYER_NORM[:2], {"Scale": "w"})]


def test_a_layer_norm_over_two_axes(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", "x", "m", axes=[-2, -1]), CENTRED[1], SQUARES]
    nodes += [node("ReduceMean", "q", "v", axes=[1, 2]), *LAYER[4:]]
    held = {n: NUMBERS[n] for n in ("two", "eps")}
    path = saved(tmp_path / "m.onnx", nodes, (2, 3, 7), w=(3, 7), b=(3, 7), **held)
    (one,) = onnx_records(open_store(path)).layers  # no form has features of two axes: it is refused later
    assert (one.form, one.config["axis"], one.tensors["Scale"].shape) == ("onnx.LayerNormalization", -2, (3, 7))


def test_differences_to_another_mean_leave_an_rms_norm(tmp_path: Path) -> None:
    nodes = [node("ReduceMean", "x", "m", axes=[1]), *LAYER[1:-1], node("Identity", "z", "y")]
    assert found(tmp_path, nodes) == [RMS_NORM]


def test_an_rms_norm(tmp_path: Path) -> None:
    nodes = [node("Pow", "x two", "q"), MEAN, *ROOT, node("Div", "x s", "n"), node("Mul", "n w", "y")]
    assert found(tmp_path, nodes) == [RMS_NORM]


FACTOR = [node("Reciprocal", "s", "r"), node("Mul", "r w", "f"), node("Mul", "x f", "t")]
TENSORFLOW = [node("Neg", "m", "k"), *CENTRED[1:], SQUARES, MEAN, *ROOT, *FACTOR]
SHIFT = [node("Mul", "k f", "u"), node("Add", "u b", "l"), node("Add", "t l", "y")]


@pytest.mark.parametrize(
    ("nodes", "shape"),
    [
        ([CENTRED[0], *TENSORFLOW, *SHIFT], (2, 3, 7)),
        ([CENTRED[0], *TENSORFLOW[1:], TENSORFLOW[0], *SHIFT], (2, 3, 7)),  # a graph says no order but who reads whom
        ([node("GlobalAveragePool", "x", "m"), *TENSORFLOW, *SHIFT], (2, 3, 7)),
        (
            [CENTRED[0], *TENSORFLOW[1:], node("Mul", "m f", "u"), node("Sub", "b u", "l"), node("Add", "l t", "y")],
            (3, 7),
        ),
    ],
)
def test_a_layer_norm_as_tensorflow_writes_it(tmp_path: Path, nodes: Nodes, shape: tuple[int, ...]) -> None:
    assert found(tmp_path, nodes, shape, w=(1, 1, 7), b=(1, 1, 7)) == [LAYER_NORM]


@pytest.mark.parametrize(
    "nodes",
    [
        [*TENSORFLOW, node("Mul", "k f", "u"), node("Add", "t u", "y")],
        [*TENSORFLOW[1:], node("Mul", "m f", "u"), node("Sub", "t u", "y")],
    ],
)
def test_a_layer_norm_without_a_beta_as_tensorflow_writes_it(tmp_path: Path, nodes: Nodes) -> None:
    """So it writes one that was never trained too: what is zero everywhere is left out."""
    assert found(tmp_path, [CENTRED[0], *nodes]) == [(*LAYER_NORM[:2], {"Scale": "w"})]


def test_an_rms_norm_as_tensorflow_writes_it(tmp_path: Path) -> None:
    nodes = [node("Mul", "x x", "q"), MEAN, *ROOT, *FACTOR[:2], node("Mul", "f x", "y")]
    assert found(tmp_path, nodes) == [RMS_NORM]


@pytest.mark.parametrize(
    "end",
    [
        [node("Mul", "k f", "u"), node("Sub", "u b", "l"), node("Add", "t l", "y")],
        [node("Mul", "k f", "u"), node("Add", "u b", "l"), node("Sub", "t l", "y")],
        [node("Mul", "s f", "u"), node("Add", "u b", "l"), node("Add", "t l", "y")],
        [node("Add", "t b", "y")],
        [node("Mul", "k f", "u"), node("Sub", "t u", "y")],
        [node("Mul", "m f", "u"), node("Sub", "u t", "y")],
    ],
)
def test_what_only_begins_as_tensorflow_writes_a_norm(tmp_path: Path, end: Nodes) -> None:
    forms = [form for form, *_ in found(tmp_path, [CENTRED[0], *TENSORFLOW, *end])]
    assert not {"onnx.LayerNormalization", "onnx.RMSNormalization"} & set(forms)


@pytest.mark.parametrize(
    "before",
    [
        [node("Sub", "p i", "x")],
        [node("Div", "p i", "x")],
        [node("Div", "one p", "x")],
        [node("Reciprocal", "p", "x")],
        [node("Pow", "p half", "x")],
        [node("Sqrt", "p", "x")],
        [node("Add", "p eps", "c"), node("Sqrt", "c", "x")],
        [node("ReduceMean", "p", "c", axes=[-1]), node("Sub", "i c", "x")],
        [node("Cast", "p", "c", to=11), node("Cast", "c", "x", to=1)],
        [node("Reshape", "p to", "x")],
    ],
)
@pytest.mark.parametrize("norm", ["layer", "rms", "tensorflow"])
def test_what_a_norm_reads_is_no_part_of_it(tmp_path: Path, before: Nodes, norm: str) -> None:
    """Differences, quotients and roots that are normalised: the same operators as in the norm."""
    rms = [node("Pow", "x two", "q"), MEAN, *ROOT, node("Div", "x s", "n"), node("Mul", "n w", "y")]
    nodes = {"layer": LAYER, "rms": rms, "tensorflow": [CENTRED[0], *TENSORFLOW, *SHIFT]}[norm]
    first = [node("Relu", "x", "p"), node("Tanh", "x", "i")]
    inside = [*first, *(_renamed(one, {"x": "xx"}) for one in before), *(_renamed(one, {"x": "xx"}) for one in nodes)]
    wanted = RMS_NORM if norm == "rms" else LAYER_NORM
    assert found(tmp_path, inside, to=np.array([2, 3, 7])) == [wanted]


def _renamed(one: Any, names: dict[str, str]) -> Any:
    """The same node with other names; p and i are what goes in."""
    made = type(one)()
    made.CopyFrom(one)
    del made.input[:], made.output[:]
    made.input.extend(names.get(name, name) for name in one.input)
    made.output.extend(names.get(name, name) for name in one.output)
    return made


THIN = [
    node("Unsqueeze", "x at", "u"),
    node("Conv", "u w", "c", strides=[1, 2], dilations=[1, 1], kernel_shape=[1, 3], pads=[0, 1, 0, 2]),
    node("Squeeze", "c at", "s"),
    node("Add", "s b", "y"),
]


def test_a_convolution_over_one_axis_that_is_written_as_one_over_two(tmp_path: Path) -> None:
    held = {"at": np.array([2]), "w": (5, 3, 1, 3), "b": (1, 5, 1)}
    (one,) = layers(tmp_path, THIN, (2, 3, 11), **held)
    assert (one.form, one.tensors["W"].shape, one.tensors["B"].shape) == ("onnx.Conv", (5, 3, 3), (5,))
    assert {key: one.config[key] for key in ("rank", "strides", "kernel_shape", "pads")} == {
        "rank": 1,
        "strides": [2],
        "kernel_shape": [3],
        "pads": [1, 2],
    }


@pytest.mark.parametrize("change", [{"strides": [2, 2]}, {"pads": [1, 0, 0, 0]}])
def test_a_convolution_that_moves_along_both_axes(tmp_path: Path, change: dict[str, Any]) -> None:
    said = {"strides": [1, 2], "kernel_shape": [1, 3], "pads": [0, 1, 0, 2], **change}
    nodes = [THIN[0], node("Conv", "u w", "c", **said), node("ReduceMean", "c", "s", axes=[2], keepdims=0)]
    nodes += [node("Identity", "s", "y")]
    (one,) = layers(tmp_path, nodes, (2, 3, 11), at=np.array([2]), w=(5, 3, 1, 3))
    assert one.config["rank"] == 2


GROUPED = [
    node("Reshape", "x to", "g"),
    node("InstanceNormalization", "g ones zeros", "i", epsilon=1e-3),
    node("Shape", "x", "h"),
    node("Reshape", "i h", "n"),
    node("Mul", "n w", "z"),
    node("Add", "z b", "y"),
]
GROUPS = {
    "to": np.array([0, 2, -1]),
    "ones": np.ones(2, "f4"),
    "zeros": np.zeros(2, "f4"),
    "w": (6, 1, 1),
    "b": (6, 1, 1),
}


def test_a_group_norm(tmp_path: Path) -> None:
    form = ("onnx.GroupNormalization", {"num_groups": 2, "epsilon": 1e-3, "since_version": 21})
    assert found(tmp_path, GROUPED, (3, 6, 5, 4), **GROUPS) == [(*form, {"scale": "w", "bias": "b"})]
    whole = {**GROUPS, "w": (1, 6, 1, 1), "b": (1, 6, 1, 1)}
    assert found(tmp_path, GROUPED, (3, 6, 5, 4), **whole) == [(*form, {"scale": "w", "bias": "b"})]


@pytest.mark.parametrize(
    "other",
    [
        {"ones": np.array([1, 2], "f4")},
        {"zeros": np.array([0, 2], "f4")},
        {"ones": np.ones(0, "f4"), "zeros": np.zeros(0, "f4")},
        {"w": (5, 1, 1), "b": (5, 1, 1)},
        {"w": (1, 1, 4), "b": (1, 1, 4)},
    ],
)
def test_what_is_no_group_norm(tmp_path: Path, other: dict[str, Any]) -> None:
    channels = 5 if other.get("w") == (5, 1, 1) else 6
    forms = [form for form, *_ in found(tmp_path, GROUPED, (3, channels, 5, 4), **{**GROUPS, **other})]
    assert "onnx.GroupNormalization" not in forms


@pytest.mark.parametrize(
    "nodes",
    [
        [*LAYER[:3], node("ReduceMean", "q", "v", axes=[1]), *LAYER[4:]],  # the variance of other numbers
        [*LAYER[:2], node("Pow", "d half", "q"), *LAYER[3:]],
        [*LAYER[:2], node("Pow", "x two", "q"), *LAYER[3:]],
        [*LAYER[:6], node("Div", "x s", "n"), *LAYER[7:]],
        [*LAYER[:5], node("Exp", "e", "s"), *LAYER[6:]],
        [*LAYER[:8], node("Mul", "z s", "z2"), node("Add", "z2 b", "y")],  # the deviation is of use to others
        [*LAYER[:4], node("Add", "v b", "e"), *LAYER[5:]],
    ],
)
def test_what_is_no_layer_norm(tmp_path: Path, nodes: Nodes) -> None:
    forms = [form for form, *_ in found(tmp_path, nodes)]
    assert not {"onnx.LayerNormalization", "onnx.RMSNormalization"} & set(forms)


def test_the_axes_go_through_a_norm_of_many_nodes(tmp_path: Path) -> None:
    """Rows of a product after it are known to be the features of the product before it."""
    nodes = [node("MatMul", "x k", "a"), node("Pow", "a two", "q"), MEAN, *ROOT, node("Div", "a s", "n")]
    nodes += [node("Mul", "n w", "z"), node("MatMul", "z l", "y")]
    first, norm, last = layers(
        tmp_path, nodes, (2, 3, 5), k=(5, 7), w=(7,), l=(7, 2), two=NUMBERS["two"], eps=NUMBERS["eps"]
    )
    assert (norm.inputs, last.inputs) == ((first.name,), (norm.name,))


def test_one_norm_that_is_called_twice(tmp_path: Path) -> None:
    twice = [node("Pow", "x two", "q"), MEAN, *ROOT, node("Div", "x s", "n"), node("Mul", "n w", "z")]
    for one in list(twice):
        names = {name: name + "2" for made in twice for name in made.output} | {"x": "z"}
        inputs = " ".join(names.get(name, name) for name in one.input)
        output = "y" if one.output[0] == "z" else names[one.output[0]]
        twice.append(node(one.op_type, inputs, output, **({"axes": [-1]} if one.op_type == "ReduceMean" else {})))
    assert found(tmp_path, twice) == [RMS_NORM]
