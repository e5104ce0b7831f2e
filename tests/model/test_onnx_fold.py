"""Weights that the graph computes, that several nodes share, that lie in bodies, and layers written out in steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.convert import convert
from layoutx.errors import LayoutxError
from layoutx.files.open import open_store
from layoutx.model.bindings import bind_record
from layoutx.model.onnx_model import onnx_records
from layoutx.model.record import LayerRecord
from layoutx.spec.registry import registry

onnx = pytest.importorskip("onnx", reason="ONNX files need the onnx package")
helper, numpy_helper, FLOAT = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT
REGISTRY = registry()
rng = np.random.default_rng(17)


def node(op: str, inputs: str, outputs: str, name: str = "", **attributes: Any) -> Any:
    """A node; inputs and outputs are written with blanks between, "_" for one that is left out."""
    split = [["" if x == "_" else x for x in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *split, name, **attributes)


def graph_of(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[str], **weights: Any) -> Any:
    """A graph; a weight is its shape, or an array."""
    arrays = {n: rng.normal(size=w).astype("f4") if isinstance(w, tuple) else w for n, w in weights.items()}
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    ends = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    return helper.make_graph(
        list(nodes), "g", infos, ends, [numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()]
    )


def saved(path: Path, nodes: Sequence[Any], shape: Sequence[Any], **weights: Any) -> Path:
    """A model with input x and output y."""
    graph = graph_of(nodes, [("x", FLOAT, shape)], ["y"], **weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def layers(path: Path) -> dict[str, LayerRecord]:
    """The layers of a file by name; those with a form fit it."""
    found = onnx_records(open_store(path)).layers
    for record in found:
        if record.form:
            bind_record(record, REGISTRY)
    return {record.name: record for record in found}


def run(path: Path, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What ONNX's own evaluator gives."""
    from onnx.reference import ReferenceEvaluator

    return np.asarray(ReferenceEvaluator(str(path)).run(None, {"x": x})[0])


