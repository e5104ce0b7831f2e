"""Witnesses of mlx.nn (mlx 0.32.4, CPU): every module with weights, every option that a spec reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from witness_cases import EPS, SHORT, SIZE, SMALL, SPACE, WHERE, Plan, Shape

from layoutx.verify.live.mlx_live import precision

STATES = ("tanh", "relu", "sigmoid", "relu6", "elu", "selu", "softplus", "softsign", "silu", "mish", "gelu")


def cases() -> Iterator[Plan]:
    """All of them, kind by kind."""
    yield from plain()
    yield from convs()
    yield from norms()
    yield from recurrent()
    yield from attention()


def plan(form: str, inputs: dict[str, Shape], config: dict[str, Any], vocab: int = 0) -> Plan:
    return Plan(f"mlx.{form}", config, inputs, vocab=vocab, dtype=precision(form, config))


def mlx(form: str, x: Shape, vocab: int = 0, **config: Any) -> Plan:
    return plan(form, {"x": x}, config, vocab)


def plain() -> Iterator[Plan]:
    yield mlx("Linear", (2, 7), input_dims=7, output_dims=5)
    yield mlx("Linear", (2, 7), input_dims=7, output_dims=5, bias=False)
    yield mlx("Embedding", (5,), vocab=11, num_embeddings=11, dims=3)
    yield mlx("Embedding", (7,), vocab=13, num_embeddings=13, dims=5)
    for rank in (0, 1, 2, 3):
        yield mlx("PReLU", (2, *(7, 3, 2)[:rank], 5), num_parameters=5)
    yield mlx("PReLU", (2, 7, 3, 5))
    for more in ({}, {"bias": False}):
        config = {"input1_dims": 3, "input2_dims": 5, "output_dims": 7, **more}
        yield plan("Bilinear", {"x1": (2, 3), "x2": (2, 5)}, config)


def convs() -> Iterator[Plan]:
    for rank in (1, 2, 3):
        size, small = list(SIZE[rank]), list(SMALL[rank])
        pads, two = [2, 1, 1][:rank], [2] * rank
        kernel = {"in_channels": 3, "out_channels": 7, "kernel_size": size}
        dilated = {**kernel, "kernel_size": small, "dilation": 2}
        for form, x in ((f"Conv{rank}d", (2, *SPACE[rank], 3)), (f"ConvTranspose{rank}d", (2, *SHORT[rank], 3))):
            yield mlx(form, x, **kernel)
            yield mlx(form, x, **kernel, bias=False, stride=2)
            yield mlx(form, x, **kernel, padding=pads, stride=two)
            yield mlx(form, x, **dilated)
        yield mlx(
            f"ConvTranspose{rank}d", (2, *SHORT[rank], 3), **kernel, stride=two, padding=[1] * rank, output_padding=1
        )
        yield mlx(f"Conv{rank}d", (2, *SPACE[rank], 1), in_channels=1, out_channels=7, kernel_size=small)
        if rank < 3:
            grouped = {"in_channels": 6, "out_channels": 10, "kernel_size": small, "groups": 2}
            yield mlx(f"Conv{rank}d", (2, *SPACE[rank], 6), **grouped)
            yield mlx(f"Conv{rank}d", (2, *SPACE[rank], 6), **grouped, bias=False, stride=2, padding=1)
            one = {"in_channels": 3, "out_channels": 6, "kernel_size": small, "groups": 3}
            yield mlx(f"Conv{rank}d", (2, *SPACE[rank], 3), **one)


def norms() -> Iterator[Plan]:
    for rank in (0, 1, 2):
        x = (2, *(7, 3)[:rank], 5)
        yield mlx("BatchNorm", x, num_features=5)
        yield mlx("BatchNorm", x, num_features=5, eps=EPS, momentum=0.25, affine=False)
        yield mlx("BatchNorm", x, num_features=5, track_running_stats=False)
    for rank in (1, 2, 3):
        x = (2, *(7, 3, 2)[:rank])
        yield mlx("InstanceNorm", (*x, 5), dims=5)
        yield mlx("InstanceNorm", (*x, 5), dims=5, eps=EPS, affine=True)
        for more in ({}, {"pytorch_compatible": True}):
            yield mlx("GroupNorm", (*x, 6), num_groups=3, dims=6, eps=EPS, **more)
            yield mlx("GroupNorm", (*x, 6), num_groups=2, dims=6, **more)
            yield mlx("GroupNorm", (*x, 6), num_groups=2, dims=6, affine=False, **more)
    yield mlx("LayerNorm", (2, 7), dims=7)
    yield mlx("LayerNorm", (2, 7), dims=7, eps=EPS, bias=False)
    yield mlx("LayerNorm", (2, 7), dims=7, affine=False)
    yield mlx("RMSNorm", (2, 7), dims=7)
    yield mlx("RMSNorm", (2, 5), dims=5, eps=EPS)


def recurrent() -> Iterator[Plan]:
    for name in ("RNN", "LSTM", "GRU"):
        for more in ({}, {"bias": False}):
            yield mlx(name, (2, 5, 7), input_size=7, hidden_size=3, **more)
    for state in STATES:
        yield mlx("RNN", (2, 5, 7), input_size=7, hidden_size=3, nonlinearity=state)


def attention() -> Iterator[Plan]:
    same = {"query": (2, 4, 15), "key": (2, 5, 15), "value": (2, 5, 15)}
    widths = {"query_input_dims": 13, "key_input_dims": 17, "value_input_dims": 19}
    for bias in (True, False):
        yield plan("MultiHeadAttention", same, {"dims": 15, "num_heads": 3, "bias": bias})
        yield plan("MultiHeadAttention", WHERE, {"dims": 15, "num_heads": 3, "bias": bias, **widths})
        narrow = {"value_dims": 21, "value_output_dims": 11}
        yield plan("MultiHeadAttention", WHERE, {"dims": 15, "num_heads": 3, "bias": bias, **widths, **narrow})
