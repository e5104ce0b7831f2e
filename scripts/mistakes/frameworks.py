"""Mistakes in ONNX graphs and between two models of one framework."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from torch import Tensor, nn

from mistakes.case import Array, Case, Made, normal, shaken, shaken_torch
from mistakes.conv import PRIMES, image

L = keras.layers
Arrays = dict[str, Array]
FOLDER = tempfile.TemporaryDirectory()  # of the graphs; removed at the end


def graph(nodes: list[Any], arrays: Arrays, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> Any:
    """The path of an ONNX model of float64 initializers."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    held = [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in arrays.items()]
    ends = [[helper.make_tensor_value_info(name, TensorProto.DOUBLE, shape)] for name, shape in (inputs, outputs)]
    made = helper.make_graph(nodes, "g", *ends, initializer=held)
    path = Path(FOLDER.name) / f"{len(list(Path(FOLDER.name).iterdir()))}.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return str(path)


def image_arrays(model: Any) -> Arrays:
    """Of the Keras image model, for ONNX."""
    held = {v.path.split("/")[-2] + "." + v.path.split("/")[-1]: np.asarray(v.numpy()) for v in model.weights}
    c, h, w = PRIMES.map
    found = {"c1.w": held["c1.kernel"].transpose(3, 2, 0, 1), "c1.b": held["c1.bias"]}
    found |= {f"bn.{n}": held[f"bn.{n}"] for n in ("gamma", "beta", "moving_mean", "moving_variance")}
    found |= {"c2.w": held["c2.kernel"].transpose(3, 2, 0, 1), "c2.b": held["c2.bias"]}
    rows = held["d1.kernel"].reshape(h, w, c, -1).transpose(2, 0, 1, 3).reshape(h * w * c, -1)
    return {**found, "d1.w": rows.T, "d1.b": held["d1.bias"], "d2.w": held["d2.kernel"], "d2.b": held["d2.bias"]}