# one weight (5, 7) in many ways: nodes, stored tensors, and what it is in NumPy
WAYS: dict[str, tuple[list[Any], dict[str, Any], Any]] = {
    "Slice": ([node("Slice", "A two nine one", "W")], {"A": (5, 11), "two": [2], "nine": [9], "one": [1]},
              lambda a: a["A"][:, 2:9]),
    "Concat": ([node("Concat", "A B", "W", axis=0)], {"A": (2, 7), "B": (3, 7)},
               lambda a: np.concatenate([a["A"], a["B"]])),
    "Split": ([node("Split", "A", "U W", axis=1)], {"A": (5, 14)}, lambda a: a["A"][:, 7:]),
    "Transpose": ([node("Transpose", "A", "t", perm=[2, 0, 1]), node("Reshape", "t size", "W")],
                  {"A": (7, 1, 5), "size": [5, 7]}, lambda a: a["A"].transpose(2, 0, 1).reshape(5, 7)),
    "Unsqueeze": ([node("Unsqueeze", "A one", "u"), node("Squeeze", "u one", "W")], {"A": (5, 7), "one": [1]},
                  lambda a: a["A"]),
    "Gather": ([node("Gather", "A order", "W", axis=1)], {"A": (5, 9), "order": [8, 1, 3, 0, 2, 6, 5]},
               lambda a: a["A"][:, [8, 1, 3, 0, 2, 6, 5]]),
    "Sub": ([node("Sub", "nine seven", "n"), node("Slice", "A n nine one", "W")],
            {"A": (5, 11), "nine": [9], "seven": [7], "one": [1]}, lambda a: a["A"][:, 2:9]),
    "Mul": ([node("Mul", "A s", "W")], {"A": (5, 7), "s": np.float32(0.5)}, lambda a: a["A"] * np.float32(0.5)),
    "Cast": ([node("Cast", "D", "W", to=FLOAT)], {"D": rng.normal(size=(5, 7))}, lambda a: a["D"].astype("f4")),
    "ConstantOfShape": ([node("ConstantOfShape", "size", "o"), node("Add", "o A", "W")],
                        {"A": (5, 7), "size": [5, 7]}, lambda a: a["A"]),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_computed_weights_are_read_and_written(way: str, tmp_path: Path) -> None:
    """As a source they are what the graph makes of its tensors; as a target they become tensors of the graph."""
    nodes, weights, numbers = WAYS[way]
    weights = {k: np.asarray(v) if isinstance(v, list) else v for k, v in weights.items()}
    path = saved(tmp_path / "m.onnx", [*nodes, node("Gemm", "x W b", "y", "fc")], ["n", 5], b=(7,), **weights)
    record = layers(path)["fc"]
    stored = {n: t.read() for n, t in open_store(path).tensors.items()}
    assert (record.tensors["B"].name, record.tensors["B"].shape) == ("W", (5, 7))
    np.testing.assert_array_equal(record.tensors["B"].read(), numbers(stored))
    assert f"computed in the graph by {', '.join(n.op_type for n in nodes)}" in record.note
    report = convert(path, tmp_path / "t.safetensors", to="torch")
    made = way in ("Mul", "Cast", "ConstantOfShape")  # the others put numbers elsewhere, bit for bit
    assert ("computed" in report.round_trip) is made
    assert report.exactness == ("rounds" if made else "moves")
    np.testing.assert_array_equal(open_store(tmp_path / "t.safetensors").tensors["fc.weight"].read().T, numbers(stored))

    new = {"fc.weight": rng.normal(size=(7, 5)).astype("f4"), "fc.bias": rng.normal(size=7).astype("f4")}
    np.savez(tmp_path / "new.npz", **new)
    report = convert(tmp_path / "new.npz", tmp_path / "out.onnx", to="onnx", like=path, from_="torch")
    assert "W: stored in place of what the graph computes" in report.text(200)
    assert set(open_store(tmp_path / "out.onnx").tensors) == {"W", "b"}, "what only served to compute it is gone"
    x = rng.normal(size=(3, 5)).astype("f4")
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), x @ new["fc.weight"].T + new["fc.bias"], rtol=1e-5)


def test_the_numbers_are_not_read_to_know_the_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [node("Concat", "A B", "W", axis=0), node("MatMul", "x W", "y", "fc")]
    path = saved(tmp_path / "m.onnx", nodes, ["n", 30], A=(11, 23), B=(19, 23))
    monkeypatch.setattr("layoutx.model.onnx_fold._evaluated", lambda *a: pytest.fail("computed too early"))
    assert layers(path)["fc"].tensors["B"].shape == (30, 23)


def test_random_and_foreign_operators_are_no_constants(tmp_path: Path) -> None:
    nodes = [node("RandomNormalLike", "A", "W"), node("MatMul", "x W", "y", "fc")]
    path = saved(tmp_path / "m.onnx", nodes, ["n", 5], A=(5, 7))
    assert [(r.class_name, r.form) for r in layers(path).values()] == [("RandomNormalLike", "")]
    graph = graph_of(
        [node("Mine", "A", "W", domain="my.ops"), node("MatMul", "x W", "y", "fc")],
        [("x", FLOAT, ["n", 5])],
        ["y"],
        A=(5, 7),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert "do not compute" in layers(tmp_path / "m.onnx")["fc"].note


def test_other_readers_of_the_parts_keep_them(tmp_path: Path) -> None:
    """One packed tensor, two layers made of it: each gets its own, and the packed one stays for a third reader."""
    nodes = [
        node("Slice", "A zero seven one", "W"), node("MatMul", "x W", "h", "first"),
        node("Slice", "A seven end one", "V"), node("MatMul", "h V", "k", "second"),
        node("Transpose", "A", "a"), node("ReduceSum", "a", "s"), node("Add", "k s", "y", "sum"),
    ]  # fmt: skip
    whole = {"A": (7, 12), "zero": np.array([0]), "seven": np.array([7]), "end": np.array([12]), "one": np.array([1])}
    path = saved(tmp_path / "m.onnx", nodes, ["n", 7], **whole)
    found = layers(path)
    assert [found[n].tensors["B"].shape for n in ("first", "second")] == [(7, 7), (7, 5)]
    new = {"first.weight": rng.normal(size=(7, 7)).astype("f4"), "second.weight": rng.normal(size=(5, 7)).astype("f4")}
    np.savez(tmp_path / "new.npz", **new)
    convert(tmp_path / "new.npz", tmp_path / "out.onnx", to="onnx", like=path, from_="torch")
    x = rng.normal(size=(3, 7)).astype("f4")
    total = open_store(path).tensors["A"].read().sum()
    expected = x @ new["first.weight"].T @ new["second.weight"].T + total
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), expected, rtol=1e-4, atol=1e-4)


