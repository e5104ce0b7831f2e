"""One paddle.nn layer with given weights, run once (paddle 3.3.1): in a process of its own, asked by `paddle_live`.

Run as a module it answers requests from its input until that ends; it imports nothing heavy but paddle.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from layoutx.errors import UsageError
from layoutx.verify.live.arrays import Array, Arrays, inputs

CELLS = ("SimpleRNNCell", "LSTMCell", "GRUCell")
STACKS = ("SimpleRNN", "LSTM", "GRU")
PREFIX = 8  # bytes that tell the length of a message, big-endian

Message = tuple[dict[str, Any], dict[str, Array]]


def main() -> None:
    """Answer until the input ends. What paddle prints goes to stderr: the output carries answers only."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import paddle

    paddle.set_device("cpu")
    send(answers, {"version": paddle.__version__}, {})
    while (request := receive(sys.stdin.buffer)) is not None:
        send(answers, *answer(*request))


def send(stream: IO[bytes], message: Mapping[str, Any], arrays: Arrays) -> None:
    """Write one message and its named arrays, preceded by their length. Nothing in it is pickled."""
    text = json.dumps({"message": message, "names": list(arrays)}).encode()
    buffer = io.BytesIO()
    np.savez(buffer, np.frombuffer(text, np.uint8), *arrays.values())
    stream.write(buffer.tell().to_bytes(PREFIX, "big") + buffer.getvalue())
    stream.flush()


def receive(stream: IO[bytes]) -> Message | None:
    """Read what `send` wrote; None at the end of the stream, also in the middle of a message."""
    prefix = stream.read(PREFIX)
    size = int.from_bytes(prefix, "big")
    data = stream.read(size) if len(prefix) == PREFIX else b""
    if not data or len(data) < size:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        text, *arrays = (file[f"arr_{i}"] for i in range(len(file.files)))
    known = json.loads(text.tobytes())
    return known["message"], dict(zip(known["names"], arrays, strict=True))


def answer(message: Mapping[str, Any], arrays: Arrays) -> Message:
    """`message`: {"do": run | describe, "name": class, "config", "dtype"}; arrays are named `tensors name`, `x name`.

    Gives the outputs, {"tensors": [[name, shape]]}, or {"usage": why}, {"refused": why} where the real layer says no.
    """
    given: dict[str, dict[str, Array]] = {"tensors": {}, "x": {}}
    for key, array in arrays.items():
        group, _, name = key.partition(" ")
        given[group][name] = array
    try:
        layer = _build(message["name"], message["config"], message["dtype"])
        if message["do"] == "describe":
            return {"tensors": [[names[-1], list(tensor.shape)] for names, tensor in _tensors(layer)]}, {}
        _set(layer, given["tensors"])
        return {}, _run(message["name"], layer, given["x"])
    except UsageError as error:
        return {"usage": str(error)}, {}
    except Exception as error:  # paddle raises unrelated classes, some from C++
        return {"refused": f"{type(error).__name__}: {str(error).strip()[-500:]}"}, {}


def _build(name: str, config: Mapping[str, Any], dtype: str) -> Any:
    import paddle

    found = getattr(paddle.nn, name, None)
    if not isinstance(found, type) or not issubclass(found, paddle.nn.Layer):
        raise UsageError(f"paddle.nn has no layer {name}")
    paddle.set_default_dtype(dtype)
    given = dict(config)
    if name == "BatchNorm":  # the only one whose default is float32 whatever is set
        given["dtype"] = dtype
    if name.startswith("InstanceNorm") and given.get("weight_attr") is False:  # refused unless both are left out
        given.setdefault("bias_attr", False)
    layer = found(**given)
    layer.eval()
    return layer


def _tensors(layer: Any) -> list[tuple[list[str], Any]]:
    """Every tensor once, with all names under which the state dict lists it: `weight_ih_l0`, `0.cell.weight_ih`."""
    found: dict[int, tuple[list[str], Any]] = {}
    for name, tensor in layer.state_dict().items():
        found.setdefault(id(tensor), ([], tensor))[0].append(name)
    return list(found.values())


def _set(layer: Any, tensors: Arrays) -> None:
    """Set every tensor under one of its names. Raises ValueError naming what is missing, unknown or contradictory."""
    tied = _tensors(layer)
    unknown = tensors.keys() - {name for names, _ in tied for name in names}
    missing = [names[-1] for names, _ in tied if not tensors.keys() & set(names)]
    if unknown or missing:
        raise ValueError(f"unknown: {', '.join(sorted(unknown)) or 'none'}; missing: {', '.join(missing) or 'none'}")
    for names, tensor in tied:
        array, *others = (tensors[name] for name in names if name in tensors)
        if tuple(tensor.shape) != array.shape:
            raise ValueError(f"{names[-1]} is {tuple(tensor.shape)}, not {array.shape}")
        if any(not np.array_equal(array, other) for other in others):
            raise ValueError(f"{' and '.join(names)} are one tensor, and the values given differ")
        tensor.set_value(array)


def _run(name: str, layer: Any, arrays: Arrays) -> dict[str, Array]:
    import paddle

    data = {key: paddle.to_tensor(array) for key, array in arrays.items()}
    with paddle.no_grad():
        result = _call(name, layer, data)
    return {key: value.numpy() for key, value in result.items()}


def _call(name: str, layer: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    if name == "MultiHeadAttention":
        found = layer(*inputs(name, data, "query", "key", "value"))
        return {"y": found[0] if layer.need_weights else found}
    if name == "Bilinear":
        return {"y": layer(*inputs(name, data, "x1", "x2"))}
    (x,) = inputs(name, data, "x")
    if name in CELLS:
        return _over_time(layer, x)
    if name not in STACKS:
        return {"y": layer(x)}
    y, states = layer(x)
    return {"y": y, **_named(states)}


def _over_time(cell: Any, x: Any) -> dict[str, Any]:
    """A cell run over x (batch, time, input): y (batch, time, hidden), h and c (1, batch, hidden)."""
    import paddle

    states: Any = None
    if getattr(cell, "proj_size", 0):  # LSTMCell.state_shape exchanges the sizes of h and c
        sizes = (cell.proj_size, cell.hidden_size)
        states = tuple(paddle.zeros([x.shape[0], size], x.dtype) for size in sizes)
    outputs = []
    for t in range(x.shape[1]):
        y, states = cell(x[:, t], states)
        outputs.append(y)
    last = tuple(s.unsqueeze(0) for s in states) if isinstance(states, tuple) else states.unsqueeze(0)
    return {"y": paddle.stack(outputs, 1), **_named(last)}


def _named(states: Any) -> dict[str, Any]:
    return dict(zip("hc", states if isinstance(states, tuple) else (states,), strict=False))


if __name__ == "__main__":
    main()