def image_graph(arrays: Arrays, eps: float = 1e-3, pads: tuple[int, ...] | None = None) -> Any:
    """The image model as an ONNX graph; the arguments make the mistakes."""
    from onnx import helper

    z = PRIMES
    where: dict[str, Any] = {"auto_pad": "SAME_UPPER"} if pads is None else {"pads": list(pads)}
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "c1.w", "c1.b"], ["a"], "c1", kernel_shape=[3, 3]),
        make("Relu", ["a"], ["b"], "relu1"),
        make("BatchNormalization", ["b", *(f"bn.{n}" for n in ("gamma", "beta", "moving_mean", "moving_variance"))], ["c"], "bn", epsilon=eps),  # noqa: E501
        make("MaxPool", ["c"], ["d"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        make("Conv", ["d", "c2.w", "c2.b"], ["e"], "c2", kernel_shape=[3, 3], strides=[2, 2], **where),
        make("Flatten", ["e"], ["f"], "flat"),
        make("Gemm", ["f", "d1.w", "d1.b"], ["g"], "d1", transB=1),
        make("Relu", ["g"], ["h"], "relu2"),
        make("Gemm", ["h", "d2.w", "d2.b"], ["y"], "d2"),
    ]  # fmt: skip
    return graph(nodes, arrays, ("x", [None, z.inputs, z.h, z.w]), ("y", [None, z.units]))


def onnx_image(change: Callable[[Arrays], Arrays] = lambda a: a, **how: Any) -> Made:
    """Keras is right, the graph has the mistake."""
    source = image(PRIMES)
    return source, image_graph(change(image_arrays(source)), **how), normal(2, PRIMES.h, PRIMES.w, PRIMES.inputs)


def put(name: str, change: Callable[[Array], Array]) -> Callable[[Arrays], Arrays]:
    """One array changed."""
    return lambda arrays: {**arrays, name: change(arrays[name])}


def onnx_lstm(order: tuple[int, ...], doubled: bool = False) -> Made:
    """A Keras LSTM as an ONNX node with its gates in `order` of Keras' (right: i o f c, 0 3 1 2)."""
    from onnx import helper

    source = shaken(keras.Sequential([keras.Input((7, 5)), L.LSTM(6, return_sequences=True, name="cell"), L.Dense(3, name="out")]))  # fmt: skip # noqa: E501
    kernel, recurrent, bias, out, end = source.get_weights()

    def gates(w: Array) -> Array:
        return w.reshape(*w.shape[:-1], 4, 6)[..., list(order), :].reshape(w.shape)

    biases = np.concatenate([gates(bias), gates(bias) if doubled else np.zeros(24)])[None]
    arrays = {"w": gates(kernel).T[None], "r": gates(recurrent).T[None], "b": biases, "o": out, "e": end}
    make = helper.make_node
    arrays["axis"] = np.array([1])
    nodes = [
        make("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        make("LSTM", ["t", "w", "r", "b"], ["s"], "cell", hidden_size=6),
        make("Squeeze", ["s", "axis"], ["q"]),
        make("Transpose", ["q"], ["u"], perm=[1, 0, 2]),
        make("MatMul", ["u", "o"], ["m"], "out"),
        make("Add", ["m", "e"], ["y"], "out_bias"),
    ]
    return source, graph(nodes, arrays, ("x", [None, 7, 5]), ("y", [None, 7, 3])), normal(4, 7, 5)


class Two(nn.Module):
    """A conv, a norm and a dense layer of torch."""

    def __init__(self, eps: float = 1e-5, slope: float = 0.1) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, eps=eps), nn.Linear(5, 5)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 3, h, w) -> (batch, 5)."""
        return self.fc(nn.functional.leaky_relu(self.norm(self.conv(x)), self.slope).mean((2, 3)))


def twins(fix: Callable[[Any], Any] = lambda model: None, **how: Any) -> Made:
    """Two torch models."""
    source, target = shaken_torch(Two()), Two(**how)
    target.load_state_dict(source.state_dict())
    with torch.no_grad():
        fix(target)
    return source, target.eval(), normal(3, 3, 8, 9)


def cases() -> Iterator[Case]:
    """All of them."""
    yield Case("F8", "ONNX's epsilon", "bn", lambda: onnx_image(eps=1e-5))
    yield Case("F7", "ONNX's border", "c2", lambda: onnx_image(pads=(1, 1, 1, 1)))
    c, h, w = PRIMES.map
    rows = put("d1.w", lambda a: a.reshape(-1, c, h, w).transpose(0, 2, 3, 1).reshape(a.shape))
    yield Case("F1", "rows in ONNX", "d1", lambda: onnx_image(rows))
    yield Case("F2", "a square Gemm in ONNX", "d2", lambda: onnx_image(put("d2.w", np.transpose)))
    yield Case("F17", "a kernel turned in ONNX", "c1", lambda: onnx_image(put("c1.w", lambda a: a[:, :, ::-1, ::-1])))
    yield Case("F6", "a bias doubled in ONNX", "c2", lambda: onnx_image(put("c2.b", lambda a: 2 * a)))
    yield Case("F26", "ONNX's mean and beta exchanged", "bn", lambda: onnx_image(
        lambda a: {**a, "bn.beta": a["bn.moving_mean"], "bn.moving_mean": a["bn.beta"]}))  # fmt: skip
    yield Case("F3", "Keras gates in ONNX", "cell", lambda: onnx_lstm((0, 1, 2, 3)))
    yield Case("F6", "both biases in ONNX", "cell", lambda: onnx_lstm((0, 3, 1, 2), doubled=True))
    yield Case("F8", "two torch models, epsilon", "norm", lambda: twins(eps=1e-3))
    yield Case("F31", "two torch models, leaky slope", "", lambda: twins(slope=0.01))
    yield Case("F2", "two torch models, a transpose", "fc", lambda: twins(lambda m: m.fc.weight.copy_(m.fc.weight.T.clone())))  # fmt: skip # noqa: E501
    yield Case("F30", "two torch models, half precision", "conv", lambda: twins(lambda m: m.conv.weight.copy_(m.conv.weight.half().double())))  # fmt: skip # noqa: E501