def test_a_weight_that_another_node_reads_is_refused(tmp_path: Path) -> None:
    nodes = [node("Mul", "A s", "W"), node("MatMul", "x W", "h", "fc"), node("Max", "h W", "y", "most")]
    path = saved(tmp_path / "m.onnx", nodes, [5, 5], A=(5, 5), s=np.float32(2))
    np.savez(tmp_path / "new.npz", **{"fc.weight": rng.normal(size=(5, 5)).astype("f4")})
    with pytest.raises(LayoutxError, match="W is also read by Max most"):
        convert(tmp_path / "new.npz", tmp_path / "out.onnx", to="onnx", like=path, from_="torch", skip=["most"])
    assert not (tmp_path / "out.onnx").exists()


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    nodes = [node("DequantizeLinear", "Q s", "q"), node("Transpose", "q", "W"), node("MatMul", "x W", "y", "fc")]
    path = saved(tmp_path / "m.onnx", nodes, ["n", 5], Q=np.ones((7, 5), "i1"), s=np.float32(0.5))
    assert "quantised" in layers(path)["fc"].note
    with pytest.raises(LayoutxError, match=r"quantised(.|\n)*as it was before it was quantised"):
        convert(path, tmp_path / "out.safetensors", to="torch")


# -- products and sums ---------------------------------------------------------------------------------------------

