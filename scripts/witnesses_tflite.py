"""Which TensorFlow Lite operators are captured; their shapes are given, since an operator owns no weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from witness_cases import SHORT, SIZE, SMALL, SPACE, Plan, Shape

ACTIVATIONS = ("RELU", "RELU6")


def cases() -> Iterator[Plan]:
    """All of them."""
    yield from plain()
    yield from convs()
    yield from transposed()
    yield from recurrent()


def tflite(form: str, x: Shape, tensors: Mapping[str, Shape], vocab: int = 0, **config: Any) -> Plan:
    return Plan(f"tflite.{form}", config, {"x": x}, tensors, {}, vocab, "float32")


def plain() -> Iterator[Plan]:
    dense: dict[str, Shape] = {"filter": (5, 7), "bias": (5,)}
    yield tflite("FULLY_CONNECTED", (2, 7), dense)
    yield tflite("FULLY_CONNECTED", (2, 7), {"filter": (5, 7)})
    for name in ACTIVATIONS:
        yield tflite("FULLY_CONNECTED", (2, 7), dense, fused_activation_function=name)
    yield tflite("GATHER", (5,), {"params": (11, 3)}, vocab=11)
    yield tflite("GATHER", (5,), {"params": (11, 3)}, vocab=11, axis=0, batch_dims=0)
    yield tflite("EMBEDDING_LOOKUP", (5,), {"value": (11, 3)}, vocab=11)
    yield tflite("EMBEDDING_LOOKUP", (7,), {"value": (13, 5)}, vocab=13)
    yield tflite("PRELU", (2, 5), {"alpha": (5,)})
    yield tflite("PRELU", (2, 5, 3), {"alpha": (5, 3)})
    for alpha in ((1, 1, 3), (7, 1, 3), (1, 1, 1)):
        yield tflite("PRELU", (2, 7, 5, 3), {"alpha": alpha})


def convs() -> Iterator[Plan]:
    def conv(form: str, x: Shape, kernel: Shape, out: int, **config: Any) -> Plan:
        return tflite(form, x, {"filter": kernel, "bias": (out,)}, **config)

    strided: dict[str, Any] = {"strides": [2, 1], "padding": "SAME"}
    x = (2, *SPACE[2], 3)
    yield conv("CONV_2D", x, (7, *SIZE[2], 3), 7)
    yield conv("CONV_2D", x, (7, *SIZE[2], 3), 7, **strided, fused_activation_function="RELU6")
    yield conv("CONV_2D", x, (7, *SMALL[2], 3), 7, dilations=[2, 1], fused_activation_function="RELU")
    yield conv("CONV_2D", (2, *SPACE[2], 6), (10, *SIZE[2], 3), 10, _groups=2)
    yield conv("CONV_2D", x, (6, *SMALL[2], 1), 6, _groups=3)
    yield conv("DEPTHWISE_CONV_2D", (2, *SPACE[2], 1), (1, *SMALL[2], 7), 7, depth_multiplier=7)
    yield conv("DEPTHWISE_CONV_2D", x, (1, *SIZE[2], 3), 3)
    yield conv("DEPTHWISE_CONV_2D", x, (1, *SIZE[2], 6), 6, depth_multiplier=2)
    yield conv("DEPTHWISE_CONV_2D", x, (1, *SMALL[2], 6), 6, depth_multiplier=2, dilations=[2, 1])
    same: dict[str, Any] = {"strides": [2, 2], "padding": "SAME", "fused_activation_function": "RELU"}
    yield conv("DEPTHWISE_CONV_2D", x, (1, *SIZE[2], 6), 6, **same, depth_multiplier=2)
    x = (2, *SPACE[1], 3)
    yield conv("Conv1D", x, (7, 1, *SIZE[1], 3), 7)
    yield conv("Conv1D", x, (7, 1, *SIZE[1], 3), 7, strides=[2], padding="SAME")
    yield conv("Conv1D", (2, *SPACE[1], 6), (10, 1, *SMALL[1], 3), 10, _groups=2, dilations=[2])
    yield conv("Conv1D", x, (6, 1, *SMALL[1], 1), 6, _groups=3)
    yield conv("DepthwiseConv1D", (2, *SPACE[1], 1), (1, 1, *SMALL[1], 7), 7, depth_multiplier=7)
    yield conv("DepthwiseConv1D", x, (1, 1, *SIZE[1], 6), 6, depth_multiplier=2)
    yield conv("DepthwiseConv1D", x, (1, 1, *SMALL[1], 3), 3, dilations=[2], fused_activation_function="RELU")
    x = (2, *SPACE[3], 3)
    yield conv("CONV_3D", x, (*SIZE[3], 3, 7), 7)
    yield conv("CONV_3D", (2, *SPACE[3], 1), (*SMALL[3], 1, 7), 7)
    yield tflite("CONV_3D", x, {"filter": (*SIZE[3], 3, 7)}, strides=[2, 1, 2], padding="SAME")
    yield conv("CONV_3D", x, (*SMALL[3], 3, 7), 7, dilations=[2, 1, 1], fused_activation_function="RELU")


def transposed() -> Iterator[Plan]:
    def both(form: str, name: str, x: Shape, kernel: Shape, **config: Any) -> Iterator[Plan]:
        yield tflite(form, x, {name: kernel, "bias": (7,)}, **config)
        yield tflite(form, x, {name: kernel}, **config)

    for form, rank, name in (("Conv1DTranspose", 1, "weights"), ("TRANSPOSE_CONV", 2, "weights")):
        x, kernel = (2, *SHORT[rank], 3), (7, *((1,) if rank == 1 else ()), *SIZE[rank], 3)
        yield from both(form, name, x, kernel)
        yield from both(form, name, x, kernel, strides=[2] * rank, fused_activation_function="RELU")
        yield from both(form, name, x, kernel, strides=[2] * rank, padding="SAME")
    x = (2, *SHORT[3], 3)
    yield from both("CONV_3D_TRANSPOSE", "filter", x, (*SIZE[3], 7, 3))
    yield from both("CONV_3D_TRANSPOSE", "filter", x, (*SIZE[3], 7, 3), strides=[2, 2, 2])
    yield from both("CONV_3D_TRANSPOSE", "filter", x, (*SIZE[3], 7, 3), strides=[2, 1, 2], padding="SAME")
    small = (*SMALL[3], 7, 3)
    yield from both("CONV_3D_TRANSPOSE", "filter", x, small, dilations=[2, 1, 1], fused_activation_function="RELU")


def recurrent() -> Iterator[Plan]:
    rnn: dict[str, Shape] = {
        "input_to_input_weights": (3, 7),
        "recurrent_to_input_weights": (3, 3),
        "input_gate_bias": (3,),
    }
    others = [{"fused_activation_function": name} for name in ("RELU", "RELU6", "NONE")]
    several: tuple[dict[str, Any], ...] = ({}, *others, {"time_major": True})
    for more in several:
        x = (5, 2, 7) if "time_major" in more else (2, 5, 7)
        yield tflite("UNIDIRECTIONAL_SEQUENCE_RNN", x, rnn, **more)
        if more.get("fused_activation_function") == "NONE":
            continue  # the LSTM's kernel then reads memory that it has not written
        yield tflite("UNIDIRECTIONAL_SEQUENCE_LSTM", x, lstm(), **more)
        yield tflite("UNIDIRECTIONAL_SEQUENCE_LSTM", x, lstm(peephole=True), **more)
        yield tflite("UNIDIRECTIONAL_SEQUENCE_LSTM", x, lstm(proj=2), **more, _projection=True)
        yield tflite("UNIDIRECTIONAL_SEQUENCE_LSTM", x, lstm(peephole=True, proj=2), **more, _projection=True)


def lstm(peephole: bool = False, proj: int = 0) -> dict[str, Shape]:
    """Names and shapes of the constants of an LSTM of 3 units on 7 inputs."""
    gates = ("input", "forget", "cell", "output")
    found: dict[str, Shape] = {f"input_to_{gate}_weights": (3, 7) for gate in gates}
    found |= {f"recurrent_to_{gate}_weights": (3, proj or 3) for gate in gates}
    if peephole:
        found |= {f"cell_to_{gate}_weights": (3,) for gate in ("input", "forget", "output")}
    found |= dict.fromkeys(("input_gate_bias", "forget_gate_bias", "cell_bias", "output_gate_bias"), (3,))
    return {**found, "projection_weights": (proj, 3)} if proj else found
