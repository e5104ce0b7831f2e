"""A convolution over one axis that an exporter wrote as one over two, the other of size 1: Keras' Conv1D by tf2onnx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from layoutx.model.onnx_forms import Reading, shaped

FORMS = ("onnx.Conv", "onnx.ConvTranspose")
LISTS = ("strides", "dilations", "kernel_shape", "output_padding", "output_shape")
BEFORE = ("Transpose", "Identity", "Pad")  # what lies between the convolution and the axis that comes and goes
AFTER = (*BEFORE, "Add")
NEAR = 4  # of those in a row


def thinned(
    nodes: Sequence[Any], node: Any, reading: Reading, makers: Mapping[str, int], readers: Mapping[str, Sequence[int]]
) -> Reading:
    """The layer without its axis of size 1, where that was put in before the node and is taken out after it."""
    kernel = reading.tensors.get("W")
    if reading.form not in FORMS or kernel is None or len(kernel.shape) != 4 or 1 not in kernel.shape[2:]:
        return reading
    if not _comes(nodes, node.input[0], makers) or not _goes(nodes, node.output[0], readers):
        return reading
    at = kernel.shape[2:].index(1)
    pads = reading.config.get("pads", [0] * 4)
    steps = [reading.config.get(key, [1, 1])[at] for key in ("strides", "dilations")]
    if (
        reading.config.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        or pads[at]
        or pads[at + 2]
        or steps != [1, 1]
    ):
        return reading
    config = dict(reading.config)
    for key in LISTS:
        if key in config:
            config[key] = [n for i, n in enumerate(config[key]) if i != at]
    if "pads" in config:
        config["pads"] = [n for i, n in enumerate(pads) if i % 2 != at]
    thin = shaped(kernel, kernel.shape[: 2 + at] + kernel.shape[3 + at :])
    return replace(reading, config={**config, "rank": 1}, tensors={**reading.tensors, "W": thin})


def _comes(nodes: Sequence[Any], value: str, makers: Mapping[str, int]) -> bool:
    """Whether an axis is put in shortly before."""
    for _ in range(NEAR):
        at = makers.get(value, -1)
        if at < 0 or nodes[at].op_type not in BEFORE:
            break
        value = nodes[at].input[0]
    at = makers.get(value, -1)
    return at >= 0 and nodes[at].op_type == "Unsqueeze"


def _goes(nodes: Sequence[Any], value: str, readers: Mapping[str, Sequence[int]]) -> bool:
    """Whether an axis is taken out shortly after."""
    for _ in range(NEAR + 1):
        after = readers.get(value, ())
        if len(after) != 1 or after[0] < 0:
            return False
        node = nodes[after[0]]
        if node.op_type == "Squeeze":
            return True
        if node.op_type not in AFTER:
            return False
        value = node.output[0]
    return False