SUMS: dict[str, tuple[list[Any], list[Any], dict[str, Any]]] = {
    "before": ([node("MatMul", "x W", "m"), node("Add", "b m", "y")], ["n", 5], {"W": (5, 7), "b": (7,)}),
    "row": ([node("MatMul", "x W", "m"), node("Add", "m b", "y")], ["n", 5], {"W": (5, 7), "b": (1, 7)}),
    "reshaped": (
        [node("Reshape", "b size", "r"), node("MatMul", "x W", "m"), node("Add", "m r", "y")],
        ["n", 5], {"W": (5, 7), "b": (7, 1), "size": np.array([1, 7])},
    ),
    "identity": (
        [node("MatMul", "x W", "m"), node("Identity", "m", "i"), node("Add", "i b", "y")],
        ["n", 5], {"W": (5, 7), "b": (7,)},
    ),
    "tensordot": (
        [node("Reshape", "x flat", "f"), node("MatMul", "f W", "m"), node("Reshape", "m back", "r"),
         node("Add", "r b", "y")],
        [2, 3, 5], {"W": (5, 7), "b": (7,), "flat": np.array([-1, 5]), "back": np.array([2, 3, 7])},
    ),
    "Gemm": (
        [node("Gemm", "x W b", "y", alpha=0.5, beta=2.0, transB=1)], ["n", 5], {"W": (7, 5), "b": (1, 7)},
    ),
    "Gemm and Add": (
        [node("Gemm", "x W", "m", alpha=0.5, beta=2.0), node("Add", "m b", "y")], ["n", 5], {"W": (5, 7), "b": (7,)},
    ),
    "left": ([node("MatMul", "W x", "m"), node("Add", "m b", "y")], [5, 3], {"W": (7, 5), "b": (7, 1)}),
    "Conv": ([node("Conv", "x W", "m"), node("Add", "m b", "y")], ["n", 3, 9], {"W": (7, 3, 2), "b": (1, 7, 1)}),
    "computed Conv": (
        [node("Unsqueeze", "b ends", "u"), node("Conv", "x W", "m"), node("Add", "m u", "y")],
        ["n", 3, 9], {"W": (7, 3, 2), "b": (7,), "ends": np.array([0, 2])},
    ),
    "ConvTranspose": (
        [node("ConvTranspose", "x W", "m"), node("Add", "b m", "y")], ["n", 3, 4], {"W": (3, 7, 2), "b": (7, 1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", SUMS)
def test_products_and_their_sums(way: str, tmp_path: Path) -> None:
    """One layer each; new numbers in the graph are what it computes with."""
    nodes, shape, weights = SUMS[way]
    path = saved(tmp_path / "m.onnx", nodes, shape, **weights)
    ((name, record),) = layers(path).items()
    assert len(record.tensors) == 2, record
    x = rng.normal(size=[4 if n == "n" else n for n in shape]).astype("f4")
    given = {n: t.read() for n, t in open_store(path).tensors.items() if t.dtype.kind == "f"}
    convert(path, tmp_path / "m.safetensors", to="torch", allow=["rounds"])
    torch_file = {n: t.read() for n, t in open_store(tmp_path / "m.safetensors").tensors.items()}
    assert set(torch_file) == {f"{name}.weight", f"{name}.bias"}
    bias = given["b"].reshape(-1) * (2.0 if way == "Gemm" else 1.0)
    np.testing.assert_allclose(torch_file[f"{name}.bias"], bias, rtol=1e-6)
    again = {n: a * np.float32(1.5) for n, a in torch_file.items()}
    np.savez(tmp_path / "new.npz", **again)
    convert(tmp_path / "new.npz", tmp_path / "out.onnx", to="onnx", like=path, from_="torch", allow=["rounds"])
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), run(path, x) * 1.5, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("nodes", "weights"),
    [
        ([node("MatMul", "x W", "m", "fc"), node("Add", "m b", "y")], {"b": (4, 7)}),
        ([node("MatMul", "x W", "m", "fc"), node("Add", "m b", "y")], {"b": (1,)}),
        ([node("MatMul", "x W", "m", "fc"), node("Reshape", "m s", "r"), node("Add", "r b", "y")],
         {"b": (7,), "s": np.array([7, 4])}),
        ([node("MatMul", "x W", "m", "fc"), node("Relu", "m", "r"), node("Add", "r b", "y")], {"b": (7,)}),
    ],
)  # fmt: skip
def test_sums_that_are_no_bias(nodes: list[Any], weights: dict[str, Any], tmp_path: Path) -> None:
    path = saved(tmp_path / "m.onnx", nodes, [4, 5], W=(5, 7), **weights) if "s" not in weights else None
    if path is None:
        graph = graph_of(nodes, [("x", FLOAT, [4, 5])], ["y"], W=(5, 7), **weights)
        path = tmp_path / "m.onnx"
        path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    assert list(layers(path)["fc"].tensors) == ["B"]


# -- bodies --------------------------------------------------------------------------------------------------------


def branch(name: str, nodes: Sequence[Any], output: str, **weights: Any) -> Any:
    graph = graph_of(nodes, [], [output], **weights)
    graph.name = name
    return graph


def test_layers_in_the_branches_of_an_if(tmp_path: Path) -> None:
    """Own weights, outer ones, and one that both branches share; new numbers reach all of them."""
    then = branch("then", [node("MatMul", "h V", "t", "fc"), node("MatMul", "t S", "u", "shared")], "u", V=(7, 11))
    other = branch("else", [node("MatMul", "h O", "e", "outer"), node("MatMul", "e S", "v", "again")], "v")
    nodes = [
        node("MatMul", "x W", "h", "stem"),
        node("ReduceSum", "h", "s", keepdims=0), node("Greater", "s zero", "c"),
        helper.make_node("If", ["c"], ["z"], "gate", then_branch=then, else_branch=other),
        node("MatMul", "z Z", "y", "head"),
    ]  # fmt: skip
    weights = {"W": (5, 7), "O": (7, 11), "S": (11, 13), "Z": (13, 2), "zero": np.float32(0)}
    path = saved(tmp_path / "m.onnx", nodes, ["n", 5], **weights)
    found = layers(path)
    assert {name: record.tensors["B"].name for name, record in found.items()} == {
        "stem": "W", "gate/else_branch/outer": "O", "gate/else_branch/again": "S",
        "gate/then_branch/fc": "gate/then_branch/V", "head": "Z",
    }  # fmt: skip
    assert found["gate/then_branch/fc"].inputs == ("stem",)
    assert found["head"].inputs == ("gate/else_branch/again",)
    old = {n: t.read() for n, t in open_store(path).tensors.items()}
    convert(path, tmp_path / "m.safetensors", to="torch")
    new = {n: t.read() * np.float32(1.5) for n, t in open_store(tmp_path / "m.safetensors").tensors.items()}
    np.savez(tmp_path / "new.npz", **new)
    convert(tmp_path / "new.npz", tmp_path / "out.onnx", to="onnx", like=path, from_="torch")
    after = {n: t.read() for n, t in open_store(tmp_path / "out.onnx").tensors.items()}
    assert set(after) == set(old)
    for name in set(old) - {"zero"}:
        np.testing.assert_array_equal(after[name], old[name] * np.float32(1.5), err_msg=name)
    for sign in (1, -1):
        x = sign * rng.normal(size=(3, 5)).astype("f4")
        np.testing.assert_allclose(run(tmp_path / "out.onnx", x), run(path, x) * 1.5**4, rtol=1e-4)


def test_layers_in_a_loop(tmp_path: Path) -> None:
    """A state on its way round, a weight of the body that the body computes, and one from outside."""
    body = graph_of(
        [
            node("Transpose", "A", "T", perm=[1, 0]), node("Mul", "T half", "V"),
            node("MatMul", "state V", "p", "step"), node("Tanh", "p", "q"),
            node("MatMul", "q W", "next", "outer"), node("Identity", "go", "on"),
        ],
        [("i", onnx.TensorProto.INT64, []), ("go", onnx.TensorProto.BOOL, []), ("state", FLOAT, ["n", 5])],
        ["on", "next"], A=(7, 5), half=np.float32(0.5),
    )  # fmt: skip
    body.output[0].type.tensor_type.elem_type = onnx.TensorProto.BOOL
    nodes = [
        node("MatMul", "x Z", "h", "stem"),
        helper.make_node("Loop", ["three", "yes", "h"], ["end"], "loop", body=body),
        node("MatMul", "end Y", "y", "head"),
    ]
    weights = {"Z": (3, 5), "W": (7, 5), "Y": (5, 2), "three": np.array(3), "yes": np.array(True)}
    path = saved(tmp_path / "m.onnx", nodes, ["n", 3], **weights)
    found = layers(path)
    assert {n: r.tensors["B"].name for n, r in found.items()} == {
        "stem": "Z", "loop/body/step": "loop/body/V", "loop/body/outer": "W", "head": "Y",
    }  # fmt: skip
    assert (found["loop/body/step"].inputs, found["head"].inputs) == (("stem",), ("loop/body/outer",))
    convert(path, tmp_path / "m.safetensors", to="torch")
    given = {n: t.read() for n, t in open_store(tmp_path / "m.safetensors").tensors.items()}
    given["loop.body.step.weight"] = rng.normal(size=(7, 5)).astype("f4")
    np.savez(tmp_path / "new.npz", **given)
    convert(tmp_path / "new.npz", tmp_path / "out.onnx", to="onnx", like=path, from_="torch")
    x = rng.normal(size=(2, 3)).astype("f4")
    state = x @ given["stem.weight"].T
    for _ in range(3):
        state = np.tanh(state @ given["loop.body.step.weight"].T) @ given["loop.body.outer.weight"].T
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), state @ given["head.weight"].T, rtol=1e-4, atol=1e-5)


