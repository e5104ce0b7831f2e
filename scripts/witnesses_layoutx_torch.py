"""Witnesses of layoutx.torch (on torch 2.13): every module with weights, every option that a spec reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from witness_cases import EPS, SHORT, SIZE, SMALL, SPACE, Plan, Shape

ACTIVATIONS = (
    "linear", "sigmoid", "hard_sigmoid_0.2", "hard_sigmoid_1/6", "relu", "relu6", "leaky_relu_0.2", "leaky_relu_0.01",
    "elu", "selu", "softplus", "softsign", "gelu", "gelu_tanh", "silu", "mish", "exponential", "softmax",
)  # fmt: skip
ROUNDED = ("leaky_relu_0.2", "gelu", "selu")  # Keras' constants are float32 in its float64 layers too
SIZES = {"input_size": 7, "hidden_size": 3, "batch_first": True}


def cases() -> Iterator[Plan]:
    """All of them, kind by kind."""
    yield from recurrent()
    yield from convs()
    yield from conv_lstms()
    yield from others()


def own(form: str, x: Shape, **config: Any) -> Plan:
    return Plan(f"torch.layoutx.{form}", config, {"x": x})


def recurrent() -> Iterator[Plan]:
    x = (2, 5, 7)
    for name in ("RNN", "GRU", "LSTM"):
        yield own(name, (5, 2, 7), **{**SIZES, "batch_first": False})
        for more in ({}, {"bias": False}, {"bidirectional": True}, {"go_backwards": True}):
            yield own(name, x, **SIZES, **more)
        yield own(name, (5, 2, 7), **{**SIZES, "batch_first": False}, bidirectional=True, bias=False)
    for activation in ACTIVATIONS:
        made = own("RNN", x, **SIZES, activation=activation)
        yield replace(made, dtype="float32") if activation in ROUNDED else made
    for name in ("GRU", "LSTM"):
        for gate in ("hard_sigmoid_0.2", "hard_sigmoid_1/6"):
            yield own(name, x, **SIZES, gate_activation=gate)
            yield own(name, x, **SIZES, gate_activation=gate, bidirectional=True, activation="softsign")
        yield own(name, x, **SIZES, activation="relu")
    yield own("GRU", x, **SIZES, reset_after=True)
    yield own("GRU", x, **SIZES, reset_after=True, bidirectional=True, gate_activation="hard_sigmoid_0.2")
    wide = {**SIZES, "hidden_size": 5, "proj_size": 3}
    for both in ({}, {"bidirectional": True}):
        yield own("LSTM", x, **SIZES, **both, peephole=True)
        yield own("LSTM", x, **SIZES, **both, peephole=True, forget_bias=1.0)
        yield own("LSTM", x, **wide, **both)
        yield own("LSTM", x, **wide, **both, peephole=True, forget_bias=1.0, gate_activation="hard_sigmoid_0.2")
    yield own("LSTM", x, **SIZES, forget_bias=1.0)


def convs() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        size, small = list(SIZE[rank]), list(SMALL[rank])
        plain = {"in_channels": 3, "out_channels": 7, "kernel_size": size}
        even = {**plain, "kernel_size": [4, 2, 2][:rank]}
        grouped = {"in_channels": 6, "out_channels": 10, "kernel_size": small, "groups": 2}
        for name, space in ((f"Conv{rank}dSame", SPACE[rank]), (f"ConvTranspose{rank}dSame", SHORT[rank])):
            x = (2, 3, *space)
            yield own(name, x, **plain)
            yield own(name, x, **plain, bias=False, stride=2)
            yield own(name, x, **plain, padding="valid", stride=[3, 2, 2][:rank])
            yield own(name, x, **even, stride=[2, 3, 2][:rank])
            yield own(name, x, **{**plain, "kernel_size": small}, dilation=2)
            yield own(name, (2, 6, *space), **grouped)
            yield own(name, (2, 6, *space), **grouped, bias=False, stride=2)
        yield own(f"ConvTranspose{rank}dSame", (2, 3, *SHORT[rank]), **plain, stride=2, output_padding=[1] * rank)
        yield own(
            f"ConvTranspose{rank}dSame", (2, 3, *SHORT[rank]), **even, padding="valid", stride=2, output_padding=1
        )
        yield own(f"Conv{rank}dSame", (2, 3, *SPACE[rank]), in_channels=3, out_channels=6, kernel_size=small, groups=3)
    yield own("Conv1dSame", (2, 3, 11), in_channels=3, out_channels=7, kernel_size=5, padding="causal", dilation=2)


def conv_lstms() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        name, x = f"ConvLSTM{rank}d", (2, 5, 3, *SPACE[rank])
        config = {"in_channels": 3, "hidden_channels": 2, "kernel_size": list(SIZE[rank]), "batch_first": True}
        small = {**config, "kernel_size": list(SMALL[rank])}
        yield own(name, x, **config)
        yield own(name, (5, 2, 3, *SPACE[rank]), **{**config, "batch_first": False}, bias=False)
        yield own(name, x, **config, padding="same", stride=[2] * rank, gate_activation="hard_sigmoid_0.2")
        yield own(name, x, **small, dilation=2, gate_activation="hard_sigmoid_1/6", activation="relu")
        yield own(name, x, **small, go_backwards=True, padding="same")


def others() -> Iterator[Plan]:
    local = {"in_channels": 3, "out_channels": 2}
    for more in ({}, {"bias": False}):
        yield own("LocallyConnected1d", (2, 3, 11), **local, output_size=7, kernel_size=5, **more)
        yield own("LocallyConnected1d", (2, 3, 11), **local, output_size=[4], kernel_size=[5], stride=2, **more)
        yield own("LocallyConnected2d", (2, 3, 7, 5), **local, output_size=[5, 4], kernel_size=[3, 2], **more)
        yield own(
            "LocallyConnected2d", (2, 3, 7, 5), **local, output_size=[3, 4], kernel_size=[3, 2], stride=[2, 1], **more
        )
    for space in ((), (7,), (7, 3), (7, 3, 2)):
        yield own("BatchNorm", (2, 5, *space), num_features=5)
    yield own("BatchNorm", (2, 7, 5), num_features=5, axis=-1, eps=EPS, momentum=0.25)
    yield own("BatchNorm", (2, 5, 7, 3), num_features=5, affine=False)
    yield own("BatchNorm", (2, 5, 7), num_features=5, eps=EPS, eps_added_to="deviation")
    yield own("Normalization", (2, 5, 7, 3), num_features=5)
    yield own("Normalization", (2, 7, 5), num_features=5, axis=-1)
    yield own("Normalization", (2, 5), num_features=5, invert=True)
