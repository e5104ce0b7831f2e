"""Recurrent nodes of ONNX with options that no other framework has: refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx_runs import run

from layoutx.convert import convert
from layoutx.errors import LayoutxError
from layoutx.port import port

onnx = pytest.importorskip("onnx", reason="ONNX files need the onnx package")
pytestmark = pytest.mark.models
SIZE, HIDDEN = 3, 5
GATES = {"LSTM": 4, "GRU": 3}


def written(path: Path, op: str, lengths: bool = False, **options: Any) -> Path:
    rng, rows = np.random.default_rng(7), GATES[op] * HIDDEN
    arrays = {"W": rng.normal(size=(1, rows, SIZE)), "R": rng.normal(size=(1, rows, HIDDEN))}
    stored = [onnx.numpy_helper.from_array(a.astype("float32"), name) for name, a in arrays.items()]
    if lengths:
        stored.append(onnx.numpy_helper.from_array(np.array([7, 4], "int32"), "lengths"))
    node = onnx.helper.make_node(op, ["x", "W", "R", "", "lengths"][: 5 if lengths else 3], ["y"], **options)
    ends = [onnx.helper.make_tensor_value_info("x", 1, [7, 2, SIZE]), onnx.helper.make_tensor_value_info("y", 1, None)]
    graph = onnx.helper.make_graph([node], "g", ends[:1], ends[1:], stored)
    opsets = [onnx.helper.make_opsetid("", 14)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("op", "options", "said"),
    [
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, "activation is .'Sigmoid', 'Relu', 'Tanh'."),
        ("GRU", {"activations": ["HardSigmoid", "Relu"], "linear_before_reset": 1}, "is .'HardSigmoid', 'Relu'."),
        ("LSTM", {"lengths": True}, "it stops at stored lengths"),
        ("LSTM", {"clip": 3.0}, "the gates are clipped"),
        ("LSTM", {"input_forget": 1}, "coupled gates"),
    ],
)
def test_an_option_without_a_counterpart(op: str, options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(LayoutxError, match=said):
        convert(written(tmp_path / "model.onnx", op, hidden_size=HIDDEN, **options), to="torch")


class Turned(torch.nn.Module):
    """A recurrent layer that is given its steps back to front, as the `reverse` of ONNX reads them."""

    def __init__(self, op: str) -> None:
        super().__init__()
        self.rnn = getattr(torch.nn, op)(SIZE, HIDDEN)

    def forward(self, x: Any) -> Any:
        return self.rnn(x.flip(0))[0].flip(0)[:, None]


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_a_layer_that_reads_backwards_alone(op: str, tmp_path: Path) -> None:
    """The refusal names the direction, not eight tensors without a source; what it says to do is what helps."""
    reset = {"linear_before_reset": 1} if op == "GRU" else {}
    path = written(tmp_path / "model.onnx", op, hidden_size=HIDDEN, direction="reverse", **reset)
    said = f"torch.{op} cannot hold this onnx.{op}: its direction is backward, and no other"
    for call in (lambda: convert(path, to="torch"), lambda: port(path, Turned(op))):
        with pytest.raises(LayoutxError, match=said) as error:
            call()
        assert "--set LAYER.direction=forward" in error.value.do
    x, target = np.random.default_rng(5).normal(size=(7, 2, SIZE)).astype("float32"), Turned(op).eval()
    port(path, target, x, values={"direction": "forward"})
    with torch.no_grad():
        np.testing.assert_allclose(target(torch.tensor(x)), run(path, x), atol=1e-6)