def test_layers_in_a_scan(tmp_path: Path) -> None:
    """Slices of a sequence go in, what each step gives comes out with the time in front."""
    body = graph_of(
        [
            node("MatMul", "step W", "p", "inside"), node("Add", "p state", "s"), node("Tanh", "s", "next"),
            node("MatMul", "next V", "out", "gives"),
        ],
        [("state", FLOAT, [2, 5]), ("step", FLOAT, [2, 3])], ["next", "out"], V=(5, 7),
    )  # fmt: skip
    nodes = [
        helper.make_node("Scan", ["h0", "x"], ["last", "all"], "scan", body=body, num_scan_inputs=1),
        node("MatMul", "all Y", "y", "head"),
    ]
    path = saved(tmp_path / "m.onnx", nodes, [4, 2, 3], W=(3, 5), Y=(7, 2), h0=np.zeros((2, 5), "f4"))
    found = layers(path)
    assert {n: (r.tensors["B"].name, r.inputs) for n, r in found.items()} == {
        "scan/body/inside": ("W", ()), "scan/body/gives": ("scan/body/V", ("scan/body/inside",)),
        "head": ("Y", ("scan/body/gives",)),
    }  # fmt: skip
    assert all(record.note == "" for record in found.values())
    convert(path, tmp_path / "m.safetensors", to="torch")
    new = {n: t.read() * np.float32(0.5) for n, t in open_store(tmp_path / "m.safetensors").tensors.items()}
    np.savez(tmp_path / "new.npz", **new)
    convert(tmp_path / "new.npz", tmp_path / "out.onnx", to="onnx", like=path, from_="torch")
    before, after = (open_store(p).tensors for p in (path, tmp_path / "out.onnx"))
    for name in ("W", "Y", "scan/body/V"):
        np.testing.assert_array_equal(after[name].read(), before[name].read() * np.float32(0.5))


