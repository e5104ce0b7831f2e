"""ONNX graphs run in float64, nodes under their records' names, one layer alone; wrong evaluators are noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layoutx.errors import ModelError, UsageError
from layoutx.files.open import open_store
from layoutx.model.onnx_model import onnx_records
from layoutx.verify.running import opened
from layoutx.verify.running.onnx_graph import by_runtime, doubled

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(7)
WEIGHTS = {
    "conv.weight": RNG.normal(size=(5, 3, 3, 2)),
    "conv.bias": RNG.normal(size=5),
    "norm.gamma": RNG.uniform(0.5, 2, 5),
    "norm.beta": RNG.normal(size=5),
    "norm.mean": RNG.normal(size=5),
    "norm.var": RNG.uniform(0.5, 2, 5),
    "kernel": RNG.normal(size=(5, 5)),
    "added": RNG.normal(size=5),
    "W": RNG.normal(size=(2, 28, 5)),
    "R": RNG.normal(size=(2, 28, 7)),
    "B": RNG.normal(size=(2, 56)),
}


def model(**lstm: Any) -> Any:
    """Conv, BatchNormalization, mean, a shared product with its Add, a Cast, a bidirectional LSTM, Mul by itself."""
    nodes = [
        helper.make_node("Conv", ["x", "conv.weight", "conv.bias"], ["c"], name="/conv/Conv", strides=[2, 1]),
        helper.make_node("BatchNormalization", ["c", *(f"norm.{n}" for n in ("gamma", "beta", "mean", "var"))], ["n"]),
        helper.make_node("Relu", ["n"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "kernel"], ["p"], name="/fc/MatMul"),
        helper.make_node("Add", ["p", "added"], ["q"], name="/fc/Add"),
        helper.make_node("Tanh", ["q"], ["t"], name="tanh"),
        helper.make_node("MatMul", ["t", "kernel"], ["p2"], name="/fc/MatMul_1"),
        helper.make_node("Add", ["p2", "added"], ["q2"], name="/fc/Add_1"),
        helper.make_node("Cast", ["q2"], ["k"], name="cast", to=onnx.TensorProto.FLOAT),
        helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array([0]))),
        helper.make_node("Unsqueeze", ["k", "axes"], ["u"], name="unsqueeze"),
        helper.make_node("LSTM", ["u", "W", "R", "B"], ["Y", "Yh", ""], name="lstm", hidden_size=7,
                         direction="bidirectional", **lstm),
        helper.make_node("Mul", ["Y", "Y"], ["square"], name="square"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, 7, 5])],
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in ("square", "Yh")],
        [numpy_helper.from_array(a.astype("float32"), name) for name, a in WEIGHTS.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def batch() -> Array:
    return np.random.default_rng(3).normal(size=(2, 3, 7, 5))


@pytest.mark.parametrize("from_file", [False, True])
def test_a_graph_is_recorded_in_float64(from_file: bool, tmp_path: Path) -> None:
    given: Any = model()
    before = given.SerializeToString()
    path = tmp_path / "model.onnx"
    onnx.save(given, str(path))
    runner = opened(path if from_file else given)
    found = runner.record(batch())
    assert (found.framework, found.dtype, found.note) == ("onnx", "float64", "")
    assert all(a.dtype == np.float64 for call in found.calls for a in (*call.inputs, *call.outputs))
    records = [record.name for record in onnx_records(open_store(path)).layers]
    assert records
    assert all(found.of(name) is not None for name in records), records
    fc = [call for call in found.calls if call.layer == "fc"]
    assert [call.number for call in fc] == [0, 1]
    kernel, bias = (WEIGHTS[n].astype("float32").astype("float64") for n in ("kernel", "added"))
    for call in fc:
        np.testing.assert_allclose(call.outputs[0], call.inputs[0] @ kernel + bias, rtol=1e-13)
    square = found.of("square")
    assert square is not None
    assert len(square.inputs) == 1
    for call in found.calls:
        again = runner.layer(call.layer, call.inputs, call.names)
        assert len(again) == len(call.outputs)
        for left, right in zip(again, call.outputs, strict=True):
            np.testing.assert_array_equal(left, right)
    assert given.SerializeToString() == before


def test_float64_is_what_onnxruntime_gives_in_float32() -> None:
    pytest.importorskip("onnxruntime")
    runner = opened(model())
    exact, plain = runner.record(batch()), runner.record(batch(), double=False)
    assert plain.dtype == "float32"
    for left, right in zip(exact.outputs, plain.outputs, strict=True):
        assert 0 < np.abs(left - right).max() < 1e-4


def test_what_the_evaluator_gets_wrong_runs_in_float32() -> None:
    pytest.importorskip("onnxruntime")
    found = opened(model(activations=["HardSigmoid", "Tanh", "Tanh"] * 2)).record(batch())
    assert found.dtype == "float32"
    assert "LSTM" in found.note
    plain = opened(model()).record(batch(), double=False)
    assert np.abs(found.outputs[0] - plain.outputs[0]).max() > 1e-3


def test_an_unknown_fault_of_the_evaluator_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    from layoutx.verify.running import onnx_run

    def wrong(graph: Any, feeds: Any) -> dict[str, Array]:
        return {name: array * 1.01 for name, array in original(graph, feeds).items()}

    original = onnx_run.evaluated
    monkeypatch.setattr(onnx_run, "evaluated", wrong)
    found = opened(model()).record(batch())
    assert found.dtype == "float32"
    assert "something else than onnxruntime" in found.note


def test_every_float_is_doubled() -> None:
    wide = doubled(model())
    assert {proto.data_type for proto in wide.graph.initializer} == {onnx.TensorProto.DOUBLE}
    (cast,) = [node for node in wide.graph.node if node.op_type == "Cast"]
    assert cast.attribute[0].i == onnx.TensorProto.DOUBLE


def test_inputs_of_its_own_shapes() -> None:
    (x,) = opened(model()).inputs()
    assert x.shape == (3, 3, 7, 5)
    assert x.dtype == np.float32


def test_wrong_calls_are_told(tmp_path: Path) -> None:
    runner = opened(model())
    with pytest.raises(UsageError, match="does not run on these inputs"):
        runner.record(np.ones((2, 4, 7, 5)))
    with pytest.raises(UsageError, match="no layer 'fcc'"):
        runner.layer("fcc", [np.ones((2, 5))])
    with pytest.raises(ModelError, match="fc does not run"):
        runner.layer("fc", [np.ones((2, 6))])


def test_a_file_of_a_newer_format_runs_and_a_newer_opset_is_no_fault_of_the_inputs(tmp_path: Path) -> None:
    """onnxruntime refuses versions that it does not know when it loads a file; its format says nothing of operators."""
    runtime = pytest.importorskip("onnxruntime")
    x = RNG.normal(size=(2, 3, 7, 5)).astype("float32")
    made = model()
    made.ir_version = 99
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(Exception, match="IR version"):
        runtime.InferenceSession(str(tmp_path / "m.onnx"))
    assert opened(tmp_path / "m.onnx").record([x], double=False).outputs[0].shape == (1, 2, 2, 7)
    made.opset_import[0].version = 99
    with pytest.raises(UsageError, match=r"onnxruntime .* does not take the model, whatever its inputs"):
        by_runtime(made, {"x": x})