# -- unrolled recurrence -------------------------------------------------------------------------------------------


def steps(kind: str, count: int, joined: bool = False) -> list[Any]:
    """The nodes of an unrolled layer; `joined`: one product for the input and the state together."""
    nodes = [node("Identity", "h0", "h_0"), node("Identity", "c0", "c_0")]
    for t in range(count):
        u = t + 1
        nodes.append(node("Gather", f"x at{t}", f"x_{t}", axis=1))
        if joined:
            nodes += [node("Concat", f"x_{t} h_{t}", f"j_{t}", axis=1), node("MatMul", f"j_{t} K", f"s_{t}", f"k{t}")]
        else:
            nodes += [node("MatMul", f"x_{t} W", f"a_{t}", f"w{t}"), node("Add", f"a_{t} b", f"ab_{t}")]
            nodes += [node("MatMul", f"h_{t} R", f"r_{t}", f"r{t}"), node("Add", f"ab_{t} r_{t}", f"s_{t}")]
        if kind == "RNN":
            nodes.append(node("Tanh", f"s_{t}", f"h_{u}"))
            continue
        nodes.append(node("Split", f"s_{t}", f"i_{t} f_{t} g_{t} o_{t}", axis=1))
        nodes += [node("Sigmoid", f"{n}_{t}", f"{n}s_{t}") for n in "ifo"]
        nodes += [node("Tanh", f"g_{t}", f"gs_{t}"), node("Mul", f"is_{t} gs_{t}", f"ig_{t}")]
        nodes += [node("Mul", f"fs_{t} c_{t}", f"fc_{t}"), node("Add", f"ig_{t} fc_{t}", f"c_{u}")]
        nodes += [node("Tanh", f"c_{u}", f"ct_{t}"), node("Mul", f"os_{t} ct_{t}", f"h_{u}")]
    return [*nodes, node("MatMul", f"h_{count} D", "y", "head")]


def unrolled_file(path: Path, kind: str, joined: bool) -> Path:
    gates = 4 if kind == "LSTM" else 1
    weights = {"K": (8, 5 * gates)} if joined else {"W": (3, 5 * gates), "R": (5, 5 * gates), "b": (5 * gates,)}
    at = {f"at{t}": np.array(t) for t in range(4)}
    zeros = {"h0": np.zeros((1, 5), "f4"), "c0": np.zeros((1, 5), "f4")}
    return saved(path, steps(kind, 4, joined), [1, 4, 3], D=(5, 2), **weights, **at, **zeros)


@pytest.mark.parametrize(("kind", "joined"), [("LSTM", False), ("LSTM", True), ("RNN", False)])
def test_unrolled_layers_are_told_and_refused_for_a_recurrent_target(kind: str, joined: bool, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = unrolled_file(tmp_path / "m.onnx", kind, joined)
    found = layers(path)
    said = {name for name, record in found.items() if f"unrolled {kind} of 4 steps" in record.note}
    assert said == ({"k0"} if joined else {"w0", "r0"}), "the first product of the state, one of zeros, is a step too"
    made = {"LSTM": torch.nn.LSTM, "RNN": torch.nn.RNN}[kind](3, 5)
    torch.save({f"rnn.{n}": v for n, v in made.state_dict().items()}, tmp_path / "m.pt")
    with pytest.raises(LayoutxError, match=f"look like an unrolled {kind} of 4 steps"):
        convert(path, tmp_path / "out.pt", to="torch", like=tmp_path / "m.pt")
    skip = [name for name, record in found.items() if not record.form]  # the stored initial states
    convert(path, tmp_path / "cells.pt", to="torch", skip=skip)  # as the single products that they are


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_cell_in_a_loop_as_torch_exports_it(kind: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ih, self.hh = nn.Linear(3, 20 if kind == "LSTM" else 15), nn.Linear(5, 20 if kind == "LSTM" else 15)
            self.head = nn.Linear(5, 2)

        def forward(self, x: Any) -> Any:
            h = c = x.new_zeros(x.shape[0], 5)
            for t in range(x.shape[1]):
                a, b = self.ih(x[:, t]), self.hh(h)
                if kind == "LSTM":
                    i, f, g, o = (a + b).chunk(4, 1)
                    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                    h = torch.sigmoid(o) * torch.tanh(c)
                else:
                    (ar, az, an), (br, bz, bn) = a.chunk(3, 1), b.chunk(3, 1)
                    z, r = torch.sigmoid(az + bz), torch.sigmoid(ar + br)
                    h = (1 - z) * torch.tanh(an + r * bn) + z * h
            return self.head(h)

    module = Loop()
    torch.onnx.export(module, (torch.randn(2, 4, 3),), tmp_path / "m.onnx", dynamo=False, input_names=["x"])
    found = layers(tmp_path / "m.onnx")
    said = {name for name, record in found.items() if f"unrolled {kind} of 4 steps" in record.note}
    assert said == {"ih", "hh"}
    convert(tmp_path / "m.onnx", tmp_path / "m.safetensors", to="torch")
    made = open_store(tmp_path / "m.safetensors").tensors
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(made[name].read(), value.numpy())


def test_a_layer_called_twice_is_no_recurrent_one(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x W", "a", "one"), node("Add", "a b", "c"), node("Tanh", "c", "t")]
    nodes += [node("MatMul", "t W", "d", "two"), node("Add", "d b", "y")]
    (record,) = layers(saved(tmp_path / "m.onnx", nodes, ["n", 5], W=(5, 5), b=(5,))).values()
    assert record.note == ""
